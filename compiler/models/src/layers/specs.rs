//! The tensors that shared layers need, in the order of the forward pass.

use super::dims::Dims;
use crate::tensor::{Role, Specs};

/// Names of the groups that the parameters of shared layers are counted in.
pub(crate) mod group {
    pub(crate) const PATCH_EMBEDDING: &str = "patch embedding";
    pub(crate) const CONDITIONING: &str = "time and text embedders";
    pub(crate) const IMAGE: &str = "image embedder";
    pub(crate) const FULL_ATTENTION: &str = "full attention";
    pub(crate) const CROSS_ATTENTION: &str = "cross-attention";
    pub(crate) const FEED_FORWARD: &str = "feed-forward";
    pub(crate) const MODULATION: &str = "modulation and norms";
    pub(crate) const HEAD: &str = "output head";
    pub(crate) const TOKEN_EMBEDDING: &str = "token embedding";
    pub(crate) const NORMS: &str = "norms";
}

/// What a block's cross-attention has beside the text.
#[derive(Clone, Copy)]
pub(crate) struct CrossSpecs {
    /// A norm before it, `norm2`.
    pub norm: bool,
    /// Keys and values of an image.
    pub image: bool,
}

impl Dims {
    /// Patch embedding, time and text embedders.
    pub(crate) fn embedding_specs(&self, list: &mut Specs) {
        let width = self.width();
        let [frames, rows, cols] = self.patch_size;
        list.group(group::PATCH_EMBEDDING);
        list.conv("patch_embedding", &[width, self.in_channels, frames, rows, cols]);
        list.group(group::CONDITIONING);
        let time = "condition_embedder.time_embedder";
        list.linear(&format!("{time}.linear_1"), width, self.freq_dim);
        list.linear(&format!("{time}.linear_2"), width, width);
        list.linear("condition_embedder.time_proj", 6 * width, width);
        let text = "condition_embedder.text_embedder";
        list.linear(&format!("{text}.linear_1"), width, self.text_dim);
        list.linear(&format!("{text}.linear_2"), width, width);
    }

    /// A block; `own` adds what its self-attention `attn1` has beside the projections and norms of every attention.
    pub(crate) fn block_specs(
        &self,
        list: &mut Specs,
        block: &str,
        cross: CrossSpecs,
        self_attention: &'static str,
        own: impl FnOnce(&mut Specs, &str),
    ) {
        self.block_specs_with(list, block, cross, self_attention, |list, attention| {
            self.attention_specs(list, attention);
            own(list, attention);
        });
    }

    /// A block; `attn1` adds all that its self-attention has.
    pub(crate) fn block_specs_with(
        &self,
        list: &mut Specs,
        block: &str,
        CrossSpecs { norm: cross_norm, image }: CrossSpecs,
        self_attention: &'static str,
        attn1: impl FnOnce(&mut Specs, &str),
    ) {
        let width = self.width();
        list.group(group::MODULATION);
        list.push(format!("{block}.scale_shift_table"), &[1, 6, width], Role::ScaleShift);

        list.group(self_attention);
        attn1(list, &format!("{block}.attn1"));

        if cross_norm {
            list.group(group::MODULATION);
            list.push(format!("{block}.norm2.weight"), &[width], Role::NormGain);
            list.push(format!("{block}.norm2.bias"), &[width], Role::Bias);
        }

        list.group(group::CROSS_ATTENTION);
        self.attention_specs(list, &format!("{block}.attn2"));
        if image {
            self.image_attention_specs(list, &format!("{block}.attn2"));
        }

        list.group(group::FEED_FORWARD);
        list.linear(&format!("{block}.ffn.net.0.proj"), self.ffn_dim, width);
        list.linear(&format!("{block}.ffn.net.2"), width, self.ffn_dim);
    }

    /// The tensors that every attention has.
    pub(crate) fn attention_specs(&self, list: &mut Specs, attention: &str) {
        let width = self.width();
        for layer in ["to_q", "to_k", "to_v", "to_out.0"] {
            list.linear(&format!("{attention}.{layer}"), width, width);
        }
        for norm in ["norm_q", "norm_k"] {
            list.push(format!("{attention}.{norm}.weight"), &[self.qk_norm_width()], Role::NormGain);
        }
    }

    /// The output head.
    pub(crate) fn head_specs(&self, list: &mut Specs) {
        list.group(group::HEAD);
        list.push("scale_shift_table", &[1, 2, self.width()], Role::ScaleShift);
        list.linear("proj_out", self.patch_values(), self.width());
    }
}
