//! The schemes that a weight can be compressed with.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ops::{OpError, require};

/// A way to store the elements of a weight. Axis 0 counts output channels, axis 1 input channels.
///
/// | text | codes | table |
/// |---|---|---|
/// | `int8` | int8, −127…127 | a scale an output channel |
/// | `int8-block32`, `int4-block32` | int8, −127…127; int4, −8…7 | a scale an output channel and 32 input channels |
/// | `palette4` | 4-bit indices | one palette of 16 entries |
/// | `palette4-group16` | 4-bit indices | a palette for each 16 output channels |
///
/// Palettes have 1, 2, 3, 4, 6 or 8 bits. Scales and entries are fp16 numbers, whatever the weight's dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// int8 with a scale an output channel, symmetric.
    Int8,
    /// Integers with a scale a block of input channels, symmetric.
    Block {
        /// 4 or 8.
        bits: u8,
        /// Input channels of a block.
        block: usize,
    },
    /// Indices into palettes.
    Palette {
        /// 1, 2, 3, 4, 6 or 8.
        bits: u8,
        /// Output channels that share a palette; `None` for all of them.
        group: Option<usize>,
    },
}

/// The cut of a weight by a scheme, into runs of consecutive elements that share one scale or one palette.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runs {
    /// Number of runs.
    pub count: usize,
    /// Elements of a run.
    pub len: usize,
    /// Table entries of a run: 1 for a scale, the palette's size for a palette.
    pub entries: usize,
}

impl Scheme {
    /// Bits of one code.
    pub const fn bits(self) -> u8 {
        match self {
            Scheme::Int8 => 8,
            Scheme::Block { bits, .. } | Scheme::Palette { bits, .. } => bits,
        }
    }

    /// The runs of a weight of this shape.
    ///
    /// # Errors
    /// A weight of fewer than two dimensions or without elements; groups or blocks that do not divide its channels.
    pub fn runs(self, shape: &[usize]) -> Result<Runs, OpError> {
        let elements: usize = shape.iter().product();
        require!(
            shape.len() >= 2 && elements > 0,
            "scheme `{self}`: found a weight of shape {shape:?}, expected output and input channels"
        );
        let divides = |part: usize, whole: usize, what: &str| {
            require!(
                part > 0 && whole.is_multiple_of(part),
                "scheme `{self}`: found {whole} {what} channels, expected a multiple of {part}"
            );
            Ok(())
        };
        let count = match self {
            Scheme::Int8 => shape[0],
            Scheme::Block { block, .. } => {
                divides(block, shape[1], "input")?;
                shape[0] * (shape[1] / block)
            }
            Scheme::Palette { group: None, .. } => 1,
            Scheme::Palette { group: Some(group), .. } => {
                divides(group, shape[0], "output")?;
                shape[0] / group
            }
        };
        let entries = match self {
            Scheme::Palette { bits, .. } => 1 << bits,
            Scheme::Int8 | Scheme::Block { .. } => 1,
        };
        Ok(Runs { count, len: elements / count, entries })
    }

    /// Bytes of a stored weight of this shape, its table in fp16.
    ///
    /// # Errors
    /// See [`Scheme::runs`].
    pub fn bytes(self, shape: &[usize]) -> Result<usize, OpError> {
        let runs = self.runs(shape)?;
        Ok(packed_len(runs.count * runs.len, self.bits()) + 2 * runs.count * runs.entries)
    }
}

/// Bytes of `n` codes of this many bits.
pub const fn packed_len(n: usize, bits: u8) -> usize {
    (n * bits as usize).div_ceil(8)
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scheme::Int8 => f.write_str("int8"),
            Scheme::Block { bits, block } => write!(f, "int{bits}-block{block}"),
            Scheme::Palette { bits, group: None } => write!(f, "palette{bits}"),
            Scheme::Palette { bits, group: Some(group) } => write!(f, "palette{bits}-group{group}"),
        }
    }
}

