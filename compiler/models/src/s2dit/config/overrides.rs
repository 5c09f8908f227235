//! `--set field=value`: a configuration changed from the command line.

use serde_json::Value;

use super::S2ditConfig;
use super::parse::FIELDS;
use s2dit_files::problems::{Problems, nearest, quoted, shown};

/// A configuration with fields replaced: each setting is `field=JSON`; a bare word stands for itself as a string
/// (`qk_norm=rms_norm_per_head`). The last setting of a field counts.
///
/// # Errors
/// Every problem of the settings, and of the configuration they make.
pub fn with_overrides(base: &S2ditConfig, settings: &[impl AsRef<str>]) -> Result<S2ditConfig, Problems> {
    let mut problems = Problems::new();
    let mut fields = match base.to_json_value() {
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
        if !FIELDS.contains(&field) {
            let expected = match nearest(field, FIELDS) {
                Some(known) => format!("a known field (did you mean `{known}`?)"),
                None => format!("one of {}", FIELDS.join(", ")),
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
    let config = problems.absorb(S2ditConfig::from_entries(fields.into_iter().collect(), "--set"));
    problems.into_result()?;
    config.ok_or_else(Problems::new)
}
