//! Values that several constants have in common, computed once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ExpressionId;
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
