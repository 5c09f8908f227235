//! The tensors of a SANA-Video checkpoint, by the names of diffusers.

use super::config::SanaConfig;
use crate::layers::group;
use crate::tensor::{Role, Specs, TensorSpec};

const LINEAR_ATTENTION: &str = "linear attention";

/// Every tensor of a checkpoint with this configuration, in the order of the forward pass.
pub(super) fn tensors(config: &SanaConfig) -> Vec<TensorSpec> {
    let (width, dims) = (config.hidden_size(), config.dims());
    let mut list = Specs::new(group::PATCH_EMBEDDING);
    let [frames, rows, cols] = config.patch_size;
    list.conv("patch_embedding", &[width, config.in_channels, frames, rows, cols]);
    list.group(group::CONDITIONING);
    dims.single_time_and_caption_specs(&mut list);
    list.push("caption_norm.weight", &[width], Role::NormGain);
    for index in 0..config.num_layers {
        block(config, &mut list, &format!("transformer_blocks.{index}"));
    }
    list.group(group::HEAD);
    list.push("scale_shift_table", &[2, width], Role::ScaleShift);
    list.linear("proj_out", dims.patch_values(), width);
    list.finish()
}

fn block(config: &SanaConfig, list: &mut Specs, block: &str) {
    let (width, hidden) = (config.hidden_size(), config.ffn_dim());
    list.group(group::MODULATION);
    list.push(format!("{block}.scale_shift_table"), &[6, width], Role::ScaleShift);
    list.group(LINEAR_ATTENTION);
    attention(list, &format!("{block}.attn1"), width, config.attention_bias);
    list.group(group::CROSS_ATTENTION);
    attention(list, &format!("{block}.attn2"), width, true);
    if config.norm_elementwise_affine {
        list.group(group::MODULATION);
        list.push(format!("{block}.norm2.weight"), &[width], Role::NormGain);
        list.push(format!("{block}.norm2.bias"), &[width], Role::Bias);
    }
    list.group(group::FEED_FORWARD);
    list.conv(&format!("{block}.ff.conv_inverted"), &[2 * hidden, width, 1, 1]);
    list.conv(&format!("{block}.ff.conv_depth"), &[2 * hidden, 1, 3, 3]);
    list.push(format!("{block}.ff.conv_point.weight"), &[width, hidden, 1, 1], Role::ConvWeight);
    list.push(format!("{block}.ff.conv_temp.weight"), &[width, width, 3, 1], Role::ConvWeight);
}

/// An attention; `has_bias` says whether its queries, keys and values have biases. Its projection out has one.
fn attention(list: &mut Specs, attention: &str, width: usize, has_bias: bool) {
    for (layer, has_bias) in [("to_q", has_bias), ("to_k", has_bias), ("to_v", has_bias), ("to_out.0", true)] {
        list.push(format!("{attention}.{layer}.weight"), &[width, width], Role::LinearWeight);
        if has_bias {
            list.push(format!("{attention}.{layer}.bias"), &[width], Role::Bias);
        }
    }
    for norm in ["norm_q", "norm_k"] {
        list.push(format!("{attention}.{norm}.weight"), &[width], Role::NormGain);
    }
}
