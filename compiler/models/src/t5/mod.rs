//! The encoders of T5 (arXiv 1910.10683) and UMT5 (arXiv 2304.09151): transformers' `T5EncoderModel` and `UMT5EncoderModel`. Attention is not divided by √d;
//! a bias for the distance of two tokens is added to its scores.
//!
//! Published weights lead beyond fp16: the stream between blocks, and what goes into `wo`. Both are kept smaller by powers of two, which are folded
//! into the weights and change no digit in fp32. A norm takes the factor out again, since it does not depend on the scale of what it gets.

mod config;
mod family;
mod positions;
mod tensors;

pub use config::{FeedForward, T5Config};
pub use family::T5;

use s2dit_ir::ValueId;
use s2dit_ir::interface::OutputRole;
use s2dit_ir::ops::Unary;

use crate::layers::{BuildError, Built, Layers, Made};

/// The factor of the stream between blocks.
const STREAM: f64 = 1.0 / 64.0;
/// The factor of what goes into `wo`.
const HIDDEN: f64 = 1.0 / 16.0;

impl T5Config {
    /// The forward pass: tokens `[1, L]` and their mask `[1, L]` to the text `[1, L, D]`.
    fn forward(&self, m: &mut Layers<'_, ()>, tokens: ValueId, mask: ValueId) -> Result<Vec<Made>, BuildError> {
        let planes = self.planes(m, mask)?;
        let mut x = m.scaled_embedding("shared", tokens, STREAM)?;
        let mut bias = None;
        for index in 0..self.num_layers {
            x = m.within(&format!("encoder.block.{index}"), |m| {
                let x = m.within("layer.0", |m| self.attention(m, x, planes, &mut bias))?;
                m.within("layer.1", |m| self.feed_forward(m, x))
            })?;
            m.end_block(index, x);
        }
        let text = m.within("encoder", |m| self.norm(m, "final_layer_norm", x))?;
        if !self.zero_padding {
            return Ok(vec![("text", OutputRole::Text, text)]);
        }
        let length = m.b.shape(mask)[1];
        let counts = m.b.reshape(mask, &[1, length, 1])?;
        let text = m.b.mul(text, counts)?;
        Ok(vec![("text", OutputRole::Text, text)])
    }

    /// The RMS norm `name` of the stream: the layer norm of its channels beside their negatives, whose mean is zero. No square is a value of the
    /// graph, which fp16 could not hold.
    fn norm(&self, m: &mut Layers<'_, ()>, name: &str, x: ValueId) -> Built {
        m.within(name, |m| {
            let gain = m.param("weight")?;
            let negative = m.b.mul_scalar(x, -1.0)?;
            let both = m.b.concat(&[x, negative], 2)?;
            let both = m.b.layer_norm(both, &[2], self.layer_norm_epsilon * STREAM * STREAM, None)?;
            let y = m.b.slice(both, 2, 0, self.d_model)?;
            Ok(m.b.mul(y, gain)?)
        })
    }

    /// Attention to the tokens that count. `bias` is that of the first block, if it has the only one.
    fn attention(&self, m: &mut Layers<'_, ()>, x: ValueId, planes: ValueId, bias: &mut Option<ValueId>) -> Built {
        let u = self.norm(m, "layer_norm", x)?;
        let y = m.within("SelfAttention", |m| {
            let mut project = |name| {
                let y = m.linear_of(name, u, false)?;
                m.heads_of(y, self.num_heads)
            };
            let heads = [project("q")?, project("k")?, project("v")?];
            let own = match *bias {
                Some(shared) if self.kind == T5::Original => shared,
                _ => self.bias(m, planes)?,
            };
            *bias = Some(own);
            let y = m.biased_attention(heads, 1.0, own)?;
            m.scaled_linear("o", y, STREAM)
        })?;
        Ok(m.b.add(x, y)?)
    }

    fn feed_forward(&self, m: &mut Layers<'_, ()>, x: ValueId) -> Built {
        let u = self.norm(m, "layer_norm", x)?;
        let y = m.within("DenseReluDense", |m| {
            let y = match self.feed_forward_proj {
                FeedForward::GatedGelu => {
                    let gate = m.linear_of("wi_0", u, false)?;
                    let gate = m.b.unary(Unary::GeluTanh, gate)?;
                    let y = m.scaled_linear("wi_1", u, HIDDEN)?;
                    m.b.mul(gate, y)?
                }
                FeedForward::Relu => {
                    let y = m.scaled_linear("wi", u, HIDDEN)?;
                    m.b.unary(Unary::Relu, y)?
                }
            };
            m.scaled_linear("wo", y, STREAM / HIDDEN)
        })?;
        Ok(m.b.add(x, y)?)
    }
}
