//! Tensors on their way in and out of an engine.

use std::fmt;

/// A dense row-major tensor in f32, whatever the engine computes in. Integer inputs hold whole numbers.
#[derive(Clone, PartialEq)]
pub struct HostTensor {
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: Vec<f32>,
}

impl HostTensor {
    /// A tensor, or `None` if the number of elements is not that of the shape.
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Option<Self> {
        let shape = shape.into();
        (shape.iter().product::<usize>() == data.len()).then_some(HostTensor { shape, data })
    }
}

impl fmt::Debug for HostTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostTensor{:?}", self.shape)
    }
}
