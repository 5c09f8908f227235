//! The tensors of an LTX-Video checkpoint, by the names of diffusers.

use super::config::LtxConfig;
use crate::layers::group;
use crate::model::Renaming;
use crate::tensor::{Role, Specs, TensorSpec};

/// Segments that the authors' own files call otherwise, as diffusers' conversion of single files knows them.
pub(super) const ORIGINAL: &[Renaming] = &[
    Renaming { original: "patchify_proj", name: "proj_in" },
    Renaming { original: "adaln_single", name: "time_embed" },
    Renaming { original: "q_norm", name: "norm_q" },
    Renaming { original: "k_norm", name: "norm_k" },
];

/// Every tensor of a checkpoint with this configuration, in the order of the forward pass.
pub(super) fn tensors(config: &LtxConfig) -> Vec<TensorSpec> {
    let width = config.hidden_size();
    let mut list = Specs::new(group::PATCH_EMBEDDING);
    list.linear("proj_in", width, config.in_channels);
    list.group(group::CONDITIONING);
    config.dims().single_time_and_caption_specs(&mut list);
    for index in 0..config.num_layers {
        block(config, &mut list, &format!("transformer_blocks.{index}"));
    }
    list.group(group::HEAD);
    list.push("scale_shift_table", &[2, width], Role::ScaleShift);
    list.linear("proj_out", config.out_channels, width);
    list.finish()
}

fn block(config: &LtxConfig, list: &mut Specs, block: &str) {
    let (width, hidden) = (config.hidden_size(), config.dims().ffn_dim);
    let norm = |list: &mut Specs, name: &str| {
        if config.norm_elementwise_affine {
            list.group(group::MODULATION);
            list.push(format!("{block}.{name}.weight"), &[width], Role::NormGain);
        }
    };
    list.group(group::MODULATION);
    list.push(format!("{block}.scale_shift_table"), &[6, width], Role::ScaleShift);
    norm(list, "norm1");
    list.group(group::FULL_ATTENTION);
    attention(config, list, &format!("{block}.attn1"));
    list.group(group::CROSS_ATTENTION);
    attention(config, list, &format!("{block}.attn2"));
    norm(list, "norm2");
    list.group(group::FEED_FORWARD);
    list.linear(&format!("{block}.ff.net.0.proj"), hidden, width);
    list.linear(&format!("{block}.ff.net.2"), width, hidden);
}

fn attention(config: &LtxConfig, list: &mut Specs, attention: &str) {
    let width = config.hidden_size();
    for (layer, has_bias) in [
        ("to_q", config.attention_bias),
        ("to_k", config.attention_bias),
        ("to_v", config.attention_bias),
        ("to_out.0", config.attention_out_bias),
    ] {
        list.push(format!("{attention}.{layer}.weight"), &[width, width], Role::LinearWeight);
        if has_bias {
            list.push(format!("{attention}.{layer}.bias"), &[width], Role::Bias);
        }
    }
    for norm in ["norm_q", "norm_k"] {
        list.push(format!("{attention}.{norm}.weight"), &[width], Role::NormGain);
    }
}
