//! A source that remembers what several constants have in common.

use std::borrow::Cow;
use std::ops::Range;

use super::{FileRegion, Memo, WeightError, WeightSource};
use crate::TensorType;

/// A source with a [`Memo`] before it.
pub struct Remembering<'a> {
    source: &'a dyn WeightSource,
    memo: Memo,
}

impl<'a> Remembering<'a> {
    /// Starts with nothing remembered.
    #[must_use]
    pub fn new(source: &'a dyn WeightSource) -> Self {
        Remembering { source, memo: Memo::default() }
    }
}

impl WeightSource for Remembering<'_> {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.source.ty(name)
    }
    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        self.source.bytes(name)
    }
    fn part(&self, name: &str, range: Range<usize>) -> Option<Result<Vec<u8>, WeightError>> {
        self.source.part(name, range)
    }
    fn region(&self, name: &str) -> Option<FileRegion> {
        self.source.region(name)
    }
    fn memo(&self) -> Option<&Memo> {
        Some(&self.memo)
    }
    fn visit(&self, name: &str, offset: u64, bytes: &[u8]) {
        self.source.visit(name, offset, bytes);
    }
    fn done(&self, name: &str) {
        self.source.done(name);
    }
}
