//! The factor `alpha / rank` of a LoRA: from a tensor of its module, or from what PEFT and diffusers write about the whole adapter. What they
//! write must agree with the file.

use std::collections::BTreeMap;
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
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Alphas {
    alpha: Option<f64>,
    /// The ranks that modules may have, each with the place that says it; any if there is none.
    ranks: BTreeMap<u64, String>,
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
                "r" => match rank_of(value) {
                    Some(rank) => drop(alphas.ranks.insert(rank, format!("{place}: {key}"))),
                    None => refuse("a whole number above 0"),
                },
                "rank_pattern" if !nothing => {
                    let ranks = value.as_object().map(|map| map.values().map(rank_of).collect::<Option<Vec<u64>>>());
                    match ranks.flatten() {
                        Some(ranks) => {
                            alphas.ranks.extend(ranks.into_iter().map(|rank| (rank, format!("{place}: {key}"))));
                        }
                        None => refuse("an object of whole numbers above 0"),
                    }
                }
                "peft_type" if !value.as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("lora")) => {
                    refuse("\"LORA\": only plain LoRA is merged here; merge the adapter with PEFT instead");
                }
                "bias" if !nothing && value != "none" => {
                    refuse("\"none\": trained biases are not merged here; merge the adapter with PEFT instead");
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
    /// An alpha that is no number; a rank that the adapter's configuration does not have.
    pub(super) fn scale(&self, rank: usize, tensor: Option<Factor>, place: &str) -> Result<f64, Problems> {
        if !self.ranks.is_empty() && !self.ranks.contains_key(&(rank as u64)) {
            let said: Vec<String> = self.ranks.iter().map(|(rank, said)| format!("{rank}, as {said} says")).collect();
            return Err(Problems::one(place, format!("factors of rank {rank}"), said.join(", or ")));
        }
        let own = tensor.map(|tensor| {
            tensor.scalar().map_err(|found| Problems::one(format!("{place}: alpha"), found, "one finite number"))
        });
        let Some(alpha) = own.transpose()?.or(self.alpha) else { return Ok(1.0) };
        let rank = rank.max(1) as f64;
        Ok(alpha / if self.root { rank.sqrt() } else { rank })
    }
}

/// A rank: a whole number above 0.
fn rank_of(value: &Value) -> Option<u64> {
    value.as_u64().filter(|rank| *rank > 0)
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
    fn ranks_are_those_of_the_configuration() {
        let config =
            json!({ "r": 64, "rank_pattern": { "x": 8 }, "peft_type": "LORA", "bias": "none", "lora_alpha": 8 });
        let alphas = parse(&config).unwrap();
        assert_eq!(alphas.scale(64, None, "x"), Ok(0.125));
        assert_eq!(alphas.scale(8, None, "x"), Ok(1.0));
        let message = alphas.scale(4, None, "x").unwrap_err().to_string();
        let expected = "expected 8, as adapter_config.json: rank_pattern says, or 64, as adapter_config.json: r says";
        assert_eq!(message, format!("x: found factors of rank 4, {expected}"));
        assert!(parse(&json!({ "rank_pattern": {}, "bias": null })).is_ok());
    }

    #[test]
    fn other_kinds_of_adapters_are_refused() {
        for (field, value) in [
            ("use_dora", json!(true)),
            ("alpha_pattern", json!({ "x": 1 })),
            ("lora_alpha", json!("8")),
            ("use_rslora", json!(1)),
            ("peft_type", json!("LOHA")),
            ("bias", json!("all")),
            ("r", json!("4")),
            ("r", json!(0)),
            ("rank_pattern", json!({ "x": -1 })),
        ] {
            let message = parse(&json!({ field: value })).unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        }
    }
}
