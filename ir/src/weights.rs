//! Weight expressions to bytes: constants are computed when a backend asks for them, one tensor at a time.

mod blocks;
mod evaluate;
mod expression_id;
mod loads;
mod memo;
pub(crate) mod rows;

use std::borrow::Cow;
use std::io::{self, Write};
use std::ops::Range;
use std::path::PathBuf;

use crate::compress::{self, Compressed, Feedback};
use crate::convert::{self, Broken};
use crate::ops::Compress;
use crate::{DType, Function, Op, OpError, Tensor, TensorType, ValueId, interp};

pub use blocks::{Block, Blocks};
pub use expression_id::ExpressionId;
pub(crate) use loads::{load_bytes, plain_load};
pub use memo::{Memo, Remembering};

/// Where a stored tensor lies on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRegion {
    /// The file.
    pub path: PathBuf,
    /// First byte of the data.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

/// Named tensors in row-major little-endian order, usually a memory map.
pub trait WeightSource: Sync {
    /// Stored type of a tensor, if there is one of that name.
    fn ty(&self, name: &str) -> Option<TensorType>;

    /// The bytes of a tensor.
    ///
    /// # Errors
    /// A tensor that does not exist or cannot be read.
    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError>;

    /// Some bytes of a tensor that is computed from what is stored, such as a dequantised one, so that nobody holds it whole. `None` for
    /// a tensor whose [bytes](WeightSource::bytes) are at hand as they are.
    ///
    /// # Errors
    /// A tensor that cannot be read, or has fewer bytes.
    fn part(&self, _name: &str, _range: Range<usize>) -> Option<Result<Vec<u8>, WeightError>> {
        None
    }

    /// Where the bytes lie in a file, if they lie in one as they are.
    fn region(&self, _name: &str) -> Option<FileRegion> {
        None
    }

    /// Where values that several constants have in common are remembered, if they are.
    fn memo(&self) -> Option<&Memo> {
        None
    }

    /// Tells the source that these bytes of a tensor, from `offset` on, have just been asked for and are about to be read: a source
    /// that hashes its tensors does so while they are in the cache. May be called from several threads, also for bytes that were
    /// visited before.
    fn visit(&self, _name: &str, _offset: u64, _bytes: &[u8]) {}

    /// Tells the source that these bytes are not needed again soon, so that a map can drop its pages.
    fn done(&self, _name: &str) {}
}

/// A source without tensors.
pub struct NoWeights;

impl WeightSource for NoWeights {
    fn ty(&self, _: &str) -> Option<TensorType> {
        None
    }
    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        Err(WeightError::Missing { name: name.into() })
    }
}

/// A weight expression that has no bytes.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// The weight source has no such tensor.
    #[error("tensor `{name}`: not in the weight source")]
    Missing {
        /// Name of the tensor.
        name: String,
    },
    /// The stored bytes do not fill the declared type.
    #[error("tensor `{name}`: expected {expected} ({} bytes), found {found} bytes", expected.bytes())]
    Size {
        /// Name of the tensor.
        name: String,
        /// Declared type.
        expected: TensorType,
        /// Bytes found.
        found: usize,
    },
    /// The value depends on a parameter or a state.
    #[error("value in scope `{scope}` is not a constant")]
    NotConstant {
        /// Provenance of the value.
        scope: String,
    },
    /// An op of the expression failed.
    #[error("`{op}` in scope `{scope}`: {error}")]
    Op {
        /// Name of the op.
        op: &'static str,
        /// Provenance.
        scope: String,
        /// What failed.
        error: OpError,
    },
    /// A weight that its scheme cannot hold.
    #[error("tensor `{name}`: {error}")]
    Compress {
        /// Name of the tensor.
        name: String,
        /// What does not hold.
        error: OpError,
    },
    /// The weight source could not read the tensor.
    #[error("tensor `{name}`: {message}")]
    Read {
        /// Name of the tensor.
        name: String,
        /// What failed.
        message: String,
    },
    /// The sink refused the bytes.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What was seen while a constant was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes written.
    pub bytes: u64,
    /// NaN or infinite elements in the result.
    pub non_finite: u64,
    /// Of these, elements that were finite before a cast to a narrower type: the type cannot hold them.
    pub overflowed: u64,
}

impl Written {
    /// Adds what was seen in so many more bytes.
    pub fn add(&mut self, bytes: u64, broken: Broken) {
        self.bytes += bytes;
        self.non_finite += broken.non_finite;
        self.overflowed += broken.overflowed;
    }
}

/// Writes the bytes of a constant value, row-major and little-endian, in its own dtype, block by block: see [`Blocks`].
///
/// # Errors
/// See [`WeightError`].
pub fn write_constant(
    f: &Function,
    v: ValueId,
    source: &dyn WeightSource,
    out: &mut dyn Write,
) -> Result<Written, WeightError> {
    let blocks = Blocks::new(f, v, source);
    let (mut written, mut buffer) = (Written::default(), Vec::new());
    for index in 0..blocks.count() {
        let block = blocks.compute(index, &mut buffer)?;
        let bytes = block.bytes(&buffer);
        out.write_all(bytes)?;
        written.add(bytes.len() as u64, block.broken);
    }
    blocks.done();
    Ok(written)
}

