//! The tensors of a checkpoint of T5's or UMT5's encoder, by the names of transformers.

use super::config::{FeedForward, T5Config};
use super::family::T5;
use crate::layers::group;
use crate::tensor::{Role, Specs, TensorSpec};

/// Every tensor of a checkpoint with this configuration, in the order of the forward pass.
pub(super) fn tensors(config: &T5Config) -> Vec<TensorSpec> {
    let (width, inner) = (config.d_model, config.num_heads * config.d_kv);
    let mut list = Specs::new(group::TOKEN_EMBEDDING);
    list.push("shared.weight", &[config.vocab_size, width], Role::Embedding);
    for index in 0..config.num_layers {
        let block = format!("encoder.block.{index}");
        norm(&mut list, &format!("{block}.layer.0.layer_norm"), width);
        list.group(group::FULL_ATTENTION);
        let attention = format!("{block}.layer.0.SelfAttention");
        if config.kind == T5::Multilingual || index == 0 {
            let shape = [config.relative_attention_num_buckets, config.num_heads];
            list.push(format!("{attention}.relative_attention_bias.weight"), &shape, Role::Embedding);
        }
        for layer in ["q", "k", "v"] {
            list.push(format!("{attention}.{layer}.weight"), &[inner, width], Role::LinearWeight);
        }
        list.push(format!("{attention}.o.weight"), &[width, inner], Role::LinearWeight);
        norm(&mut list, &format!("{block}.layer.1.layer_norm"), width);
        list.group(group::FEED_FORWARD);
        let inputs: &[&str] = match config.feed_forward_proj {
            FeedForward::GatedGelu => &["wi_0", "wi_1"],
            FeedForward::Relu => &["wi"],
        };
        for layer in inputs {
            let name = format!("{block}.layer.1.DenseReluDense.{layer}.weight");
            list.push(name, &[config.d_ff, width], Role::LinearWeight);
        }
        list.push(format!("{block}.layer.1.DenseReluDense.wo.weight"), &[width, config.d_ff], Role::LinearWeight);
    }
    norm(&mut list, "encoder.final_layer_norm", width);
    list.finish()
}

fn norm(list: &mut Specs, name: &str, width: usize) {
    list.group(group::NORMS);
    list.push(format!("{name}.weight"), &[width], Role::NormGain);
}
