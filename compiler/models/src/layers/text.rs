//! Layers of text encoders: embeddings of tokens, heads, attention with a bias of scores.

use s2dit_ir::ops::{Binary, Unary};
use s2dit_ir::{DType, TensorType, ValueId};

use super::builder::{Built, Layers};
use crate::size::{Grid, Size};
use s2dit_files::problems::Problems;

/// What is taken from the score of a token that is not seen. fp16 holds it, and every score less it is far below any other.
pub(crate) const UNSEEN: f64 = 10_000.0;

/// The name of the token ids of every text encoder, and of the mask that says which of them count.
pub(crate) const TOKENS: &str = "tokens";
/// See [`TOKENS`].
pub(crate) const TEXT_MASK: &str = "text_mask";

/// The tokens of a text as a grid of one row, if they are no more than a model has places for, as `says` says.
pub(crate) fn check_text(size: Size, most: usize, says: &str) -> Result<Grid, Problems> {
    let tokens = size.tokens()?;
    if (1..=most).contains(&tokens) {
        return Ok(Grid { frames: 1, rows: 1, cols: tokens });
    }
    Err(Problems::one("text tokens (--tokens)", tokens.to_string(), format!("1 to {most} ({says})")))
}

impl<D> Layers<'_, D> {
    /// The rows of the table `[V, D]` of module `name` at token ids `[1, L]`: `[1, L, D]`.
    pub(crate) fn embedding(&mut self, name: &str, tokens: ValueId) -> Built {
        self.scaled_embedding(name, tokens, 1.0)
    }

    /// [`Layers::embedding`] times a factor, which is folded into the table.
    pub(crate) fn scaled_embedding(&mut self, name: &str, tokens: ValueId, factor: f64) -> Built {
        self.within(name, |m| {
            let table = m.scaled_weight(factor)?;
            let (length, width) = (m.b.shape(tokens)[1], m.b.shape(table)[1]);
            let ids = m.b.reshape(tokens, &[length])?;
            let rows = m.b.gather(table, ids, 0)?;
            Ok(m.b.reshape(rows, &[1, length, width])?)
        })
    }

    /// The linear layer `name` without a bias, times a factor, which is folded into the weight.
    pub(crate) fn scaled_linear(&mut self, name: &str, x: ValueId, factor: f64) -> Built {
        self.within(name, |m| {
            let weight = m.scaled_weight(factor)?;
            Ok(m.b.linear(x, weight, None)?)
        })
    }

    /// The weight of the current module times a factor.
    fn scaled_weight(&mut self, factor: f64) -> Built {
        let weight = self.param("weight")?;
        if factor == 1.0 { Ok(weight) } else { Ok(self.b.mul_scalar(weight, factor)?) }
    }

    /// Layer norm `name` over the last axis, with gain and bias.
    pub(crate) fn affine_layer_norm(&mut self, name: &str, x: ValueId, eps: f64) -> Built {
        self.within(name, |m| {
            let (gain, bias) = (m.param("weight")?, m.param("bias")?);
            let axis = m.b.shape(x).len() - 1;
            Ok(m.b.layer_norm(x, &[axis], eps, Some((gain, bias)))?)
        })
    }

    /// `[1, L, A·d]` → `[1, A, L, d]` for so many heads A.
    pub(crate) fn heads_of(&mut self, x: ValueId, heads: usize) -> Built {
        let (length, width) = (self.b.shape(x)[1], self.b.shape(x)[2]);
        let x = self.b.reshape(x, &[1, length, heads, width / heads])?;
        Ok(self.b.transpose(x, &[0, 2, 1, 3])?)
    }

    /// `softmax(scale·q·kᵀ + bias)·v` on `[1, A, L, d]`, heads joined: `[1, L, A·d]`. A bias broadcasts to `[1, A, L, L]`.
    pub(crate) fn biased_attention(&mut self, [q, k, v]: [ValueId; 3], scale: f64, bias: ValueId) -> Built {
        let mut scores = self.b.matmul_t(q, k)?;
        if scale != 1.0 {
            scores = self.b.mul_scalar(scores, scale)?;
        }
        let scores = self.b.add(scores, bias)?;
        let weights = self.b.softmax(scores, 3)?;
        let y = self.b.matmul(weights, v)?;
        let &[_, heads, length, width] = self.b.shape(y) else { return Ok(y) };
        let y = self.b.transpose(y, &[0, 2, 1, 3])?;
        Ok(self.b.reshape(y, &[1, length, heads * width])?)
    }

    /// The bias of scores `[1, 1, L, L]` of a text of `length` tokens, each of which sees itself and those before it.
    pub(crate) fn causal_bias(&mut self, length: usize) -> Built {
        self.within("causal", |m| {
            let places = || (0..length).map(|i| i as f64).collect();
            let query = m.b.literal(&TensorType::new(DType::F32, [1, 1, length, 1]), places())?;
            let key = m.b.literal(&TensorType::new(DType::F32, [1, 1, 1, length]), places())?;
            let ahead = m.b.sub(key, query)?;
            let ahead = m.b.unary(Unary::Relu, ahead)?;
            let one = m.b.scalar_like(ahead, 1.0)?;
            let unseen = m.b.binary(Binary::Minimum, ahead, one)?;
            Ok(m.b.mul_scalar(unseen, -UNSEEN)?)
        })
    }
}
