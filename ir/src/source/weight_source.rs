//! What a source of named tensors offers.

use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;

use super::{Memo, WeightError};
use crate::TensorType;

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
