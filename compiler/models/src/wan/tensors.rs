//! The tensors of a Wan checkpoint, by the names of diffusers.

use super::config::WanConfig;
use crate::layers::{CrossSpecs, group};
use crate::tensor::{Specs, TensorSpec};

/// Every tensor of a checkpoint with this configuration, in the order of the forward pass.
pub(super) fn tensors(config: &WanConfig) -> Vec<TensorSpec> {
    let dims = config.dims();
    let mut list = Specs::new(group::PATCH_EMBEDDING);
    dims.embedding_specs(&mut list);
    if let Some(image) = config.image {
        list.group(group::IMAGE);
        dims.image_embedder_specs(&mut list, [image.tokens(), image.dim], image.positions.is_some());
    }
    let cross = CrossSpecs { norm: config.cross_attn_norm, image: config.image.is_some() };
    for index in 0..config.num_layers {
        let block = format!("blocks.{index}");
        dims.block_specs(&mut list, &block, cross, group::FULL_ATTENTION, |_, _| {});
    }
    dims.head_specs(&mut list);
    list.finish()
}
