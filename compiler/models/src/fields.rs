//! The fields of a `config.json`, read one by one with every problem collected.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::Value;

use s2dit_files::json::compact;
use s2dit_files::problems::{Problems, nearest, quoted, shown};

/// The largest size that is read: far above any model, and low enough that no product of sizes overflows.
pub const LARGEST: usize = 1 << 20;
/// The ε of a norm is added to a mean square of about 1: above this the norm is none, and fp16 soon cannot hold it.
const LARGEST_EPS: f64 = 1.0;
/// Blocks of the deepest model that is read.
pub const MOST_BLOCKS: usize = 4096;

/// Latent frames that a stream may keep: minutes of video, and far more than a phone holds.
pub const MOST_FRAMES: usize = 4096;

/// The fields not read yet, and the problems so far. A field with a problem reads as a stand-in, which is
/// never seen: [`Fields::finish`] then fails.
pub struct Fields<'a> {
    place: &'a str,
    known: &'static [&'static str],
    entries: BTreeMap<String, Value>,
    problems: Problems,
}

impl<'a> Fields<'a> {
    /// The entries of a configuration with these fields. Names that start with `_` are metadata of the program that wrote it.
    pub fn new(entries: Vec<(String, Value)>, known: &'static [&'static str], place: &'a str) -> Self {
        let mut fields = Fields { place, known, entries: BTreeMap::new(), problems: Problems::new() };
        for (name, value) in entries {
            if name.starts_with('_') {
                continue;
            }
            if fields.entries.contains_key(&name) {
                fields.problem(&shown(&name), "the field twice", "it once");
                continue;
            }
            fields.entries.insert(name, value);
        }
        fields
    }

    /// Notes a problem of a field.
    pub fn problem(&mut self, field: &str, found: impl Into<String>, expected: impl Into<String>) {
        self.problems.push(format!("{}: {field}", self.place), found, expected);
    }

    /// The value of a field, which counts as read.
    pub fn remove(&mut self, field: &str) -> Option<Value> {
        self.entries.remove(field)
    }

    /// The value of a field; a missing field without a default is a problem.
    pub fn take(&mut self, field: &str, optional: bool, expected: &str) -> Option<Value> {
        let value = self.entries.remove(field);
        if value.is_none() && !optional {
            self.problem(field, "no such field", expected);
        }
        value
    }

    /// An integer in a range.
    pub fn integer(&mut self, field: &str, default: Option<usize>, range: RangeInclusive<usize>) -> usize {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        let fallback = default.unwrap_or(*range.start());
        let Some(value) = self.take(field, default.is_some(), &expected) else {
            return fallback;
        };
        as_integer(&value, &range).unwrap_or_else(|| {
            self.problem(field, compact(&value), expected);
            fallback
        })
    }

    /// A size of a tensor.
    pub fn size(&mut self, field: &str, default: Option<usize>) -> usize {
        self.integer(field, default, 1..=LARGEST)
    }

    /// A number above 0.
    pub fn positive(&mut self, field: &str, default: f64) -> f64 {
        self.number(field, default, f64::MAX, "a number above 0")
    }

    /// The ε of a norm.
    pub fn eps(&mut self, field: &str, default: f64) -> f64 {
        self.number(field, default, LARGEST_EPS, "a number above 0 and at most 1")
    }

    /// A number above 0 and at most `most`.
    fn number(&mut self, field: &str, default: f64, most: f64, expected: &str) -> f64 {
        let Some(value) = self.entries.remove(field) else { return default };
        match value.as_f64() {
            Some(number) if number > 0.0 && number <= most => number,
            _ => {
                self.problem(field, compact(&value), expected);
                default
            }
        }
    }

    /// `true` or `false`.
    pub fn flag(&mut self, field: &str, default: bool) -> bool {
        let Some(value) = self.entries.remove(field) else { return default };
        value.as_bool().unwrap_or_else(|| {
            self.problem(field, compact(&value), "true or false");
            default
        })
    }

    /// One of several words.
    pub fn choice<T: Copy>(&mut self, field: &str, default: T, choices: &[(&str, T)]) -> T {
        let Some(value) = self.entries.remove(field) else { return default };
        let chosen = choices.iter().find(|(name, _)| value.as_str() == Some(name));
        if let Some((_, chosen)) = chosen {
            return *chosen;
        }
        let names: Vec<String> = choices.iter().map(|(name, _)| quoted(name)).collect();
        self.problem(field, compact(&value), names.join(" or "));
        default
    }

    /// Three integers from 1 to 64.
    pub fn triple(&mut self, field: &str, optional: bool) -> Option<[usize; 3]> {
        const EXPECTED: &str = "a list of 3 integers from 1 to 64";
        let value = self.take(field, optional, EXPECTED)?;
        let items: Option<Vec<usize>> =
            value.as_array().and_then(|items| items.iter().map(|item| as_integer(item, &(1..=64))).collect());
        let triple = items.and_then(|items| <[usize; 3]>::try_from(items).ok());
        if triple.is_none() {
            self.problem(field, compact(&value), EXPECTED);
        }
        triple
    }

    /// A field that says nothing of what is compiled.
    pub fn ignored(&mut self, field: &str) {
        self.entries.remove(field);
    }

    /// `null`, or an integer from 1 to `most`.
    pub fn null_or(&mut self, field: &str, most: usize) -> Option<usize> {
        let value = self.entries.remove(field).filter(|value| !value.is_null())?;
        let integer = as_integer(&value, &(1..=most));
        if integer.is_none() {
            self.problem(field, compact(&value), format!("null or an integer from 1 to {most}"));
        }
        integer
    }

    /// A list, each item of which `item` reads.
    pub fn list<T>(
        &mut self,
        field: &str,
        default: Vec<T>,
        expected: &str,
        item: impl Fn(&Value) -> Option<T>,
    ) -> Vec<T> {
        let Some(value) = self.entries.remove(field) else { return default };
        let items = value.as_array().and_then(|items| items.iter().map(item).collect());
        items.unwrap_or_else(|| {
            self.problem(field, compact(&value), expected);
            default
        })
    }

    /// The widths of three axes.
    pub fn widths(&mut self, field: &str, default: [usize; 3]) -> [usize; 3] {
        let Some(value) = self.entries.remove(field) else { return default };
        let range = 0..=LARGEST;
        let items = value.as_array().and_then(|items| items.iter().map(|item| as_integer(item, &range)).collect());
        items.and_then(|items: Vec<usize>| items.try_into().ok()).unwrap_or_else(|| {
            self.problem(field, compact(&value), format!("a list of 3 integers from 0 to {LARGEST}"));
            default
        })
    }

    /// A patch `[frames, rows, columns]` that spans one frame.
    pub fn patch_size(&mut self, default: Option<[usize; 3]>) -> [usize; 3] {
        let patch = self.triple("patch_size", default.is_some()).or(default).unwrap_or([1, 1, 1]);
        if patch[0] != 1 {
            self.problem("patch_size[0]", patch[0].to_string(), "1 (a token spans one frame)");
        }
        patch
    }

    /// The width of a head that RoPE turns over three axes.
    pub fn head_dim(&mut self, default: Option<usize>) -> usize {
        let field = "attention_head_dim";
        let width = self.integer(field, default, 6..=4096);
        if width % 2 == 1 {
            self.problem(field, width.to_string(), "an even width (RoPE rotates pairs)");
        }
        width
    }

    /// The width of the sinusoidal time embedding.
    pub fn freq_dim(&mut self) -> usize {
        let width = self.integer("freq_dim", Some(256), 2..=LARGEST);
        if width % 2 == 1 {
            self.problem("freq_dim", width.to_string(), "an even width (cosines, then sines)");
        }
        width
    }

    /// Reports the fields that are left, which are unknown, with all other problems.
    ///
    /// # Errors
    /// Every problem of the fields.
    pub fn finish(mut self) -> Result<(), Problems> {
        for name in std::mem::take(&mut self.entries).into_keys() {
            let expected = match nearest(&name, self.known.iter().copied()) {
                Some(field) => format!("a known field (did you mean `{field}`?)"),
                None => "no such field (a name that starts with `_` would be ignored)".to_owned(),
            };
            self.problem(&shown(&name), "an unknown field", expected);
        }
        self.problems.into_result()
    }
}

