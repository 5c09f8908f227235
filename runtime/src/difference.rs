//! The first difference between two JSON values, for errors that name a field.

use std::fmt;

use serde_json::Value;

/// A field with two values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The field: `states[3].shape[1]`.
    pub field: String,
    /// Value of the field, as JSON; `nothing` where there is no such field.
    pub found: String,
    /// Value that was expected.
    pub expected: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "field `{}`: found {}, expected {}", self.field, self.found, self.expected)
    }
}

/// The first field that differs, in the order of `expected`, then what only `found` has. Names that start with `_` are
/// comments.
#[must_use]
pub fn first_difference(found: &Value, expected: &Value) -> Option<Difference> {
    at("", Some(found), Some(expected))
}

fn at(field: &str, found: Option<&Value>, expected: Option<&Value>) -> Option<Difference> {
    match (found, expected) {
        (Some(Value::Object(found)), Some(Value::Object(expected))) => {
            let only_found = found.keys().filter(|name| !expected.contains_key(*name));
            expected.keys().chain(only_found).filter(|name| !name.starts_with('_')).find_map(|name| {
                let dot = if field.is_empty() { "" } else { "." };
                at(&format!("{field}{dot}{name}"), found.get(name), expected.get(name))
            })
        }
        (Some(Value::Array(found)), Some(Value::Array(expected))) if found.len() == expected.len() => (found.iter())
            .zip(expected)
            .enumerate()
            .find_map(|(i, (found, expected))| at(&format!("{field}[{i}]"), Some(found), Some(expected))),
        // 5 and 5.0 are one number.
        (Some(Value::Number(found)), Some(Value::Number(expected))) if found.as_f64() == expected.as_f64() => None,
        (found, expected) if found == expected => None,
        (found, expected) => Some(Difference { field: field.into(), found: shown(found), expected: shown(expected) }),
    }
}

/// A value in short.
fn shown(value: Option<&Value>) -> String {
    const LONGEST: usize = 80;
    let text = value.map_or("nothing".into(), Value::to_string);
    match text.chars().nth(LONGEST) {
        Some(_) => text.chars().take(LONGEST).chain(['…']).collect(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_field_that_differs_is_named() {
        let difference = |found: Value, expected: Value| first_difference(&found, &expected).map(|d| d.to_string());
        let expected = json!({"a": [1, {"b": 2.0}], "c": null, "_by": "x"});
        assert_eq!(difference(json!({"c": null, "a": [1.0, {"b": 2}]}), expected.clone()), None);
        for (found, says) in [
            (json!({"a": [1, {"b": 3}], "c": null}), "field `a[1].b`: found 3, expected 2.0"),
            (json!({"a": [1], "c": null}), "field `a`: found [1], expected [1,{\"b\":2.0}]"),
            (json!({"a": [1, {"b": 2}]}), "field `c`: found nothing, expected null"),
            (json!({"a": [1, {"b": 2}], "c": null, "d": 1}), "field `d`: found 1, expected nothing"),
        ] {
            assert_eq!(difference(found, expected.clone()).as_deref(), Some(says));
        }
        let long = difference(json!({"a": "x".repeat(1000)}), json!({"a": 1})).expect("a difference");
        assert!(long.chars().count() < 150, "{long}");
    }
}
