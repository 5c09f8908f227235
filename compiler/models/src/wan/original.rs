//! Wan's own repositories: `WanModel`'s fields and the names of its tensors, read as those of diffusers.
//!
//! The names are those that `scripts/convert_wan_to_diffusers.py` of diffusers knows.

use serde_json::{Map, Value, json};

use super::config::WanConfig;
use super::image::PICTURE;
use crate::model::Renaming;
use s2dit_files::json::compact;
use s2dit_files::problems::Problems;

/// The `_class_name` of Wan's own configurations.
pub(super) const CLASS_NAME: &str = "WanModel";

/// Segments of tensors' names. The norm before cross-attention is `norm3` in Wan and `norm2` in diffusers; the one after it the other way round.
pub(super) const RENAMING: &[Renaming] = &[
    renaming("self_attn.q", "attn1.to_q"),
    renaming("self_attn.k", "attn1.to_k"),
    renaming("self_attn.v", "attn1.to_v"),
    renaming("self_attn.o", "attn1.to_out.0"),
    renaming("self_attn.norm_q", "attn1.norm_q"),
    renaming("self_attn.norm_k", "attn1.norm_k"),
    renaming("cross_attn.q", "attn2.to_q"),
    renaming("cross_attn.k", "attn2.to_k"),
    renaming("cross_attn.v", "attn2.to_v"),
    renaming("cross_attn.o", "attn2.to_out.0"),
    renaming("cross_attn.norm_q", "attn2.norm_q"),
    renaming("cross_attn.norm_k", "attn2.norm_k"),
    renaming("cross_attn.k_img", "attn2.add_k_proj"),
    renaming("cross_attn.v_img", "attn2.add_v_proj"),
    renaming("cross_attn.norm_k_img", "attn2.norm_added_k"),
    renaming("img_emb.proj.0", "condition_embedder.image_embedder.norm1"),
    renaming("img_emb.proj.1", "condition_embedder.image_embedder.ff.net.0.proj"),
    renaming("img_emb.proj.3", "condition_embedder.image_embedder.ff.net.2"),
    renaming("img_emb.proj.4", "condition_embedder.image_embedder.norm2"),
    renaming("img_emb.emb_pos", "condition_embedder.image_embedder.pos_embed"),
    renaming("ffn.0", "ffn.net.0.proj"),
    renaming("ffn.2", "ffn.net.2"),
    renaming("norm2", "norm3"),
    renaming("norm3", "norm2"),
    renaming("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    renaming("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    renaming("time_projection.1", "condition_embedder.time_proj"),
    renaming("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    renaming("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    renaming("head.modulation", "scale_shift_table"),
    renaming("head.head", "proj_out"),
    renaming("modulation", "scale_shift_table"),
];

const fn renaming(original: &'static str, name: &'static str) -> Renaming {
    Renaming { original, name }
}

/// Fields that diffusers calls otherwise, and the values that `WanModel` gives them if they are left out.
const FIELDS: [(&str, &str, usize); 4] = [
    ("num_heads", "num_attention_heads", 16),
    ("dim", "attention_head_dim", 2048),
    ("in_dim", "in_channels", 16),
    ("out_dim", "out_channels", 16),
];
/// Values that `WanModel` gives fields of the same name, where they are not those of diffusers.
const DEFAULTS: [(&str, usize); 2] = [("ffn_dim", 8192), ("num_layers", 32)];

/// Width of the embeddings of a picture, which `WanModel` has as a number in its code: those of CLIP's ViT-H.
const IMAGE_DIM: usize = 1280;

/// Whether a configuration is one of `WanModel`.
pub(super) fn is_original(entries: &[(String, Value)]) -> bool {
    entries.iter().any(|(name, value)| name == "_class_name" && value == CLASS_NAME)
}

/// Reads a configuration of `WanModel`; `place` names it in problems.
///
/// # Errors
/// Every problem of the configuration.
pub(super) fn config(entries: Vec<(String, Value)>, place: &str) -> Result<WanConfig, Problems> {
    let mut problems = Problems::new();
    let mut fields: Map<String, Value> = Map::new();
    for (name, value) in entries {
        let name = if name == "_class_name" { continue } else { name };
        let twice = fields.insert(name.clone(), value).is_some();
        if twice {
            problems.push(format!("{place}: {name}"), "the field twice", "it once");
        }
    }
    let mut fixed = |field: &str, expected: &[Value], said: &str| {
        if let Some(value) = fields.remove(field).filter(|value| !expected.contains(value)) {
            problems.push(format!("{place}: {field}"), compact(&value), said);
        }
    };
    fixed("qk_norm", &[json!(true)], "true: an RMS norm of queries and keys");
    fixed("window_size", &[json!([-1, -1])], "[-1, -1]: every token sees every other");
    for (field, value) in DEFAULTS {
        fields.entry(field).or_insert_with(|| value.into());
    }
    let kind = fields.remove("model_type");
    match kind.as_ref().map_or(Some("t2v"), Value::as_str) {
        Some("t2v") => {}
        Some("i2v") => takes_image(&mut fields, None),
        Some("flf2v") => takes_image(&mut fields, Some(2 * PICTURE)),
        // Its authors always give it a timestep for each token.
        Some("ti2v") => {
            fields.entry("expand_timesteps").or_insert(Value::Bool(true));
        }
        _ => problems.push(
            format!("{place}: model_type"),
            kind.as_ref().map(compact).unwrap_or_default(),
            "\"t2v\", \"i2v\", \"flf2v\" or \"ti2v\": text, a picture, a first and a last picture, or text and a first frame to video",
        ),
    }
    let mut read: Vec<(String, Value)> = Vec::new();
    for (field, name, default) in FIELDS {
        read.push((name.into(), fields.remove(field).unwrap_or_else(|| default.into())));
    }
    // A head's width is not a field there.
    let sides = (read[1].1.as_u64(), read[0].1.as_u64().filter(|heads| *heads > 0));
    match sides {
        (Some(dim), Some(heads)) if dim % heads == 0 => read[1].1 = (dim / heads).into(),
        _ => {
            let found = format!("{} with num_heads {}", compact(&read[1].1), compact(&read[0].1));
            problems.push(format!("{place}: dim"), found, "a multiple of num_heads");
        }
    }
    problems.into_result()?;
    read.extend(fields);
    WanConfig::from_entries(read, place).map_err(|problems| said_as_there(problems, place))
}

/// What `model_type` says of embeddings of pictures in Wan 2.1, in the fields of diffusers. A model of Wan 2.2 has none: there its configuration says
/// `"image_dim": null`.
fn takes_image(fields: &mut Map<String, Value>, positions: Option<usize>) {
    if fields.entry("image_dim").or_insert_with(|| IMAGE_DIM.into()).is_null() {
        return;
    }
    let width = fields.get("dim").cloned().unwrap_or_else(|| FIELDS[1].2.into());
    fields.entry("added_kv_proj_dim").or_insert(width);
    if let Some(positions) = positions {
        fields.entry("pos_embed_seq_len").or_insert_with(|| positions.into());
    }
}

/// Problems of a field that `WanModel` calls otherwise, with its name there.
fn said_as_there(mut problems: Problems, place: &str) -> Problems {
    for problem in &mut problems.0 {
        for (field, name, _) in FIELDS {
            if problem.place == format!("{place}: {name}") {
                problem.place = format!("{place}: {field}");
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Family as _, Model as _};
    use crate::wan::Wan;

    fn parse(config: &Value) -> Result<WanConfig, Problems> {
        super::config(config.as_object().unwrap().clone().into_iter().collect(), "config.json")
    }

    /// As published for Wan2.1-T2V-1.3B.
    fn published() -> Value {
        json!({
            "_class_name": "WanModel", "_diffusers_version": "0.30.0", "dim": 1536, "eps": 1e-06, "ffn_dim": 8960, "freq_dim": 256,
            "in_dim": 16, "model_type": "t2v", "num_heads": 12, "num_layers": 30, "out_dim": 16, "text_len": 512,
        })
    }

    #[test]
    fn the_published_config_is_that_of_the_preset() {
        let read = parse(&published()).unwrap();
        assert_eq!(read.config(), Wan.preset("wan2.1-1.3b").unwrap().config());
    }

    /// As published for Wan2.1-I2V-14B-480P, Wan2.1-FLF2V-14B-720P, Wan2.2-I2V-A14B and Wan2.2-TI2V-5B.
    #[test]
    fn published_configs_of_pictures_are_those_of_the_presets() {
        let of = |kind: &str, fields: Value| {
            let mut config = json!({
                "_class_name": "WanModel", "_diffusers_version": "0.30.0", "dim": 5120, "eps": 1e-06, "ffn_dim": 13824, "freq_dim": 256,
                "in_dim": 36, "model_type": kind, "num_heads": 40, "num_layers": 40, "out_dim": 16, "text_len": 512,
            });
            for (field, value) in fields.as_object().unwrap() {
                config[field] = value.clone();
            }
            parse(&config).unwrap()
        };
        let preset = |name: &str| Wan.preset(name).unwrap().config();
        assert_eq!(of("i2v", json!({})).config(), preset("wan2.1-i2v-14b"));
        assert_eq!(of("flf2v", json!({})).config(), preset("wan2.1-flf2v-14b"));
        assert_eq!(of("i2v", json!({ "image_dim": null })).image, None);
        let small =
            json!({ "dim": 3072, "ffn_dim": 14336, "in_dim": 48, "out_dim": 48, "num_heads": 24, "num_layers": 30 });
        assert!(of("ti2v", small.clone()).expand_timesteps);
        let mut text_alone = small;
        text_alone["expand_timesteps"] = json!(false);
        assert_eq!(of("ti2v", text_alone).config(), preset("wan2.2-ti2v-5b"));
    }

    #[test]
    fn what_is_not_read_is_refused_by_its_name_there() {
        for (field, value) in [
            ("model_type", json!("vace")),
            ("dim", json!(1537)),
            ("num_heads", json!(0)),
            ("num_heads", json!("12")),
            ("in_dim", json!(-1)),
            ("qk_norm", json!(false)),
            ("window_size", json!([8, 8])),
            ("local_attn_size", json!(21)),
        ] {
            let mut config = published();
            config[field] = value;
            let message = parse(&config).unwrap_err().to_string();
            assert!(message.contains(field) && !message.contains("problems"), "{field}: {message}");
        }
    }

    #[test]
    fn every_tensor_has_one_original_name() {
        let names =
            |name: &str| RENAMING.iter().find_map(|renaming| renaming.applied(name)).unwrap_or_else(|| name.into());
        for (original, name) in [
            ("blocks.0.self_attn.q.weight", "blocks.0.attn1.to_q.weight"),
            ("blocks.11.cross_attn.o.bias", "blocks.11.attn2.to_out.0.bias"),
            ("blocks.0.norm3.weight", "blocks.0.norm2.weight"),
            ("blocks.0.norm2.weight", "blocks.0.norm3.weight"),
            ("blocks.0.ffn.0.weight", "blocks.0.ffn.net.0.proj.weight"),
            ("blocks.0.modulation", "blocks.0.scale_shift_table"),
            ("head.modulation", "scale_shift_table"),
            ("head.head.weight", "proj_out.weight"),
            ("time_projection.1.bias", "condition_embedder.time_proj.bias"),
            ("img_emb.proj.4.weight", "condition_embedder.image_embedder.norm2.weight"),
            ("patch_embedding.weight", "patch_embedding.weight"),
        ] {
            assert_eq!(names(original), name);
        }
    }
}
