//! The tensors of a checkpoint of CLIP's text model, by the names of transformers 5; older versions put `text_model.` before them.

use super::config::ClipTextConfig;
use crate::layers::group;
use crate::tensor::{Role, Specs, TensorSpec};

/// Every tensor of a checkpoint with this configuration, in the order of the forward pass.
pub(super) fn tensors(config: &ClipTextConfig) -> Vec<TensorSpec> {
    let width = config.hidden_size;
    let mut list = Specs::new(group::TOKEN_EMBEDDING);
    list.push("embeddings.token_embedding.weight", &[config.vocab_size, width], Role::Embedding);
    list.push("embeddings.position_embedding.weight", &[config.max_position_embeddings, width], Role::Embedding);
    for index in 0..config.num_hidden_layers {
        let block = format!("encoder.layers.{index}");
        norm(&mut list, &format!("{block}.layer_norm1"), width);
        list.group(group::FULL_ATTENTION);
        for layer in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            list.linear(&format!("{block}.self_attn.{layer}"), width, width);
        }
        norm(&mut list, &format!("{block}.layer_norm2"), width);
        list.group(group::FEED_FORWARD);
        list.linear(&format!("{block}.mlp.fc1"), config.intermediate_size, width);
        list.linear(&format!("{block}.mlp.fc2"), width, config.intermediate_size);
    }
    norm(&mut list, "final_layer_norm", width);
    list.finish()
}

fn norm(list: &mut Specs, name: &str, width: usize) {
    list.group(group::NORMS);
    list.push(format!("{name}.weight"), &[width], Role::NormGain);
    list.push(format!("{name}.bias"), &[width], Role::Bias);
}
