//! Sizes in bytes, as people write them.

use crate::problems::{Problem, quoted};

/// Parses a size such as `5GB`, `500MB`, `4GiB` or a number of bytes.
///
/// # Errors
/// The text is no size, or 0.
pub fn parse_size(text: &str) -> Result<u64, Problem> {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
    let unit = UNITS.into_iter().find_map(|(unit, factor)| {
        let split = text.trim().len().checked_sub(unit.len())?;
        let (number, tail) = text.trim().split_at_checked(split)?;
        tail.eq_ignore_ascii_case(unit).then_some((number, factor))
    });
    let (number, factor) = unit.unwrap_or((text, 1));
    number
        .trim()
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| Problem {
            place: "size".into(),
            found: quoted(text),
            expected: "a size such as 5GB, 500MB or 4GiB".into(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed() {
        for (text, size) in [
            ("5GB", 5_000_000_000),
            ("500 MB", 500_000_000),
            ("4GiB", 4 << 30),
            ("10kb", 10_000),
            ("7B", 7),
            ("123", 123),
        ] {
            assert_eq!(parse_size(text).unwrap(), size, "{text}");
        }
        for text in ["", "GB", "0", "0GB", "-1", "1.5GB", "5XB", "99999999999TB", "€"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
