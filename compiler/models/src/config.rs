//! Configurations of every family: the `config.json` of a checkpoint, presets, and fields changed from the command line.

use std::path::Path;
use std::sync::Arc;

use s2dit_backends::input::{LARGEST_JSON, LFS_POINTER, is_lfs_pointer, read_file};
use serde_json::Value;

use crate::FAMILIES;
use crate::model::{Family, Model};
use s2dit_files::json::{Entries, compact};
use s2dit_files::problems::{Problem, Problems, gone, nearest, quoted, shown};

/// Reads a `config.json`.
///
/// # Errors
/// Every problem of the file.
pub fn read(path: &Path) -> Result<Arc<dyn Model>, Problems> {
    parse_entries(entries(path)?, &path.display().to_string())
}

/// The entries of a `config.json`.
pub(crate) fn entries(path: &Path) -> Result<Vec<(String, Value)>, Problems> {
    let place = path.display().to_string();
    let unreadable = |error: std::io::Error| {
        Problems::one(&place, gone(path).unwrap_or_else(|| error.to_string()), "a readable config.json")
    };
    let bytes = read_file(path, LARGEST_JSON).map_err(unreadable)?;
    if is_lfs_pointer(&bytes) {
        return Err(Problems::one(&place, LFS_POINTER, "a configuration"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Problems::one(&place, format!("a byte that is not UTF-8 at {at}"), "JSON text")
    })?;
    entries_of(&text, &place)
}

/// Parses the text of a `config.json`; `place` names it in problems.
///
/// # Errors
/// Every problem of the text.
pub fn parse(text: &str, place: &str) -> Result<Arc<dyn Model>, Problems> {
    parse_entries(entries_of(text, place)?, place)
}

fn entries_of(text: &str, place: &str) -> Result<Vec<(String, Value)>, Problems> {
    let Entries(entries) = serde_json::from_str(text)
        .map_err(|error| Problems::one(place, format!("bad JSON ({error})"), "a JSON object"))?;
    Ok(entries)
}

/// Parses the entries of a `config.json`; `place` names it in problems.
pub(crate) fn parse_entries(entries: Vec<(String, Value)>, place: &str) -> Result<Arc<dyn Model>, Problems> {
    match family_of(&entries, place)? {
        Some(family) => family.parse(entries, place),
        // A configuration without a class is one of the first family; that it has none is what may be wrong with it.
        None => FAMILIES[0].parse(entries, place).map_err(|mut problems| {
            let classes: Vec<String> = FAMILIES.iter().map(|family| quoted(family.class())).collect();
            problems.push(
                format!("{place}: _class_name"),
                "no such field",
                format!("{}; without it the file is read as one of {}", classes.join(" or "), FAMILIES[0].name()),
            );
            problems
        }),
    }
}

/// The family that a configuration names, if it names one.
pub(crate) fn family_of(entries: &[(String, Value)], place: &str) -> Result<Option<&'static dyn Family>, Problems> {
    let classes = || {
        let classes: Vec<String> = FAMILIES.iter().map(|family| quoted(family.class())).collect();
        format!("{}: no other family of models is read", classes.join(" or "))
    };
    let mut found = None;
    for (name, value) in entries {
        // diffusers writes the class, transformers a list of one.
        let class = match name.as_str() {
            "_class_name" => Some(value),
            "architectures" if value.is_array() => value.as_array().filter(|list| list.len() == 1).map(|list| &list[0]),
            _ => continue,
        };
        let known = (FAMILIES.iter().copied()).find(|family| {
            let is = |own: &str| class.is_some_and(|class| class == own);
            let there = family.part().class_field() == name;
            there && is(family.class()) || family.original_class().is_some_and(is)
        });
        let Some(family) = known else {
            return Err(Problems::one(format!("{place}: {name}"), compact(value), classes()));
        };
        if found.replace(family).is_some() {
            return Err(Problems::one(format!("{place}: {name}"), "the field twice", "it once"));
        }
    }
    Ok(found)
}

/// Names of the presets of every family.
#[must_use]
pub fn presets() -> Vec<&'static str> {
    FAMILIES.iter().flat_map(|family| family.presets()).collect()
}

