//! Layers of video decoders, in plain tensor ops on frames: a value is `[T, C, h, w]`, T frames of C channels.
//!
//! Frames lie where other models have a batch, so that a convolution of planes computes all of them, and no value that a layer makes has more than four axes.
//! A convolution over time is one of planes whose channels are those of the frames that it sees, one behind the other.
//!
//! A decoder is built as one function for a whole clip, or as two for a stream: `first` for the first chunk, before which there is nothing, and
//! `next` for the others, whose layers see the last frames of the chunk before as states.

mod conv;
mod pixels;
#[cfg(test)]
mod tests;
mod video;

use s2dit_ir::ops::State;
use s2dit_ir::{Builder, DType, Function, StateDecl, TensorType, ValueId, WeightSource};

use super::builder::{BuildError, Built, Layers};

pub(crate) use conv::{Kernel, Rows};
pub(crate) use video::{Decoder, chunks, clip, grid, outline};

/// A decoder's function that is being built.
pub(crate) type Frames<'a> = Layers<'a, Call>;

/// What a function of a decoder is called for, and the states that it was seen to need.
pub(crate) struct Call {
    /// Whether the call is for the start of a video: nothing was decoded before.
    pub is_first: bool,
    /// Whether there may be other calls, so that states are kept.
    streams: bool,
    /// The states, in the order of the forward pass.
    states: Vec<StateDecl>,
    /// New values of states.
    updates: Vec<(String, ValueId)>,
}

impl<'a> Frames<'a> {
    fn new(f: &'a mut Function, weights: &'a dyn WeightSource, is_first: bool, streams: bool) -> Frames<'a> {
        let dims = Call { is_first, streams, states: Vec::new(), updates: Vec::new() };
        Layers { dims, weights, b: Builder::new(f) }
    }

    /// `x [T, C, h, w]` behind the `count` frames before it, `[count + T, C, h, w]`. Before the start of a video there are zeros. A stream keeps
    /// the last frames for its next call, in a state called after the module.
    pub(crate) fn behind_past(&mut self, x: ValueId, count: usize) -> Built {
        let shape = self.b.shape(x).to_vec();
        let name = self.b.scope().replace('.', "_");
        let whole = if self.dims.is_first {
            self.b.pad(x, &[count, 0, 0, 0], &[0; 4], 0.0)?
        } else {
            let mut kept = shape.clone();
            kept[0] = count;
            let ty = TensorType::new(DType::F32, kept);
            let scope = self.b.scope();
            let past = self.b.f.add_leaf(State { state: name.clone() }.into(), &ty, &scope)?;
            self.dims.states.push(StateDecl { name: name.clone(), ty });
            self.b.concat(&[past, x], 0)?
        };
        if self.dims.streams {
            let last = self.b.slice(whole, 0, shape[0], shape[0] + count)?;
            self.dims.updates.push((name, last));
        }
        Ok(whole)
    }

    /// `x / √(mean(x²) + eps)` over the channels (Zhang & Sennrich, arXiv 1910.07467), times the gain `gain` of the current module, if it has one.
    pub(crate) fn channel_norm(&mut self, x: ValueId, eps: f64, gain: Option<&str>) -> Built {
        use s2dit_ir::ops::{ReduceKind, Unary};
        let square = self.b.unary(Unary::Square, x)?;
        let mean = self.b.reduce(ReduceKind::Mean, square, &[1], true)?;
        let mean = self.b.add_scalar(mean, eps)?;
        let inverse = self.b.unary(Unary::Rsqrt, mean)?;
        let y = self.b.mul(x, inverse)?;
        let Some(gain) = gain else { return Ok(y) };
        let gain = self.param(gain)?;
        let channels = self.b.shape(x)[1];
        let gain = self.b.reshape(gain, &[channels, 1, 1])?;
        Ok(self.b.mul(y, gain)?)
    }

    /// `x·scale + shift`, both a value a channel.
    pub(crate) fn per_channel(&mut self, x: ValueId, scale: ValueId, shift: ValueId) -> Built {
        let channels = self.b.shape(x)[1];
        let scale = self.b.reshape(scale, &[channels, 1, 1])?;
        let shift = self.b.reshape(shift, &[channels, 1, 1])?;
        let y = self.b.mul(x, scale)?;
        Ok(self.b.add(y, shift)?)
    }

    /// A constant vector.
    pub(crate) fn vector(&mut self, values: &[f64]) -> Built {
        Ok(self.b.literal(&TensorType::new(DType::F32, [values.len()]), values.to_vec())?)
    }

    /// `x` between two bounds.
    pub(crate) fn clamped(&mut self, x: ValueId, low: f64, high: f64) -> Result<ValueId, BuildError> {
        use s2dit_ir::ops::Binary;
        let high = self.b.scalar_like(x, high)?;
        let x = self.b.binary(Binary::Minimum, x, high)?;
        let low = self.b.scalar_like(x, low)?;
        Ok(self.b.binary(Binary::Maximum, x, low)?)
    }
}
