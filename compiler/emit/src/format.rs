//! The format that a description in JSON names.

use std::path::Path;

use s2dit_backends::input::{LARGEST_JSON, read_text};

/// Whether a description in JSON names its format so: that of a kernel or of a partitioned step.
pub(crate) fn has_format(description: &Path, format: &str) -> bool {
    let value = read_text(description, LARGEST_JSON)
        .ok()
        .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    value.is_some_and(|value| value["format"] == format)
}
