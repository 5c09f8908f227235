//! The factor `alpha / rank` of a LoRA: from a tensor of its module, or from what PEFT and diffusers write about the whole adapter.

use std::path::Path;

use s2dit_backends::input::{LARGEST_JSON, read_text};
use s2dit_files::json::{Entries, compact};
use s2dit_files::problems::Problems;
use s2dit_files::{Door, Factor};
use serde_json::Value;

/// The name that PEFT gives to an adapter.
pub(super) const PEFT_FILE: &str = "adapter_model.safetensors";
/// What PEFT writes beside it.
pub(super) const PEFT_CONFIG: &str = "adapter_config.json";
/// What diffusers writes into the metadata of its LoRA files: the same fields, each after its component's name and a dot.
const METADATA: &str = "lora_adapter_metadata";

/// What a file says of all of its modules.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Alphas {
    alpha: Option<f64>,
    /// Whether the factor is `alpha / √rank` (Kalajdzievski, arXiv 2312.03732).
    root: bool,
}

impl Alphas {
    /// Reads what a file says.
    ///
    /// # Errors
    /// A configuration that cannot be read; a kind of adapter that is no plain LoRA.
    pub(super) fn of(door: &dyn Door, path: &Path) -> Result<Alphas, Problems> {
        let beside = path.with_file_name(PEFT_CONFIG);
        let metadata = door.metadata();
        let (text, place) = if let Some(text) = metadata.get(METADATA) {
            (text.clone(), format!("{}: {METADATA}", path.display()))
        } else if path.file_name().is_some_and(|name| name == PEFT_FILE) && beside.is_file() {
            let place = beside.display().to_string();
            let text = read_text(&beside, LARGEST_JSON)
                .map_err(|error| Problems::one(&place, error.to_string(), "a configuration of PEFT"))?;
            (text, place)
        } else {
            return Ok(Alphas::default());
        };
        let Entries(entries) = serde_json::from_str(&text)
            .map_err(|error| Problems::one(&place, format!("bad JSON ({error})"), "a configuration of PEFT"))?;
        Alphas::parse(&entries, &place)
    }

    fn parse(entries: &[(String, Value)], place: &str) -> Result<Alphas, Problems> {
        let (mut alphas, mut problems) = (Alphas::default(), Problems::new());
        for (key, value) in entries {
            let field = key.rsplit('.').next().unwrap_or(key);
            let mut refuse = |expected: &str| problems.push(format!("{place}: {key}"), compact(value), expected);
            let nothing = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Object(map) => map.is_empty(),
                _ => false,
            };
            match field {
                "lora_alpha" => match value.as_f64() {
                    Some(alpha) => alphas.alpha = Some(alpha),
                    None => refuse("a number"),
                },
                "use_rslora" => match value.as_bool() {
                    Some(root) => alphas.root = root,
                    None => refuse("true or false"),
                },
                "alpha_pattern" if !nothing => {
                    refuse("no alphas of single modules; merge the adapter with PEFT instead");
                }
                "use_dora" | "lora_bias" | "fan_in_fan_out" if !nothing => {
                    refuse("false: only plain LoRA is merged here; merge the adapter with PEFT instead");
                }
                _ => {}
            }
        }
        problems.into_result().map(|()| alphas)
    }

    /// The factor of a module of a rank; `tensor` is its own alpha.
    ///
    /// # Errors
    /// An alpha that is no number.
    pub(super) fn scale(self, rank: usize, tensor: Option<Factor>, place: &str) -> Result<f64, Problems> {
        let rank = rank.max(1) as f64;
        let own = match tensor {
            None => None,
            Some(tensor) => {
                let value = tensor.scalar().filter(|alpha| alpha.is_finite());
                let wrong =
                    || Problems::one(format!("{place}: alpha"), "no finite number", "one element of bf16, f16 or f32");
                Some(value.ok_or_else(wrong)?)
            }
        };
        let Some(alpha) = own.or(self.alpha) else { return Ok(1.0) };
        Ok(alpha / if self.root { rank.sqrt() } else { rank })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(config: &Value) -> Result<Alphas, Problems> {
        let entries: Vec<_> = config.as_object().unwrap().clone().into_iter().collect();
        Alphas::parse(&entries, "adapter_config.json")
    }

    #[test]
    fn the_factor_is_alpha_over_rank() {
        let scale = |alphas: Alphas| alphas.scale(4, None, "x").unwrap();
        assert_eq!(scale(Alphas::default()), 1.0);
        assert_eq!(
            scale(parse(&json!({ "r": 4, "lora_alpha": 8, "use_dora": false, "alpha_pattern": {} })).unwrap()),
            2.0
        );
        assert_eq!(
            scale(parse(&json!({ "transformer.lora_alpha": 8.0, "transformer.use_rslora": true })).unwrap()),
            4.0
        );
    }

    #[test]
    fn other_kinds_of_adapters_are_refused() {
        for (field, value) in [
            ("use_dora", json!(true)),
            ("alpha_pattern", json!({ "x": 1 })),
            ("lora_alpha", json!("8")),
            ("use_rslora", json!(1)),
        ] {
            let message = parse(&json!({ field: value })).unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        }
    }
}
