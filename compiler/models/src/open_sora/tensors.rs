//! The tensors of an Open-Sora checkpoint, by the names of its own repository.

use super::config::OpenSoraConfig;
use crate::layers::group;
use crate::tensor::{Role, Specs, TensorSpec};

/// The parameters of layers that serve attention and the feed-forward layer at once.
const BOTH: &str = "attention and feed-forward in one";

/// Every tensor of a checkpoint with this configuration, in the order of the forward pass.
pub(super) fn tensors(config: &OpenSoraConfig) -> Vec<TensorSpec> {
    let (width, packed) = (config.hidden_size, config.in_channels);
    let embedder = |list: &mut Specs, name: &str, input: usize| {
        list.linear(&format!("{name}.in_layer"), width, input);
        list.linear(&format!("{name}.out_layer"), width, width);
    };
    let mut list = Specs::new(group::PATCH_EMBEDDING);
    list.linear("img_in", width, packed);
    if config.cond_embed {
        list.linear("cond_in", width, packed + config.patch_size * config.patch_size);
    }
    list.group(group::CONDITIONING);
    embedder(&mut list, "time_in", OpenSoraConfig::FREQ_DIM);
    if config.guidance_embed {
        embedder(&mut list, "guidance_in", OpenSoraConfig::FREQ_DIM);
    }
    embedder(&mut list, "vector_in", config.vec_in_dim);
    list.linear("txt_in", width, config.context_in_dim);
    for index in 0..config.depth {
        for side_name in ["img", "txt"] {
            side(config, &mut list, &format!("double_blocks.{index}.{side_name}"));
        }
    }
    for index in 0..config.depth_single_blocks {
        single(config, &mut list, &format!("single_blocks.{index}"));
    }
    list.group(group::HEAD);
    list.linear("final_layer.adaLN_modulation.1", 2 * width, width);
    list.linear("final_layer.linear", packed, width);
    list.finish()
}

/// What a double block has for the video or for the text.
fn side(config: &OpenSoraConfig, list: &mut Specs, side: &str) {
    let (width, hidden) = (config.hidden_size, config.ffn_dim());
    list.group(group::MODULATION);
    list.linear(&format!("{side}_mod.lin"), 6 * width, width);
    list.group(group::FULL_ATTENTION);
    let projections: &[(&str, usize)] =
        if config.fused_qkv { &[("qkv", 3)] } else { &[("q_proj", 1), ("k_proj", 1), ("v_proj", 1)] };
    for (name, parts) in projections {
        list.push(format!("{side}_attn.{name}.weight"), &[parts * width, width], Role::LinearWeight);
        if config.qkv_bias {
            list.push(format!("{side}_attn.{name}.bias"), &[parts * width], Role::Bias);
        }
    }
    norms(config, list, &format!("{side}_attn"));
    list.linear(&format!("{side}_attn.proj"), width, width);
    list.group(group::FEED_FORWARD);
    list.linear(&format!("{side}_mlp.0"), hidden, width);
    list.linear(&format!("{side}_mlp.2"), width, hidden);
}

/// A single block.
fn single(config: &OpenSoraConfig, list: &mut Specs, block: &str) {
    let (width, hidden) = (config.hidden_size, config.ffn_dim());
    list.group(group::MODULATION);
    list.linear(&format!("{block}.modulation.lin"), 3 * width, width);
    if config.fused_qkv {
        list.group(BOTH);
        list.linear(&format!("{block}.linear1"), 3 * width + hidden, width);
    } else {
        list.group(group::FULL_ATTENTION);
        list.linear(&format!("{block}.q_proj"), width, width);
        list.linear(&format!("{block}.k_proj"), width, width);
        list.group(BOTH);
        list.linear(&format!("{block}.v_mlp"), width + hidden, width);
    }
    list.linear(&format!("{block}.linear2"), width, width + hidden);
    list.group(group::FULL_ATTENTION);
    norms(config, list, block);
}

/// The gains of queries and keys, which all heads share.
fn norms(config: &OpenSoraConfig, list: &mut Specs, attention: &str) {
    for norm in ["query_norm", "key_norm"] {
        list.push(format!("{attention}.norm.{norm}.scale"), &[config.head_dim()], Role::NormGain);
    }
}
