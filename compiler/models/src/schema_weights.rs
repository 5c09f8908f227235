//! Weights that have types and no bytes.

use std::borrow::Cow;
use std::collections::HashMap;

use s2dit_ir::{DType, TensorType, WeightError, WeightSource};

use crate::model::Model;

/// Tensor types that a model calls for, without any bytes: enough to build the graph and count.
pub struct SchemaWeights(HashMap<String, TensorType>);

impl SchemaWeights {
    /// The tensors of a model, in fp16.
    #[must_use]
    pub fn new(model: &dyn Model) -> Self {
        let ty = |shape: Vec<usize>| TensorType::new(DType::F16, shape);
        SchemaWeights(model.tensors().into_iter().map(|t| (t.name, ty(t.shape))).collect())
    }
}

impl WeightSource for SchemaWeights {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.0.get(name).cloned()
    }
    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        Err(WeightError::Missing { name: name.into() })
    }
}