/// The bytes of a constant value in memory.
///
/// # Errors
/// See [`WeightError`].
pub fn constant_bytes(f: &Function, v: ValueId, source: &dyn WeightSource) -> Result<Vec<u8>, WeightError> {
    let mut out = Vec::with_capacity(f.ty(v).bytes());
    write_constant(f, v, source, &mut out)?;
    Ok(out)
}

/// A compressed weight as it is stored; `v` is the result of a [`Compress`] op.
///
/// # Errors
/// See [`WeightError`]; a weight that its scheme cannot hold.
pub fn compressed(f: &Function, v: ValueId, source: &dyn WeightSource) -> Result<Compressed, WeightError> {
    let failed = |error: OpError| WeightError::Compress { name: described(f, v), error };
    let Op::Compress(Compress { scheme }) = f.op(v) else {
        return Err(failed(OpError::new("expected a compressed weight")));
    };
    let operands = f.operands(v);
    let importance: Option<Vec<f64>> = match operands.get(1) {
        Some(v) => Some(evaluate_constant(f, *v, source)?.data.into_iter().collect()),
        None => None,
    };
    let factors: Option<Vec<f32>> = match operands.get(2) {
        Some(v) => Some(floats(f, *v, source)?),
        None => None,
    };
    let inputs = f.shape(v)[1..].iter().product::<usize>().max(1);
    let feedback = factors.as_deref().map(|factors| Feedback { factors, block: factors.len() / inputs });
    let weight = operands[0];
    let compress = |halves: &[u16]| {
        compress::compress(*scheme, f.shape(v), halves, importance.as_deref(), feedback).map_err(failed)
    };
    if let Some((tensor, stored)) = plain_load(f, weight) {
        let bytes = load_bytes(source, tensor, &stored)?;
        if let Some(halves) = compress::to_halves(&bytes, stored.dtype) {
            let (compressed, ()) = rayon::join(|| compress(&halves), || source.visit(tensor, 0, &bytes));
            source.done(tensor);
            return compressed;
        }
    }
    compress(&halves(f, weight, source)?)
}

/// A computed constant as fp16 bits.
fn halves(f: &Function, v: ValueId, source: &dyn WeightSource) -> Result<Vec<u16>, WeightError> {
    let mut halves = Vec::with_capacity(f.ty(v).elements());
    let (blocks, mut buffer) = (Blocks::computed(f, v, DType::F16, source), Vec::new());
    for index in 0..blocks.count() {
        let block = blocks.compute(index, &mut buffer)?;
        halves.extend(block.bytes(&buffer).as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b)));
    }
    blocks.done();
    Ok(halves)
}

/// A constant in fp32; a stored tensor is not held in float64 on the way.
fn floats(f: &Function, v: ValueId, source: &dyn WeightSource) -> Result<Vec<f32>, WeightError> {
    if let Some((tensor, stored)) = plain_load(f, v)
        && matches!(stored.dtype, DType::F16 | DType::BF16 | DType::F32)
    {
        let bytes = load_bytes(source, tensor, &stored)?;
        let mut wide = vec![0.0; stored.elements()];
        convert::to_f32(stored.dtype, &bytes, &mut wide);
        source.done(tensor);
        return Ok(wide);
    }
    Ok(evaluate_constant(f, v, source)?.data.iter().map(|x| *x as f32).collect())
}

/// The op of a constant that has a compressed weight below it: evaluated, it would be stored uncompressed.
pub fn over_compressed(f: &Function, v: ValueId) -> Option<&'static str> {
    let below = |o: ValueId| matches!(f.op(o), Op::Compress(_)) || over_compressed(f, o).is_some();
    f.operands(v).into_iter().any(below).then(|| f.op(v).name())
}

/// The tensor that a constant comes from, or its scope.
fn described(f: &Function, v: ValueId) -> String {
    loaded_tensor(f, v).map_or_else(|| f.node(v).scope.to_string(), str::to_string)
}

/// The value of a constant in float64.
///
/// # Errors
/// See [`WeightError`].
pub fn evaluate_constant(f: &Function, v: ValueId, source: &dyn WeightSource) -> Result<Tensor, WeightError> {
    interp::evaluate(f, &[v], source, &interp::Bindings::default()).map(|mut t| t.remove(0))
}

/// The checkpoint tensor that a constant is, seen through casts, reshapes and compression.
pub fn loaded_tensor(f: &Function, v: ValueId) -> Option<&str> {
    match f.op(v) {
        Op::Load(load) => Some(&load.tensor),
        Op::Cast(_) | Op::Reshape(_) | Op::Compress(_) => loaded_tensor(f, *f.operands(v).first()?),
        _ => None,
    }
}

/// The checkpoint tensors that a constant is computed from, in order and each once: `a, b`. `None` if there are none.
pub fn sources(f: &Function, v: ValueId) -> Option<String> {
    let (mut names, mut seen, mut ahead) = (Vec::new(), std::collections::HashSet::new(), vec![v]);
    while let Some(at) = ahead.pop() {
        if !seen.insert(at) {
            continue;
        }
        match f.op(at) {
            Op::Load(load) if !names.contains(&load.tensor.as_str()) => names.push(&load.tensor),
            _ => ahead.extend(f.operands(at).iter().rev()),
        }
    }
    (!names.is_empty()).then(|| names.join(", "))
}
