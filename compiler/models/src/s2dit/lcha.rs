//! LCHA, LinConv Hybrid Attention: linear attention and a causal depthwise convolution, mixed by a learned gate.

use s2dit_ir::ValueId;
use s2dit_ir::ops::{Conv, ReduceKind, Unary};

use super::config::{BlockKind, FeatureMap, Fusion, RopeInKernel, S2ditConfig};
use crate::layers::{Built, Layers, Rope};
use crate::size::Grid;

/// Added to the normaliser of linear attention.
const NORMALISER_EPS: f64 = 1e-6;

impl S2ditConfig {
    /// `attn1` of an LCHA block: `α ⊙ to_out(linear attention) + (1 − α) ⊙ local_mix(conv(u))`, `α = sigmoid(fusion_gate)`, or the sum of both
    /// without α. A block of kind `linear` or `local` has one of the two.
    pub(super) fn lcha(&self, m: &mut Layers<'_>, u: ValueId, rope: Rope, grid: Grid, kind: BlockKind) -> Built {
        m.within("attn1", |m| {
            let global = |m: &mut Layers<'_>| {
                let y = self.in_linear_heads(m, |m| self.linear_attention(m, u, rope))?;
                m.linear("to_out.0", y)
            };
            let local = |m: &mut Layers<'_>| {
                let y = self.local_conv(m, u, grid)?;
                m.linear("local_mix", y)
            };
            match kind {
                BlockKind::Linear => return global(m),
                BlockKind::Local => return local(m),
                _ => {}
            }
            let (global, local) = (global(m)?, local(m)?);
            if self.fusion == Fusion::Sum {
                return Ok(m.b.add(global, local)?);
            }
            let gate = m.param("fusion_gate")?;
            let alpha = m.b.unary(Unary::Sigmoid, gate)?;
            let one = m.b.scalar_like(alpha, 1.0)?;
            let rest = m.b.sub(one, alpha)?;
            let global = m.b.mul(alpha, global)?;
            let local = m.b.mul(rest, local)?;
            Ok(m.b.add(global, local)?)
        })
    }

    /// `yᵢ = q̂ᵢ·(Σⱼ k̂ⱼ vⱼᵀ) / (q̂ᵢ·Σⱼ k̂ⱼ + 1e-6)` (Katharopoulos et al., arXiv 2006.16236), heads merged.
    fn linear_attention(&self, m: &mut Layers<'_>, u: ValueId, rope: Rope) -> Built {
        let q = m.query_or_key("to_q", "norm_q", u)?;
        let k = m.query_or_key("to_k", "norm_k", u)?;
        let v = m.value("to_v", u)?;
        // Numerator's and normaliser's features.
        let (q, k, q_norm, k_norm) = match self.rope_in_kernel {
            RopeInKernel::Pre => {
                let (q, k) = (m.rotate(q, rope)?, m.rotate(k, rope)?);
                let (q, k) = (self.features(m, q)?, self.features(m, k)?);
                (q, k, q, k)
            }
            RopeInKernel::Post => {
                let (q, k) = (self.features(m, q)?, self.features(m, k)?);
                (m.rotate(q, rope)?, m.rotate(k, rope)?, q, k)
            }
        };
        let sum = m.b.t_matmul(k, v)?;
        let numerator = m.b.matmul(q, sum)?;
        let z = m.b.reduce(ReduceKind::Sum, k_norm, &[2], true)?;
        let normaliser = m.b.matmul_t(q_norm, z)?;
        let normaliser = m.b.add_scalar(normaliser, NORMALISER_EPS)?;
        let y = m.b.div(numerator, normaliser)?;
        m.merge_heads(y)
    }

    /// φ of queries or keys: `[1, A, N, d]` → `[1, A, N, d]`.
    fn features(&self, m: &mut Layers<'_>, x: ValueId) -> Built {
        match self.feature_map {
            FeatureMap::Softplus => feature_map(m, x),
            FeatureMap::Relu => m.within("kernel", |m| Ok(m.b.unary(Unary::Relu, x)?)),
        }
    }

    /// Depthwise convolution on the grid, causal in time: zeros before the first frame, none after the last.
    fn local_conv(&self, m: &mut Layers<'_>, u: ValueId, grid: Grid) -> Built {
        let width = m.dims.width();
        let [kt, kh, kw] = self.conv_kernel;
        m.within("local_conv", |m| {
            let (w, b) = (m.param("weight")?, m.param("bias")?);
            m.each_clip(u, |m, u| {
                let x = m.b.reshape(u, &[1, grid.frames, grid.rows, grid.cols, width])?;
                let x = m.b.transpose(x, &[0, 4, 1, 2, 3])?;
                let conv = Conv {
                    pad_before: vec![kt - 1, kh / 2, kw / 2],
                    pad_after: vec![0, kh / 2, kw / 2],
                    groups: width,
                    ..Conv::with_strides(&[1, 1, 1])
                };
                let y = m.b.conv(conv, x, w, Some(b))?;
                let y = m.b.transpose(y, &[0, 2, 3, 4, 1])?;
                Ok(m.b.reshape(y, &[1, grid.tokens(), width])?)
            })
        })
    }
}

/// `φ(x) = softplus(W·x + b)` head by head: `[1, A, N, d]` → `[1, A, N, d]`.
fn feature_map(m: &mut Layers<'_>, x: ValueId) -> Built {
    let (heads, dim) = (m.dims.heads, m.dims.head_dim);
    m.within("kernel", |m| {
        let w = m.param("weight")?;
        let w = m.b.reshape(w, &[1, heads, dim, dim])?;
        let b = m.param("bias")?;
        let b = m.b.reshape(b, &[1, heads, 1, dim])?;
        let y = m.b.matmul_t(x, w)?;
        let y = m.b.add(y, b)?;
        Ok(m.b.unary(Unary::Softplus, y)?)
    })
}
