//! Constants in blocks: each is computed on its own, in any order and on any thread.

use std::borrow::Cow;
use std::sync::OnceLock;

use super::evaluate::Rows;
use super::loads::{load_bytes, load_part, plain_loads};
use super::{WeightError, WeightSource};
use crate::convert::{self, Broken};
use crate::{DType, Function, Op, Tensor, TensorType, ValueId};

/// Elements of a block of stored values: source and result stay in the processor's own cache.
const BLOCK: usize = 1 << 17;

/// The bytes of a constant, row-major and little-endian, in its own dtype, as blocks that follow each other.
///
/// A `load` under reshapes and one cast, or several one after another, are converted in blocks of 128 Ki elements; any other
/// expression is evaluated in float64, a block of rows at a time where its ops allow it.
pub struct Blocks<'a> {
    to: DType,
    source: &'a dyn WeightSource,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Stored(Vec<Stored<'a>>),
    Computed {
        rows: Rows<'a>,
        /// The constant without a last cast, which is done here so that what it cannot hold is seen.
        exact: ValueId,
    },
}

/// A stored tensor.
struct Stored<'a> {
    tensor: &'a str,
    ty: TensorType,
    /// The number of its first block.
    first: usize,
    /// Where its elements begin in the constant.
    begin: usize,
    bytes: OnceLock<Cow<'a, [u8]>>,
}

/// A computed block.
pub struct Block<'b> {
    /// Where its bytes begin in the constant.
    pub offset: u64,
    /// Its bytes in the source, if they are stored as they are; else they lie in the buffer.
    stored: Option<&'b [u8]>,
    /// Elements that are NaN or infinite.
    pub broken: Broken,
}

impl<'b> Block<'b> {
    /// Its bytes; `buffer` is what it was computed in.
    #[must_use]
    pub fn bytes<'x>(&self, buffer: &'x [u8]) -> &'x [u8]
    where
        'b: 'x,
    {
        self.stored.unwrap_or(buffer)
    }

    /// Whether its bytes lie in the buffer.
    #[must_use]
    pub fn in_buffer(&self) -> bool {
        self.stored.is_none()
    }
}

impl<'a> Blocks<'a> {
    /// Plans the blocks of the constant `v`; nothing large is read.
    pub fn new(f: &'a Function, v: ValueId, source: &'a dyn WeightSource) -> Self {
        let Some(loads) = plain_loads(f, v) else {
            let exact = match f.op(v) {
                Op::Cast(_) => f.operands(v)[0],
                _ => v,
            };
            return Blocks::computed(f, exact, f.dtype(v), source);
        };
        let (mut first, mut begin) = (0, 0);
        let stored = loads.into_iter().map(|(tensor, ty)| {
            let elements = ty.elements();
            let stored = Stored { tensor, ty, first, begin, bytes: OnceLock::new() };
            first += elements.div_ceil(BLOCK);
            begin += elements;
            stored
        });
        Blocks { to: f.dtype(v), source, kind: Kind::Stored(stored.collect()) }
    }

    /// The blocks of `exact`, evaluated in float64 and rounded once, to `to`.
    pub(super) fn computed(f: &'a Function, exact: ValueId, to: DType, source: &'a dyn WeightSource) -> Self {
        Blocks { to, source, kind: Kind::Computed { rows: Rows::new(f, exact, source), exact } }
    }

    /// The number of blocks.
    #[must_use]
    pub fn count(&self) -> usize {
        match &self.kind {
            Kind::Stored(all) => all.last().map_or(0, |last| last.first + last.ty.elements().div_ceil(BLOCK)),
            Kind::Computed { rows, .. } => rows.blocks(),
        }
    }

    /// Whether a large value is held whole in float64 to compute them. Who computes several constants at once does one such at a
    /// time, and memory stays bounded by the largest tensor.
    #[must_use]
    pub fn hold_much(&self) -> bool {
        match &self.kind {
            Kind::Stored(_) => false,
            Kind::Computed { rows, exact } => rows.hold_much(*exact),
        }
    }

    /// Computes block number `index`. Its bytes lie in `buffer`, or in the source if they are stored as they are.
    ///
    /// # Errors
    /// See [`WeightError`].
    pub fn compute(&self, index: usize, buffer: &mut Vec<u8>) -> Result<Block<'_>, WeightError> {
        let to = self.to;
        match &self.kind {
            Kind::Stored(all) => {
                let stored = &all[all.partition_point(|s| s.first <= index) - 1];
                stored.compute(index, to, self.source, buffer)
            }
            Kind::Computed { rows, exact } => {
                let offset = (rows.first(index) * to.size()) as u64;
                let block = rows.compute(*exact, index)?;
                let broken = write(block, to, buffer);
                Ok(Block { offset, stored: None, broken })
            }
        }
    }

    /// Tells the source that nothing more is computed.
    pub fn done(&self) {
        match &self.kind {
            Kind::Stored(all) => all.iter().for_each(|stored| self.source.done(stored.tensor)),
            Kind::Computed { rows, .. } => rows.done(),
        }
    }
}

impl<'a> Stored<'a> {
    fn compute(
        &self,
        index: usize,
        to: DType,
        source: &'a dyn WeightSource,
        buffer: &mut Vec<u8>,
    ) -> Result<Block<'_>, WeightError> {
        let (begin, from) = ((index - self.first) * BLOCK, self.ty.dtype);
        let elements = BLOCK.min(self.ty.elements() - begin);
        let range = begin * from.size()..(begin + elements) * from.size();
        let offset = ((self.begin + begin) * to.size()) as u64;
        if let Some(part) = load_part(source, self.tensor, range.clone()) {
            let bytes = part?;
            if from == to {
                let broken = Broken { non_finite: convert::non_finite(&bytes, from), overflowed: 0 };
                *buffer = bytes;
                return Ok(Block { offset, stored: None, broken });
            }
            buffer.resize(elements * to.size(), 0);
            let broken = convert::convert(from, &bytes, to, buffer);
            return Ok(Block { offset, stored: None, broken });
        }
        let bytes = match self.bytes.get() {
            Some(bytes) => bytes,
            None => {
                let bytes = load_bytes(source, self.tensor, &self.ty)?;
                self.bytes.get_or_init(|| bytes)
            }
        };
        source.visit(self.tensor, range.start as u64, &bytes[range.clone()]);
        let bytes = &bytes[range];
        if from == to {
            let broken = Broken { non_finite: convert::non_finite(bytes, from), overflowed: 0 };
            return Ok(Block { offset, stored: Some(bytes), broken });
        }
        buffer.resize(elements * to.size(), 0);
        let broken = convert::convert(from, bytes, to, buffer);
        Ok(Block { offset, stored: None, broken })
    }
}

/// Rounds computed values to a dtype.
fn write(block: Tensor, dtype: DType, buffer: &mut Vec<u8>) -> Broken {
    let values = block.data.as_standard_layout();
    let values = values.as_slice().unwrap_or_default();
    if convert::converts(dtype, dtype) {
        buffer.resize(values.len() * dtype.size(), 0);
        return convert::from_f64(values, dtype, buffer);
    }
    let before = values.iter().map(|x| u64::from(!x.is_finite())).sum();
    *buffer = Tensor { dtype, ..block }.to_le_bytes();
    let after = convert::non_finite(buffer, dtype);
    Broken { non_finite: after, overflowed: after.saturating_sub(before) }
}
