//! An image beside the text: its embedder, and the tensors of its keys and values.

use s2dit_ir::ValueId;
use s2dit_ir::ops::Unary;

use super::builder::{Built, Layers};
use super::dims::Dims;
use crate::tensor::{Role, Specs};

/// The ε of the embedder's norms: PyTorch's default, which diffusers leaves as it is.
const EPS: f64 = 1e-5;

impl Layers<'_> {
    /// Embeddings of an image `[1, M, width]` → `[1, M, D]`: norm, feed-forward, norm. With `positions` a table `[1, M, width]` is added
    /// first.
    pub(crate) fn image(&mut self, image: ValueId, positions: bool) -> Built {
        self.within("condition_embedder", |m| {
            m.within("image_embedder", |m| {
                let mut y = image;
                if positions {
                    let table = m.param("pos_embed")?;
                    y = m.b.add(y, table)?;
                }
                let y = m.affine_norm_with("norm1", y, EPS)?;
                let y = m.within("ff", |m| {
                    let y = m.linear("net.0.proj", y)?;
                    let y = m.b.unary(Unary::Gelu, y)?;
                    m.linear("net.2", y)
                })?;
                m.affine_norm_with("norm2", y, EPS)
            })
        })
    }
}

impl Dims {
    /// The embedder of `tokens` image tokens of `width`.
    pub(crate) fn image_embedder_specs(&self, list: &mut Specs, [tokens, width]: [usize; 2], positions: bool) {
        let embedder = "condition_embedder.image_embedder";
        let norm = |list: &mut Specs, name: &str, width: usize| {
            list.push(format!("{embedder}.{name}.weight"), &[width], Role::NormGain);
            list.push(format!("{embedder}.{name}.bias"), &[width], Role::Bias);
        };
        if positions {
            list.push(format!("{embedder}.pos_embed"), &[1, tokens, width], Role::Positions);
        }
        norm(list, "norm1", width);
        list.linear(&format!("{embedder}.ff.net.0.proj"), width, width);
        list.linear(&format!("{embedder}.ff.net.2"), self.width(), width);
        norm(list, "norm2", self.width());
    }

    /// Keys and values of an image in a cross-attention.
    pub(super) fn image_attention_specs(&self, list: &mut Specs, attention: &str) {
        let width = self.width();
        list.linear(&format!("{attention}.add_k_proj"), width, width);
        list.linear(&format!("{attention}.add_v_proj"), width, width);
        list.push(format!("{attention}.norm_added_k.weight"), &[self.qk_norm_width()], Role::NormGain);
    }
}