/// A JSON number as an integer of a range.
pub fn as_integer(value: &Value, range: &RangeInclusive<usize>) -> Option<usize> {
    let number = usize::try_from(value.as_u64()?).ok()?;
    range.contains(&number).then_some(number)
}

/// Checks that a shift leaves the noise levels of a sampler apart: near 0 and far above 1 they fall together, or on no number.
///
/// # Errors
/// Levels that do not descend within 0 to 1.
pub fn check_shift(sigmas: &[f64], shift: f64, place: &str) -> Result<(), Problems> {
    // The shift of 1 is 1 but for the last bit.
    let in_range = sigmas.iter().all(|sigma| (0.0..=1.0 + 1e-9).contains(sigma));
    if in_range && sigmas.is_sorted_by(|a, b| a > b) {
        return Ok(());
    }
    Err(Problems::one(
        format!("{place}: flow_shift"),
        format!("{shift:?}"),
        "a shift s with which the noise levels s·σ/(1 + (s − 1)·σ) of sample_steps descend within 0 to 1",
    ))
}

/// Checks a hidden width, the product of two fields.
///
/// # Errors
/// A width above [`LARGEST`].
pub fn check_width(width: usize, place: &str) -> Result<(), Problems> {
    if width <= LARGEST {
        return Ok(());
    }
    Err(Problems::one(
        format!("{place}: num_attention_heads × attention_head_dim"),
        width.to_string(),
        format!("at most {LARGEST}"),
    ))
}
