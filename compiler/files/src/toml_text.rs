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
        let is_toml = text.parse::<toml::Table>().is_ok();
        Problems::one(at, found(error.message(), is_toml), expected)
    })
}

/// Names of types that the parser expects, and what people call them.
const TYPES: [(&str, &str); 8] = [
    ("f64", "a number"),
    ("u64", "a whole number from 0"),
    ("u32", "a whole number from 0"),
    ("usize", "a whole number from 0"),
    ("i64", "a whole number"),
    ("a boolean", "true or false"),
    ("a map", "a table"),
    ("a sequence", "a list"),
];

/// What was found, and in place of what, if the parser says so.
fn found(message: &str, is_toml: bool) -> String {
    // Quotes need no escape: nothing quotes them again.
    let printed = |text: &str| shown(text).replace("\\\"", "\"").replace("\\'", "'");
    let (what, wanted) =
        message.split_once(", expected ").map_or((message, None), |(what, wanted)| (what, Some(wanted)));
    if !is_toml {
        return format!("bad TOML ({})", printed(what));
    }
    let Some(wanted) = wanted else { return printed(what) };
    // A struct of ours is a table of theirs.
    let wanted = if wanted.starts_with("struct ") { "a map" } else { wanted };
    let named = TYPES.iter().find(|(of_rust, _)| *of_rust == wanted).map(|(_, name)| (*name).to_owned());
    format!("{} in place of {}", printed(what), named.unwrap_or_else(|| printed(wanted)))
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
        assert!(said.starts_with("line 1: found bad TOML ("), "{said}");
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only the errors are looked at")]
    struct Costs {
        name: String,
        ms: f64,
    }

    #[test]
    fn an_error_says_what_was_expected_in_the_place_of_what_was_found() {
        let read = |text: &str| parse::<Costs>(text, "", "costs").unwrap_err().to_string();
        assert_eq!(
            read("name = \"a\"\nms = \"b\""),
            "line 2: found invalid type: string \"b\" in place of a number, expected costs"
        );
        assert_eq!(read("zoo = 1"), "line 1: found unknown field `zoo` in place of `name` or `ms`, expected costs");
        assert_eq!(read("name = \"a\""), "line 1: found missing field `ms`, expected costs");
    }
}
