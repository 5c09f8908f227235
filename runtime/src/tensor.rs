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

    /// Tokens `[B, D, 1, N]`, which the Neural Engine's layout has, as `[B, N, D]` if that is what is `wanted`; any other as it is. Beyond
    /// N tokens the layout may hold padding, which is left out.
    #[must_use]
    pub fn tokens_first(&self, wanted: &[usize]) -> HostTensor {
        let (&[batch, channels, 1, padded], &[clips, tokens, width]) = (&self.shape[..], wanted) else {
            return self.clone();
        };
        if clips != batch || width != channels || tokens > padded {
            return self.clone();
        }
        let at = |i: usize| self.data[(i / (tokens * width) * width + i % width) * padded + i / width % tokens];
        HostTensor { shape: wanted.to_vec(), data: (0..batch * tokens * width).map(at).collect() }
    }
}

impl fmt::Debug for HostTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostTensor{:?}", self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_first_without_their_padding() {
        let x = HostTensor::new([1, 2, 1, 3], vec![0.0, 1.0, 9.0, 10.0, 11.0, 19.0]).unwrap();
        let y = x.tokens_first(&[1, 2, 2]);
        assert_eq!((y.shape, y.data), (vec![1, 2, 2], vec![0.0, 10.0, 1.0, 11.0]));
        assert_eq!(x.tokens_first(&[1, 6]).shape, [1, 2, 1, 3]);
        let two = HostTensor::new([2, 2, 1, 2], (0..8u8).map(f32::from).collect()).unwrap();
        assert_eq!(two.tokens_first(&[2, 2, 2]).data, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
    }
}
