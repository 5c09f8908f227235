//! Wan's own repositories: `WanModel`'s fields and the names of its tensors, read as those of diffusers.
//!
//! The names are those that `scripts/convert_wan_to_diffusers.py` of diffusers knows.

use serde_json::{Map, Value, json};

use super::config::WanConfig;
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
    fixed("model_type", &[json!("t2v")], "\"t2v\": of Wan's own configurations, text to video is read");
    fixed("qk_norm", &[json!(true)], "true: an RMS norm of queries and keys");
    fixed("window_size", &[json!([-1, -1])], "[-1, -1]: every token sees every other");
    for (field, value) in DEFAULTS {
        fields.entry(field).or_insert_with(|| value.into());
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
