//! Constants as bytes, block after block.

use std::io::Write;

use super::Blocks;
use crate::convert::Broken;
use crate::source::{WeightError, WeightSource};
use crate::{Function, ValueId};

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