/// The model of a preset.
///
/// # Errors
/// A name that no family has.
pub fn preset(name: &str) -> Result<Arc<dyn Model>, Problem> {
    FAMILIES.iter().find_map(|family| family.preset(name)).ok_or_else(|| Problem {
        place: "preset".into(),
        found: quoted(name),
        expected: format!("one of {}", presets().join(", ")),
    })
}

/// A model with fields of its configuration replaced: each setting is `field=JSON`; a bare word stands for itself as a string
/// (`qk_norm=rms_norm_per_head`). The last setting of a field counts.
///
/// # Errors
/// Every problem of the settings, and of the configuration they make.
pub fn with_overrides(base: &dyn Model, settings: &[impl AsRef<str>]) -> Result<Arc<dyn Model>, Problems> {
    let mut problems = Problems::new();
    let known = base.family().fields();
    let mut fields = match base.config() {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    };
    for setting in settings {
        let setting = setting.as_ref();
        let Some((field, text)) = setting.split_once('=') else {
            problems.push("--set", quoted(setting), "field=value, such as ssa_stride=2");
            continue;
        };
        let field = field.trim();
        if !known.contains(&field) {
            let expected = match nearest(field, known.iter().copied()) {
                Some(known) => format!("a known field (did you mean `{known}`?)"),
                None => format!("one of {}", known.join(", ")),
            };
            problems.push(format!("--set {}", shown(field)), "an unknown field", expected);
            continue;
        }
        let is_word = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphabetic())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        match serde_json::from_str::<Value>(text) {
            Ok(value) => {
                fields.insert(field.to_owned(), value);
            }
            Err(_) if is_word(text.trim()) => {
                fields.insert(field.to_owned(), Value::from(text.trim()));
            }
            Err(error) => {
                problems.push(format!("--set {field}"), format!("{} ({error})", quoted(text)), "a JSON value");
            }
        }
    }
    let model = problems.absorb(base.family().parse(fields.into_iter().collect(), "--set"));
    problems.into_result()?;
    model.ok_or_else(Problems::new)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_configuration_is_read_by_its_class() {
        for family in FAMILIES {
            for name in family.presets() {
                let model = family.preset(name).unwrap();
                let read = parse(&model.config().to_string(), "config.json").unwrap();
                assert_eq!((read.config(), read.family().class()), (model.config(), family.class()));
                assert_eq!(preset(name).unwrap().config(), model.config());
            }
        }
        let names = presets();
        assert!((1..names.len()).all(|i| !names[..i].contains(&names[i])), "{names:?}");
    }

    #[test]
    fn other_classes_are_refused_by_name() {
        let problem = |config: Value| parse(&config.to_string(), "config.json").unwrap_err().to_string();
        let other = problem(json!({ "_class_name": "FluxTransformer2DModel", "num_layers": 28 }));
        assert_eq!(
            other,
            "config.json: _class_name: found \"FluxTransformer2DModel\", expected \"S2DiTTransformer3DModel\" or \
             \"WanTransformer3DModel\" or \"CausalWanModel\" or \"LTXVideoTransformer3DModel\" or \
             \"SanaVideoTransformer3DModel\" or \"SanaVideoCausalTransformer3DModel\" or \"OpenSoraMMDiTModel\" or \"CLIPTextModel\" or \"T5EncoderModel\" or \"UMT5EncoderModel\" or \
             \"AutoencoderKLWan\" or \"AutoencoderKLLTXVideo\" or \"TAEHV\": no other family of models is read"
        );
        let decoder = problem(json!({ "architectures": ["GPT2LMHeadModel"] }));
        assert!(decoder.contains("architectures: found [\"GPT2LMHeadModel\"], expected"), "{decoder}");
        // A class counts in its library's field alone.
        for config in [json!({ "_class_name": "CLIPTextModel" }), json!({ "architectures": ["WanTransformer3DModel"] })]
        {
            assert!(problem(config).contains("no other family"));
        }
        assert!(preset("big").unwrap_err().to_string().contains("wan2.1-14b"));
    }
}
