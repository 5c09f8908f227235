//! TOML that people write: what is wrong with it is one line.

use serde::de::DeserializeOwned;

use crate::problems::{Problems, shown};

/// Reads a value from TOML; `place` is the file, or nothing where the caller names it, and `expected` what it should be, with its article.
///
/// # Errors
/// Text that is no TOML, or lacks a field, or has one that there is not; with the line.
pub fn parse<T: DeserializeOwned>(text: &str, place: &str, expected: &str) -> Result<T, Problems> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let line = error
            .span()
            .map(|span| text.as_bytes()[..span.start.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1);
        let line = line.map(|line| format!("line {line}"));
        let at: Vec<String> =
            [Some(place.to_owned()).filter(|place| !place.is_empty()), line].into_iter().flatten().collect();
        let at = if at.is_empty() { "the text".into() } else { at.join(", ") };
        // The parser's own list of what may stand there says less than `expected`.
        let said = error.message().split(", expected").next().unwrap_or_default();
        Problems::one(at, shown(said), expected)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_and_says_where() {
        let read = |text: &str| parse::<toml::Table>(text, "x.toml", "a table").unwrap_err().to_string();
        let said = read("a = 1\nb = \nc = 3\n");
        assert!(
            said.starts_with("x.toml, line 2: found ")
                && said.ends_with(", expected a table")
                && said.lines().count() == 1,
            "{said}"
        );
        let said = parse::<toml::Table>("é = ", "", "a table").unwrap_err().to_string();
        assert!(said.starts_with("line 1: found "), "{said}");
    }
}