/// The text that [`Scheme::from_str`] expects, for errors.
pub const EXPECTED: &str = "int8, int8-blockN, int4-blockN, paletteB or paletteB-groupN, with B of 1, 2, 3, 4, 6, 8";

impl FromStr for Scheme {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("found `{text}`, expected {EXPECTED}");
        let count = |digits: &str| -> Option<usize> {
            let n = digits.parse().ok().filter(|n| *n > 0)?;
            // One spelling of each number: `block032` and `block+32` are refused.
            (n <= 1 << 16 && digits == format!("{n}")).then_some(n)
        };
        let (kind, part) = text.split_once('-').map_or((text, None), |(kind, part)| (kind, Some(part)));
        let scheme = match (kind, part) {
            ("int8", None) => Some(Scheme::Int8),
            ("int4" | "int8", Some(part)) => part
                .strip_prefix("block")
                .and_then(count)
                .map(|block| Scheme::Block { bits: if kind == "int4" { 4 } else { 8 }, block }),
            _ => {
                let bits = match kind.strip_prefix("palette") {
                    Some("1") => Some(1),
                    Some("2") => Some(2),
                    Some("3") => Some(3),
                    Some("4") => Some(4),
                    Some("6") => Some(6),
                    Some("8") => Some(8),
                    _ => None,
                };
                let group = part.map(|p| p.strip_prefix("group").and_then(count));
                match (bits, group) {
                    (Some(bits), None) => Some(Scheme::Palette { bits, group: None }),
                    (Some(bits), Some(Some(group))) => Some(Scheme::Palette { bits, group: Some(group) }),
                    _ => None,
                }
            }
        };
        scheme.ok_or_else(bad)
    }
}

impl Serialize for Scheme {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scheme {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_is_one_to_one() {
        let all =
            ["int8", "int8-block64", "int4-block32", "palette1", "palette3-group8", "palette6", "palette8-group16"];
        for text in all {
            assert_eq!(text.parse::<Scheme>().unwrap().to_string(), text);
        }
        let bad = [
            "",
            "int4",
            "int6-block32",
            "int4-block0",
            "int4-block032",
            "int4-block+3",
            "palette5",
            "palette",
            "palette4-",
            "palette4-group",
            "palette4-group-16",
            "palette4-block16",
            "int8-group16",
            "palette4-group99999999",
            "fp16",
        ];
        for text in bad {
            let error = text.parse::<Scheme>().unwrap_err();
            assert!(error.contains(&format!("found `{text}`")), "{error}");
        }
    }

    #[test]
    fn runs_are_consecutive_and_must_divide() {
        let runs = |text: &str, shape: &[usize]| text.parse::<Scheme>().unwrap().runs(shape);
        assert_eq!(runs("int8", &[8, 6, 3]).unwrap(), Runs { count: 8, len: 18, entries: 1 });
        assert_eq!(runs("int4-block2", &[8, 6, 3]).unwrap(), Runs { count: 24, len: 6, entries: 1 });
        assert_eq!(runs("palette4", &[8, 6]).unwrap(), Runs { count: 1, len: 48, entries: 16 });
        assert_eq!(runs("palette3-group4", &[8, 6]).unwrap(), Runs { count: 2, len: 24, entries: 8 });
        let error = runs("palette3-group3", &[8, 6]).unwrap_err().to_string();
        assert_eq!(error, "scheme `palette3-group3`: found 8 output channels, expected a multiple of 3");
        let error = runs("int4-block4", &[8, 6]).unwrap_err().to_string();
        assert_eq!(error, "scheme `int4-block4`: found 6 input channels, expected a multiple of 4");
        assert!(runs("int8", &[8]).is_err());
        assert_eq!("palette3-group4".parse::<Scheme>().unwrap().bytes(&[8, 6]).unwrap(), 18 + 32);
    }
}
