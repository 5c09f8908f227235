//! Weight expressions to bytes: constants are computed when a backend asks for them, one tensor at a time.

mod blocks;
mod memo;
pub(crate) mod rows;

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::PathBuf;

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

use crate::compress::{self, Compressed, Feedback};
use crate::ops::{Cast, Compress, Concat};
use crate::rounding::to_f16;
use crate::{DType, Function, Op, OpError, Tensor, TensorType, ValueId, interp};

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

    /// Where the bytes lie in a file, if they lie in one as they are.
    fn region(&self, _name: &str) -> Option<FileRegion> {
        None
    }

    /// Where values that several constants have in common are remembered, if they are.
    fn memo(&self) -> Option<&Memo> {
        None
    }

    /// Tells the source that these bytes are not needed again soon, so that a map can drop its pages.
    fn done(&self, _name: &str) {}
}

pub use memo::{Memo, Remembering};

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

/// Elements converted at a time.
const CHUNK: usize = 1 << 17;

/// Writes the bytes of a constant value, row-major and little-endian, in its own dtype.
///
/// A `load` under reshapes and one cast, or several one after another, are streamed in chunks of 128 Ki elements; any other
/// expression is evaluated in float64, a block of rows at a time where its ops allow it.
///
/// # Errors
/// See [`WeightError`].
pub fn write_constant(
    f: &Function,
    v: ValueId,
    source: &dyn WeightSource,
    out: &mut dyn Write,
) -> Result<Written, WeightError> {
    if let Some(loads) = plain_loads(f, v) {
        let mut all = Written::default();
        for (tensor, stored) in loads {
            let bytes = load_bytes(source, tensor, &stored)?;
            let written = write_cast(&bytes, stored.dtype, f.dtype(v), out)?;
            source.done(tensor);
            all.bytes += written.bytes;
            all.non_finite += written.non_finite;
            all.overflowed += written.overflowed;
        }
        return Ok(all);
    }
    // A last cast is done here, so that what it cannot hold is seen.
    let exact = match f.op(v) {
        Op::Cast(_) => f.operands(v)[0],
        _ => v,
    };
    let (dtype, mut written) = (f.dtype(v), Written::default());
    blocks::evaluate(f, exact, source, |block| {
        let before = block.data.iter().map(|x| u64::from(!x.is_finite())).sum();
        let bytes = Tensor { dtype, ..block }.to_le_bytes();
        let after = count_non_finite(&bytes, dtype);
        written.bytes += bytes.len() as u64;
        written.non_finite += after;
        written.overflowed += after.saturating_sub(before);
        Ok(out.write_all(&bytes)?)
    })?;
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
    let halves = match plain_load(f, weight) {
        Some((tensor, stored)) => {
            let bytes = load_bytes(source, tensor, &stored)?;
            let halves = compress::to_halves(&bytes, stored.dtype);
            source.done(tensor);
            halves
        }
        None => None,
    };
    let halves = match halves {
        Some(halves) => halves,
        None => {
            let mut halves = Vec::with_capacity(f.ty(weight).elements());
            blocks::evaluate(f, weight, source, |block| {
                halves.extend(block.data.iter().map(|x| to_f16(*x).to_bits()));
                Ok(())
            })?;
            halves
        }
    };
    compress::compress(*scheme, f.shape(v), &halves, importance.as_deref(), feedback).map_err(failed)
}

