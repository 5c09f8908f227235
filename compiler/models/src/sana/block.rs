//! One block: linear attention, cross-attention to the text, a feed-forward network with convolutions, modulated by the time.

use s2dit_ir::ValueId;
use s2dit_ir::ops::{Conv, ReduceKind, Unary};

use super::config::SanaConfig;
use crate::layers::{BuildError, Built, Layers, Modulation, Rope};
use crate::size::Grid;

/// What the classes of a clip and of a chunk compute differently.
#[derive(Clone, Copy)]
pub(super) struct Form {
    /// Added to the normaliser of linear attention.
    normaliser_eps: f64,
    /// The ε of the norms of queries and keys in cross-attention.
    cross_eps: f64,
    /// Frames are those of a chunk: what the convolution over three of them sees before the first comes from the chunk before. It is
    /// written as one of time, rows and columns, whose frames are found by that.
    of_chunk: bool,
}

impl Form {
    /// diffusers' `SanaVideoTransformer3DModel`.
    pub(super) const CLIP: Form = Form { normaliser_eps: 1e-15, cross_eps: 1e-5, of_chunk: false };
    /// The project's causal model.
    pub(super) const CHUNK: Form = Form { normaliser_eps: 1e-8, cross_eps: 1e-6, of_chunk: true };
}

/// What every block is told beside its tokens.
#[derive(Clone, Copy)]
pub(super) struct Conditions {
    /// Shift, scale and gate, twice.
    pub time: Modulation,
    /// The text `[1, L, D]`.
    pub text: ValueId,
    /// What is added to the scores of text tokens, `[1, 1, 1, L]`.
    pub text_bias: ValueId,
    /// Tables of a head.
    pub rope: Rope,
    /// The grid that tokens lie on.
    pub grid: Grid,
    /// The class.
    pub form: Form,
}

impl SanaConfig {
    /// Block `index`, `x [1, N, D]` → `[1, N, D]`. Cross-attention takes the stream as it is, without a norm.
    pub(super) fn block(&self, m: &mut Layers<'_>, index: usize, x: ValueId, conditions: Conditions) -> Built {
        let x = m.within(&format!("transformer_blocks.{index}"), |m| {
            let [shift1, scale1, gate1, shift2, scale2, gate2] = m.block_modulation(conditions.time)?;

            let u = m.b.layer_norm(x, &[2], self.norm_eps, None)?;
            let u = m.modulated(u, shift1, scale1)?;
            let y = self.linear_attention(m, u, conditions)?;
            let y = m.b.mul(gate1, y)?;
            let x = m.b.add(x, y)?;

            let y = cross_attention(m, x, conditions)?;
            let x = m.b.add(x, y)?;

            let u = if self.norm_elementwise_affine {
                m.affine_norm_with("norm2", x, self.norm_eps)?
            } else {
                m.b.layer_norm(x, &[2], self.norm_eps, None)?
            };
            let u = m.modulated(u, shift2, scale2)?;
            let y = m.within("ff", |m| feed_forward(m, u, conditions))?;
            let y = m.b.mul(gate2, y)?;
            Ok(m.b.add(x, y)?)
        })?;
        m.end_block(index, x);
        Ok(x)
    }

    /// `attn1`: `yᵢ = R q̂ᵢ·(Σⱼ R k̂ⱼ vⱼᵀ) / (q̂ᵢ·Σⱼ k̂ⱼ + ε)`, features the positive parts of queries and keys. RoPE, R, turns those of the
    /// numerator alone.
    fn linear_attention(&self, m: &mut Layers<'_>, u: ValueId, conditions: Conditions) -> Built {
        let Conditions { rope, form, .. } = conditions;
        m.within("attn1", |m| {
            let mut features = |projection, norm| -> Result<(ValueId, ValueId), BuildError> {
                let y = m.linear_of(projection, u, self.attention_bias)?;
                let y = m.rms_norm(norm, y)?;
                let y = m.heads(y)?;
                let plain = m.b.unary(Unary::Relu, y)?;
                Ok((m.rotate(plain, rope)?, plain))
            };
            let (q, q_plain) = features("to_q", "norm_q")?;
            let (k, k_plain) = features("to_k", "norm_k")?;
            let v = m.linear_of("to_v", u, self.attention_bias)?;
            let v = m.heads(v)?;

            let sum = m.b.t_matmul(k, v)?;
            let numerator = m.b.matmul(q, sum)?;
            let z = m.b.reduce(ReduceKind::Sum, k_plain, &[2], true)?;
            let normaliser = m.b.matmul_t(q_plain, z)?;
            let normaliser = m.b.add_scalar(normaliser, form.normaliser_eps)?;
            let y = m.b.div(numerator, normaliser)?;
            let y = m.merge_heads(y)?;
            m.linear("to_out.0", y)
        })
    }
}

