//! Values that several constants have in common, computed once.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{ExpressionId, FileRegion, WeightError, WeightSource};
use crate::{Tensor, TensorType};

/// Remembered values by [`ExpressionId`]: small results of products with large weights.
#[derive(Debug, Default)]
pub struct Memo(Mutex<HashMap<ExpressionId, Tensor>>);

impl Memo {
    /// Elements of the largest value that is remembered.
    const ELEMENTS: usize = 1 << 18;

    pub(crate) fn holds(ty: &TensorType) -> bool {
        ty.elements() <= Memo::ELEMENTS
    }

    pub(crate) fn get(&self, key: &ExpressionId) -> Option<Tensor> {
        self.map().get(key).cloned()
    }

    pub(crate) fn keep(&self, key: ExpressionId, value: &Tensor) {
        self.map().insert(key, value.clone());
    }

    fn map(&self) -> MutexGuard<'_, HashMap<ExpressionId, Tensor>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
