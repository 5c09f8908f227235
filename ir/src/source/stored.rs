//! Stored tensors as constants: converted in blocks, in any order and on any thread.

use std::borrow::Cow;
use std::sync::OnceLock;

use super::loads::plain_loads;
use super::{WeightError, WeightSource, load_bytes, load_part};
use crate::convert::{self, Broken};
use crate::{DType, Function, Tensor, TensorType, ValueId};

/// Elements of a block of stored values: source and result stay in the processor's own cache.
const BLOCK: usize = 1 << 17;

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

    /// A block whose bytes, from `offset` on in the constant, lie in the buffer.
    pub(crate) fn in_buffer_at(offset: u64, broken: Broken) -> Block<'b> {
        Block { offset, stored: None, broken }
    }

    /// Whether its bytes lie in the buffer.
    #[must_use]
    pub fn in_buffer(&self) -> bool {
        self.stored.is_none()
    }
}

/// A constant that is one stored tensor, or several one after another, under reshapes and a cast.
pub(crate) struct Stored<'a> {
    to: DType,
    source: &'a dyn WeightSource,
    parts: Vec<Part<'a>>,
}

/// A stored tensor.
struct Part<'a> {
    tensor: &'a str,
    ty: TensorType,
    /// The number of its first block.
    first: usize,
    /// Where its elements begin in the constant.
    begin: usize,
    bytes: OnceLock<Cow<'a, [u8]>>,
}

impl<'a> Stored<'a> {
    /// Plans the blocks of the constant `v`; nothing is read. `None` if it must be evaluated.
    pub(crate) fn new(f: &'a Function, v: ValueId, source: &'a dyn WeightSource) -> Option<Self> {
        let (mut first, mut begin) = (0, 0);
        let parts = plain_loads(f, v)?.into_iter().map(|(tensor, ty)| {
            let elements = ty.elements();
            let part = Part { tensor, ty, first, begin, bytes: OnceLock::new() };
            first += elements.div_ceil(BLOCK);
            begin += elements;
            part
        });
        Some(Stored { to: f.dtype(v), source, parts: parts.collect() })
    }

    /// The number of blocks.
    pub(crate) fn count(&self) -> usize {
        self.parts.last().map_or(0, |last| last.first + last.ty.elements().div_ceil(BLOCK))
    }

    /// Computes block number `index`. Its bytes lie in `buffer`, or in the source if they are stored as they are.
    pub(crate) fn compute(&self, index: usize, buffer: &mut Vec<u8>) -> Result<Block<'_>, WeightError> {
        let part = &self.parts[self.parts.partition_point(|part| part.first <= index) - 1];
        part.compute(index, self.to, self.source, buffer)
    }

    /// Tells the source that nothing more is computed.
    pub(crate) fn done(&self) {
        self.parts.iter().for_each(|part| self.source.done(part.tensor));
    }
}

impl<'a> Part<'a> {
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
                return Ok(Block::in_buffer_at(offset, broken));
            }
            return Ok(Block::in_buffer_at(offset, self.convert(&bytes, to, buffer)?));
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
        Ok(Block::in_buffer_at(offset, self.convert(bytes, to, buffer)?))
    }

    /// Stored elements, rounded once.
    fn convert(&self, bytes: &[u8], to: DType, buffer: &mut Vec<u8>) -> Result<Broken, WeightError> {
        let from = self.ty.dtype;
        let elements = bytes.len() / from.size();
        if convert::converts(from, to) {
            buffer.resize(elements * to.size(), 0);
            return Ok(convert::convert(from, bytes, to, buffer));
        }
        let values = Tensor::from_le_bytes(&TensorType::new(from, [elements]), bytes);
        let values = values.ok_or_else(|| WeightError::Missing { name: self.tensor.into() })?;
        Ok(round(values, to, buffer))
    }
}

/// Rounds computed values to a dtype.
pub(crate) fn round(block: Tensor, dtype: DType, buffer: &mut Vec<u8>) -> Broken {
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
