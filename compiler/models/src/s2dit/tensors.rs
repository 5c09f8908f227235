//! The tensors of an S2DiT checkpoint: the names and shapes that a configuration calls for.

use super::config::{BlockKind, FeatureMap, Fusion, S2ditConfig};
use crate::layers::{CrossSpecs, group};
use crate::tensor::{Role, Specs, TensorSpec};

/// Every tensor of a checkpoint with this configuration, in the order of the forward pass.
pub(super) fn tensors(config: &S2ditConfig) -> Vec<TensorSpec> {
    let (dims, width) = (config.dims(), config.hidden_size());
    let mut list = Specs::new(group::PATCH_EMBEDDING);
    dims.embedding_specs(&mut list);
    let cross = CrossSpecs { norm: true, image: false };
    for (index, kind) in config.layout.iter().enumerate() {
        let attention = match kind {
            BlockKind::Lcha => "LCHA attention",
            BlockKind::Linear => "linear attention",
            BlockKind::Local => "local convolution",
            BlockKind::Ssa => "SSA attention",
            BlockKind::Full => group::FULL_ATTENTION,
            BlockKind::KvCompressed => "attention over fewer keys",
        };
        dims.block_specs_with(&mut list, &format!("blocks.{index}"), cross, attention, |list, attention| {
            match kind {
                BlockKind::Local => {}
                BlockKind::Lcha | BlockKind::Linear => config.linear_dims().attention_specs(list, attention),
                _ => dims.attention_specs(list, attention),
            }
            match kind {
                BlockKind::Lcha | BlockKind::Linear | BlockKind::Local => lcha(config, list, attention, *kind),
                BlockKind::KvCompressed => {
                    list.conv(&format!("{attention}.kv_conv"), &[width, 1, config.kv_stride, config.kv_stride]);
                }
                BlockKind::Ssa | BlockKind::Full => {}
            }
        });
    }
    list.group("stage resampling");
    let stride = config.ssa_stride;
    for stage in 0..config.stages().len() {
        list.conv(&format!("stages.{stage}.down"), &[width, width, stride, stride]);
        list.linear(&format!("stages.{stage}.up"), stride * stride * width, width);
    }
    dims.head_specs(&mut list);
    list.finish()
}

/// What LCHA, or one path of it, has beside the projections and norms of every attention.
fn lcha(config: &S2ditConfig, list: &mut Specs, attention: &str, kind: BlockKind) {
    let (width, dims) = (config.hidden_size(), config.linear_dims());
    let (heads, head) = (dims.heads, dims.head_dim);
    let [frames, rows, cols] = config.conv_kernel;
    if kind != BlockKind::Local && config.feature_map == FeatureMap::Softplus {
        list.push(format!("{attention}.kernel.weight"), &[heads, head, head], Role::HeadWeight);
        list.push(format!("{attention}.kernel.bias"), &[heads, head], Role::Bias);
    }
    if kind != BlockKind::Linear {
        list.conv(&format!("{attention}.local_conv"), &[width, 1, frames, rows, cols]);
        list.linear(&format!("{attention}.local_mix"), width, width);
    }
    if kind == BlockKind::Lcha && config.fusion == Fusion::Gate {
        list.push(format!("{attention}.fusion_gate"), &[width], Role::GateLogit);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::layers::QkNorm;
    use crate::s2dit::config::Preset;
    use crate::tensor::TensorSpec;

    fn shape(tensors: &[TensorSpec], name: &str) -> Option<Vec<usize>> {
        tensors.iter().find(|tensor| tensor.name == name).map(|tensor| tensor.shape.clone())
    }

    #[test]
    fn shapes_are_those_of_the_specification() {
        let config = S2ditConfig { qk_norm: QkNorm::PerHead, ..Preset::Tiny.config() };
        let tensors = tensors(&config);
        let is = |name: &str, dims: &[usize]| {
            assert_eq!(shape(&tensors, name).as_deref(), Some(dims), "{name}");
        };
        is("patch_embedding.weight", &[48, 4, 1, 2, 2]);
        is("condition_embedder.time_embedder.linear_1.weight", &[48, 32]);
        is("condition_embedder.time_proj.bias", &[288]);
        is("blocks.0.attn1.kernel.weight", &[2, 24, 24]);
        is("blocks.0.attn1.kernel.bias", &[2, 24]);
        is("blocks.0.attn1.local_conv.weight", &[48, 1, 3, 3, 3]);
        is("blocks.1.attn1.norm_q.weight", &[24]);
        is("blocks.3.ffn.net.0.proj.weight", &[128, 48]);
        is("blocks.3.ffn.net.2.weight", &[48, 128]);
        is("stages.0.down.weight", &[48, 48, 2, 2]);
        is("stages.0.up.weight", &[192, 48]);
        is("stages.0.up.bias", &[192]);
        is("scale_shift_table", &[1, 2, 48]);
        is("proj_out.weight", &[16, 48]);
        assert_eq!(shape(&tensors, "blocks.1.attn1.fusion_gate"), None);
        assert_eq!(shape(&tensors, "stages.1.up.bias"), None);
    }

    #[test]
    fn names_are_unique_and_the_large_preset_has_its_size() {
        let tensors = tensors(&Preset::B1_8.config());
        let names: HashSet<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names.len(), tensors.len());
        let parameters: usize = tensors.iter().map(TensorSpec::elements).sum();
        assert_eq!(parameters / 1_000_000, 1_800, "{parameters}");
    }
}
