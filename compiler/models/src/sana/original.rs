//! The names that NVlabs' own files of SANA-Video and LongSANA have, read as those of diffusers.
//!
//! They are those that the project's script `convert_sana_video_to_diffusers.py` knows.

use crate::model::{Joined, Renaming};

pub(super) const BLOCKS: Renaming = renaming("blocks", "transformer_blocks");

/// Segments of tensors' names.
pub(super) const RENAMING: &[Renaming] = &[
    renaming("x_embedder.proj", "patch_embedding"),
    renaming("y_embedder.y_proj.fc1", "caption_projection.linear_1"),
    renaming("y_embedder.y_proj.fc2", "caption_projection.linear_2"),
    renaming("attention_y_norm", "caption_norm"),
    renaming("t_embedder.mlp.0", "time_embed.emb.timestep_embedder.linear_1"),
    renaming("t_embedder.mlp.2", "time_embed.emb.timestep_embedder.linear_2"),
    renaming("t_block.1", "time_embed.linear"),
    renaming("final_layer.linear", "proj_out"),
    renaming("final_layer.scale_shift_table", "scale_shift_table"),
    renaming("attn.q_norm", "attn1.norm_q"),
    renaming("attn.k_norm", "attn1.norm_k"),
    renaming("attn.proj", "attn1.to_out.0"),
    renaming("cross_attn.q_linear", "attn2.to_q"),
    renaming("cross_attn.q_norm", "attn2.norm_q"),
    renaming("cross_attn.k_norm", "attn2.norm_k"),
    renaming("cross_attn.proj", "attn2.to_out.0"),
    renaming("mlp.inverted_conv.conv", "ff.conv_inverted"),
    renaming("mlp.depth_conv.conv", "ff.conv_depth"),
    renaming("mlp.point_conv.conv", "ff.conv_point"),
    renaming("mlp.t_conv", "ff.conv_temp"),
];

/// Products that are one there.
pub(super) const JOINED: &[Joined] = &[
    Joined { original: "attn.qkv", names: &["attn1.to_q", "attn1.to_k", "attn1.to_v"] },
    Joined { original: "cross_attn.kv_linear", names: &["attn2.to_k", "attn2.to_v"] },
];

/// Tensors that the project saves and that its network does not read.
pub(super) fn is_idle(tensor: &str) -> bool {
    let idle = ["pos_embed", "y_embedder.y_embedding", "logvar_linear.weight", "logvar_linear.bias"];
    idle.iter().any(|name| tensor.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.')))
}

const fn renaming(original: &'static str, name: &'static str) -> Renaming {
    Renaming { original, name }
}