/// A constant in fp32; a stored tensor is not held in float64 on the way.
fn floats(f: &Function, v: ValueId, source: &dyn WeightSource) -> Result<Vec<f32>, WeightError> {
    if let Some((tensor, stored)) = plain_load(f, v)
        && matches!(stored.dtype, DType::F16 | DType::BF16 | DType::F32)
    {
        let bytes = load_bytes(source, tensor, &stored)?;
        let mut wide = vec![0.0; stored.elements()];
        decode(&bytes, stored.dtype, &mut wide);
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

/// A key that two constants share only if they are the same expression: use it to store equal weights once.
pub fn constant_key(f: &Function, v: ValueId) -> String {
    let mut key = String::new();
    fn walk(f: &Function, v: ValueId, key: &mut String) {
        use std::fmt::Write as _;
        let node = f.node(v);
        let _ = write!(key, "{}{}:{}(", node.op.name(), serde_json::Value::Object(node.op.attrs()), node.ty);
        for o in f.operands(v) {
            walk(f, o, key);
            key.push(',');
        }
        key.push(')');
    }
    walk(f, v, &mut key);
    key
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

/// `load` under reshapes and casts of which at most one rounds.
pub(crate) fn plain_load(f: &Function, v: ValueId) -> Option<(&str, TensorType)> {
    let mut dtypes = vec![f.dtype(v)];
    let mut at = v;
    loop {
        match f.op(at) {
            Op::Load(load) => {
                dtypes.push(f.dtype(at));
                // f32 → f16 and bf16 → f32 → f16 round once; f32 → f16 → f32 must keep the middle step.
                let (result, stored) = (dtypes[0], f.dtype(at));
                let exact = dtypes.iter().all(|&d| d == result || widens(stored, d));
                return exact.then(|| (load.tensor.as_str(), f.ty(at).clone()));
            }
            Op::Cast(Cast { dtype }) => dtypes.push(*dtype),
            Op::Reshape(_) => {}
            _ => return None,
        }
        at = *f.operands(at).first()?;
    }
}

/// Loads like [`plain_load`]'s whose bytes follow each other: one, or several joined along the slowest axis. `None` if one
/// needs more than a conversion between float types.
fn plain_loads(f: &Function, v: ValueId) -> Option<Vec<(&str, TensorType)>> {
    let streams = |(_, stored): &(&str, TensorType)| converts(stored.dtype, f.dtype(v));
    if let Some(load) = plain_load(f, v) {
        return streams(&load).then(|| vec![load]);
    }
    let (mut at, mut dtypes) = (v, Vec::new());
    while let Op::Cast(_) | Op::Reshape(_) = f.op(at) {
        dtypes.push(f.dtype(at));
        at = *f.operands(at).first()?;
    }
    let Op::Concat(Concat { axis: 0 }) = f.op(at) else { return None };
    let loads: Vec<_> = f.operands(at).into_iter().map(|o| plain_load(f, o)).collect::<Option<_>>()?;
    // What is joined is as it is stored, or wider: the conversion above rounds alone.
    let exact = |(_, stored): &(&str, TensorType)| {
        let result = f.dtype(v);
        widens(stored.dtype, f.dtype(at)) && dtypes.iter().all(|&d| d == result || widens(stored.dtype, d))
    };
    loads.iter().all(|load| exact(load) && streams(load)).then_some(loads)
}

/// Every value of `from` is a value of `to`.
fn widens(from: DType, to: DType) -> bool {
    from == to || matches!((from, to), (DType::F16 | DType::BF16, DType::F32 | DType::F64) | (DType::F32, DType::F64))
}

pub(crate) fn load_bytes<'a>(
    source: &'a dyn WeightSource,
    tensor: &str,
    ty: &TensorType,
) -> Result<Cow<'a, [u8]>, WeightError> {
    let bytes = source.bytes(tensor)?;
    if bytes.len() != ty.bytes() {
        return Err(WeightError::Size { name: tensor.into(), expected: ty.clone(), found: bytes.len() });
    }
    Ok(bytes)
}

/// Whether [`write_cast`] has this conversion.
fn converts(from: DType, to: DType) -> bool {
    use DType::{BF16, F16, F32};
    from == to || matches!((from, to), (BF16 | F16 | F32, BF16 | F16 | F32))
}

/// Streams a conversion that [`converts`].
fn write_cast(bytes: &[u8], from: DType, to: DType, out: &mut dyn Write) -> Result<Written, WeightError> {
    use DType::{F16, F32};
    if from == to {
        let mut written = Written { bytes: bytes.len() as u64, ..Written::default() };
        for chunk in bytes.chunks(CHUNK * from.size()) {
            written.non_finite += count_non_finite(chunk, from);
            out.write_all(chunk)?;
        }
        return Ok(written);
    }
    let mut written = Written { bytes: (bytes.len() / from.size() * to.size()) as u64, ..Written::default() };
    let mut wide = vec![0f32; CHUNK.min(bytes.len() / from.size())];
    let mut narrow = vec![0u16; if to == F32 { 0 } else { wide.len() }];
    for chunk in bytes.chunks(CHUNK * from.size()) {
        let wide = &mut wide[..chunk.len() / from.size()];
        decode(chunk, from, wide);
        let before = count_non_finite_f32(wide);
        let after = if to == F32 {
            out.write_all(bytemuck::cast_slice(wide))?;
            before
        } else {
            let narrow = &mut narrow[..wide.len()];
            match to {
                F16 => narrow.reinterpret_cast_mut::<f16>().convert_from_f32_slice(wide),
                _ => narrow.reinterpret_cast_mut::<bf16>().convert_from_f32_slice(wide),
            }
            let bytes: &[u8] = bytemuck::cast_slice(narrow);
            out.write_all(bytes)?;
            count_non_finite(bytes, to)
        };
        written.non_finite += after;
        written.overflowed += after.saturating_sub(before);
    }
    Ok(written)
}

/// Little-endian float bytes to f32. The bytes need not be aligned.
pub(crate) fn decode(bytes: &[u8], from: DType, out: &mut [f32]) {
    if from == DType::F32 {
        for (o, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *o = f32::from_le_bytes(*b);
        }
        return;
    }
    match (bytemuck::try_cast_slice::<u8, u16>(bytes), from) {
        (Ok(bits), DType::F16) => bits.reinterpret_cast::<f16>().convert_to_f32_slice(out),
        (Ok(bits), _) => {
            for (o, b) in out.iter_mut().zip(bits) {
                *o = f32::from_bits(u32::from(*b) << 16);
            }
        }
        (Err(_), _) => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *o =
                    if from == DType::F16 { f16::from_le_bytes(*b).to_f32() } else { bf16::from_le_bytes(*b).to_f32() };
            }
        }
    }
}

fn count_non_finite_f32(values: &[f32]) -> u64 {
    values
        .chunks(4096)
        .map(|c| c.iter().map(|v| u32::from(v.to_bits() & 0x7f80_0000 == 0x7f80_0000)).sum::<u32>())
        .map(u64::from)
        .sum()
}

/// Elements whose exponent is all ones.
fn count_non_finite(bytes: &[u8], dtype: DType) -> u64 {
    let mask: u16 = match dtype {
        DType::F16 => 0x7c00,
        DType::BF16 => 0x7f80,
        DType::F32 => {
            let words = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b));
            return words.map(|b| u64::from(b & 0x7f80_0000 == 0x7f80_0000)).sum();
        }
        DType::F64 => {
            let words = bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b));
            return words.map(|x| u64::from(!x.is_finite())).sum();
        }
        _ => return 0,
    };
    let pairs = bytes.as_chunks::<2>().0;
    pairs
        .chunks(4096)
        .map(|c| c.iter().map(|b| u16::from(u16::from_le_bytes(*b) & mask == mask)).sum::<u16>())
        .map(u64::from)
        .sum()
}
