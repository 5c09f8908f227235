//! Sizes in bytes, as people write them.

use crate::problems::{Problem, quoted};

/// Bytes of a unit, whatever its case.
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

/// Far above any disk, and an exact number of bytes in float64.
const LARGEST: f64 = 1e15;

/// Parses a size such as `5GB`, `1.2 GB`, `500MB`, `4GiB` or a number of bytes; parts of a byte are dropped.
///
/// # Errors
/// The text is no size, less than a byte, or a petabyte and more.
pub fn parse_size(text: &str) -> Result<u64, Problem> {
    let trimmed = text.trim();
    let unit = UNITS.into_iter().find_map(|(unit, factor)| {
        let (number, tail) = trimmed.split_at_checked(trimmed.len().checked_sub(unit.len())?)?;
        tail.eq_ignore_ascii_case(unit).then_some((number, factor))
    });
    let (number, factor) = unit.unwrap_or((trimmed, 1));
    let number = number.trim_end();
    // Digits and a point only: `1e3`, `inf` and `+5` are numbers of Rust and no sizes.
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let bytes = number.parse::<f64>().ok().filter(|_| plain).map(|n| n * factor as f64);
    match bytes {
        Some(bytes) if (1.0..LARGEST).contains(&bytes) => Ok(bytes as u64),
        _ => Err(Problem {
            place: "size".into(),
            found: quoted(text),
            expected: "a size such as 900MB, 1.2GB or 850MiB".into(),
        }),
    }
}

/// A size for people: `3.93 GB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(12), "12 B");
        assert_eq!(size(3_932_160_000), "3.93 GB");
        assert_eq!(size(999_900), "1.00 MB");
    }

    #[test]
    fn sizes_are_parsed() {
        for (text, size) in [
            ("5GB", 5_000_000_000),
            ("1.2GB", 1_200_000_000),
            ("500 MB", 500_000_000),
            ("4GiB", 4 << 30),
            ("0.5KiB", 512),
            ("10kb", 10_000),
            ("7B", 7),
            (" 123 ", 123),
        ] {
            assert_eq!(parse_size(text).unwrap(), size, "{text}");
        }
        for text in [
            "",
            "GB",
            ".",
            "0",
            "0GB",
            "0.5B",
            "-1",
            "+1MB",
            "1e3",
            "1.2.3GB",
            "1,5GB",
            "5XB",
            "99999999999TB",
            "inf",
            "€",
        ] {
            let problem = parse_size(text).unwrap_err();
            assert!(problem.expected.contains("1.2GB"), "{text}: {problem}");
        }
    }
}
