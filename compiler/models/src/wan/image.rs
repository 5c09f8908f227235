//! The fields of image to video: embeddings of a picture beside the text.

use serde_json::Value;

use crate::fields::{Fields, LARGEST, as_integer};
use s2dit_files::json::compact;

/// Image tokens of one picture, which is no field of diffusers: CLIP's ViT-H makes 257.
pub(super) const PICTURE: usize = 257;

/// The embeddings of a picture that a Wan transformer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Width of the embeddings.
    pub dim: usize,
    /// Image tokens that have positions, if they have: those of a first and a last picture together.
    pub positions: Option<usize>,
}

impl Image {
    /// Image tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.positions.unwrap_or(PICTURE)
    }

    /// Reads `image_dim`, `added_kv_proj_dim` and `pos_embed_seq_len`. A model of images has the first two, and the second is its hidden
    /// `width`: the keys are projected from the embedder's result.
    pub(super) fn read(fields: &mut Fields<'_>, width: usize) -> Option<Image> {
        let dim = optional(fields, "image_dim");
        let keys = optional(fields, "added_kv_proj_dim");
        let positions = optional(fields, "pos_embed_seq_len");
        match (dim, keys) {
            (Some(_), None) => fields.problem(
                "added_kv_proj_dim",
                "null",
                format!("{width}, the hidden width: image_dim says that the model takes an image"),
            ),
            (None, Some(_)) => fields.problem(
                "image_dim",
                "null",
                "the width of the image embeddings, such as 1280: added_kv_proj_dim says that the model takes an image",
            ),
            (Some(_), Some(keys)) if keys != width => fields.problem(
                "added_kv_proj_dim",
                keys.to_string(),
                format!("{width}, the hidden width (num_attention_heads × attention_head_dim)"),
            ),
            (None, None) if positions.is_some() => fields.problem(
                "pos_embed_seq_len",
                positions.unwrap_or_default().to_string(),
                "null, or image_dim and added_kv_proj_dim beside it: only image tokens have these positions",
            ),
            _ => {}
        }
        Some(Image { dim: dim?, positions })
    }
}

/// A size, or `null` and no field for none.
fn optional(fields: &mut Fields<'_>, field: &str) -> Option<usize> {
    let value = fields.remove(field).filter(|value| *value != Value::Null)?;
    let size = as_integer(&value, &(1..=LARGEST));
    if size.is_none() {
        fields.problem(field, compact(&value), format!("null or an integer from 1 to {LARGEST}"));
    }
    size
}