/// `attn2`: softmax attention from the tokens to the text.
fn cross_attention(m: &mut Layers<'_>, x: ValueId, conditions: Conditions) -> Built {
    let Conditions { text, text_bias, form, .. } = conditions;
    m.within("attn2", |m| {
        let mut heads = |projection, norm, x| -> Built {
            let y = m.linear(projection, x)?;
            let y = m.rms_norm_with(norm, y, form.cross_eps)?;
            m.heads(y)
        };
        let q = heads("to_q", "norm_q", x)?;
        let k = heads("to_k", "norm_k", text)?;
        let v = m.value("to_v", text)?;
        let y = m.softmax_attention(q, k, v, Some(text_bias))?;
        m.linear("to_out.0", y)
    })
}

/// diffusers' `GLUMBTempConv`: a 1×1 convolution, a depthwise 3×3 one on each frame, a gate, a 1×1 convolution; what a convolution over three
/// frames makes of that is added to it. Convolutions of 1×1 are linear layers.
fn feed_forward(m: &mut Layers<'_>, u: ValueId, conditions: Conditions) -> Built {
    let Conditions { grid, form, .. } = conditions;
    let (width, hidden, tokens) = (m.dims.width(), m.dims.ffn_dim, grid.tokens());
    let y = m.within("conv_inverted", |m| {
        let weight = m.param("weight")?;
        let weight = m.b.reshape(weight, &[2 * hidden, width])?;
        let bias = m.param("bias")?;
        Ok(m.b.linear(u, weight, Some(bias))?)
    })?;
    let y = m.b.unary(Unary::Silu, y)?;
    let y = m.within("conv_depth", |m| {
        let (weight, bias) = (m.param("weight")?, m.param("bias")?);
        m.each_clip(y, |m, y| {
            let y = m.b.reshape(y, &[grid.frames, grid.rows, grid.cols, 2 * hidden])?;
            let y = m.b.transpose(y, &[0, 3, 1, 2])?;
            let depthwise = same(&[1, 1], 2 * hidden);
            let y = m.b.conv(depthwise, y, weight, Some(bias))?;
            let y = m.b.transpose(y, &[0, 2, 3, 1])?;
            Ok(m.b.reshape(y, &[1, tokens, 2 * hidden])?)
        })
    })?;
    let (value, gate) = (m.b.slice(y, 2, 0, hidden)?, m.b.slice(y, 2, hidden, 2 * hidden)?);
    let gate = m.b.unary(Unary::Silu, gate)?;
    let y = m.b.mul(value, gate)?;
    let y = m.within("conv_point", |m| {
        let weight = m.param("weight")?;
        let weight = m.b.reshape(weight, &[width, hidden])?;
        Ok(m.b.linear(y, weight, None)?)
    })?;
    let over_time = m.within("conv_temp", |m| {
        let weight = m.param("weight")?;
        let weight = if form.of_chunk { m.b.reshape(weight, &[width, width, 3, 1, 1])? } else { weight };
        m.each_clip(y, |m, y| {
            if form.of_chunk {
                let x = m.b.reshape(y, &[1, grid.frames, grid.rows, grid.cols, width])?;
                let x = m.b.transpose(x, &[0, 4, 1, 2, 3])?;
                let x = m.b.conv(same(&[1, 0, 0], 1), x, weight, None)?;
                let x = m.b.transpose(x, &[0, 2, 3, 4, 1])?;
                return Ok(m.b.reshape(x, &[1, tokens, width])?);
            }
            let x = m.b.reshape(y, &[1, grid.frames, grid.rows * grid.cols, width])?;
            let x = m.b.transpose(x, &[0, 3, 1, 2])?;
            let x = m.b.conv(same(&[1, 0], 1), x, weight, None)?;
            let x = m.b.transpose(x, &[0, 2, 3, 1])?;
            Ok(m.b.reshape(x, &[1, tokens, width])?)
        })
    })?;
    Ok(m.b.add(y, over_time)?)
}

/// A convolution with so many zeros on either side of each axis.
fn same(padding: &[usize], groups: usize) -> Conv {
    let strides = vec![1; padding.len()];
    Conv { pad_before: padding.to_vec(), pad_after: padding.to_vec(), groups, ..Conv::with_strides(&strides) }
}
