//! Constants in blocks: each is computed on its own, in any order and on any thread.

use super::evaluate::Rows;
use crate::source::{Block, Stored, WeightError, WeightSource, round};
use crate::{DType, Function, Op, ValueId};

/// The bytes of a constant, row-major and little-endian, in its own dtype, as blocks that follow each other.
///
/// A `load` under reshapes and one cast, or several one after another, are converted in blocks of 128 Ki elements; any other
/// expression is evaluated in float64, a block of rows at a time where its ops allow it.
pub struct Blocks<'a>(Kind<'a>);

enum Kind<'a> {
    Stored(Stored<'a>),
    Computed {
        to: DType,
        rows: Rows<'a>,
        /// The constant without a last cast, which is done here so that what it cannot hold is seen.
        exact: ValueId,
    },
}

impl<'a> Blocks<'a> {
    /// Plans the blocks of the constant `v`; nothing large is read.
    pub fn new(f: &'a Function, v: ValueId, source: &'a dyn WeightSource) -> Self {
        if let Some(stored) = Stored::new(f, v, source) {
            return Blocks(Kind::Stored(stored));
        }
        let exact = match f.op(v) {
            Op::Cast(_) => f.operands(v)[0],
            _ => v,
        };
        Blocks::computed(f, exact, f.dtype(v), source)
    }

    /// The blocks of `exact`, evaluated in float64 and rounded once, to `to`.
    pub(super) fn computed(f: &'a Function, exact: ValueId, to: DType, source: &'a dyn WeightSource) -> Self {
        Blocks(Kind::Computed { to, rows: Rows::new(f, exact, source), exact })
    }

    /// The number of blocks.
    #[must_use]
    pub fn count(&self) -> usize {
        match &self.0 {
            Kind::Stored(stored) => stored.count(),
            Kind::Computed { rows, .. } => rows.blocks(),
        }
    }

    /// Elements in float64, beyond a block, that are held at once to compute a block. Who computes several constants at once bounds the sum of
    /// them, and memory stays bounded by the largest tensor.
    #[must_use]
    pub fn held(&self) -> usize {
        match &self.0 {
            Kind::Stored(_) => 0,
            Kind::Computed { rows, exact, .. } => rows.held(*exact),
        }
    }

    /// Computes block number `index`. Its bytes lie in `buffer`, or in the source if they are stored as they are.
    ///
    /// # Errors
    /// See [`WeightError`].
    pub fn compute(&self, index: usize, buffer: &mut Vec<u8>) -> Result<Block<'_>, WeightError> {
        match &self.0 {
            Kind::Stored(stored) => stored.compute(index, buffer),
            Kind::Computed { to, rows, exact } => {
                let offset = (rows.first(index) * to.size()) as u64;
                let block = rows.compute(*exact, index)?;
                Ok(Block::in_buffer_at(offset, round(block, *to, buffer)))
            }
        }
    }

    /// Tells the source that nothing more is computed.
    pub fn done(&self) {
        match &self.0 {
            Kind::Stored(stored) => stored.done(),
            Kind::Computed { rows, .. } => rows.done(),
        }
    }
}
