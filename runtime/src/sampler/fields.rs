//! The fields of a scheduler's configuration, read one by one with every problem collected.

use s2dit_files::json::compact;
use s2dit_files::problems::{Problems, quoted, shown};
use serde_json::{Map, Value};

use crate::{Error, ErrorKind};

/// The fields not read yet, and the problems so far. A field with a problem reads as its default, which is never seen: [`Fields::finish`] then fails.
pub(super) struct Fields<'a> {
    place: &'a str,
    entries: Map<String, Value>,
    problems: Problems,
}

impl<'a> Fields<'a> {
    pub(super) fn new(config: &Map<String, Value>, place: &'a str) -> Self {
        let entries = config.iter().filter(|(name, _)| !name.starts_with('_'));
        let entries = entries.map(|(name, value)| (name.clone(), value.clone())).collect();
        Fields { place, entries, problems: Problems::new() }
    }

    pub(super) fn problem(&mut self, field: &str, found: String, expected: &str) {
        self.problems.push(format!("{}: {field}", self.place), found, expected);
    }

    /// The value of a field, which counts as read.
    pub(super) fn take(&mut self, field: &str) -> Option<Value> {
        self.entries.remove(field)
    }

    /// A value that `read` understands, or the default if it is missing.
    fn read<T>(&mut self, field: &str, default: T, expected: &str, read: impl Fn(&Value) -> Option<T>) -> T {
        let Some(value) = self.take(field) else { return default };
        read(&value).unwrap_or_else(|| {
            self.problem(field, compact(&value), expected);
            default
        })
    }

    pub(super) fn flag(&mut self, field: &str, default: bool) -> bool {
        self.read(field, default, "true or false", Value::as_bool)
    }

    pub(super) fn number(&mut self, field: &str, default: f64) -> f64 {
        self.read(field, default, "a number", Value::as_f64)
    }

    pub(super) fn positive(&mut self, field: &str, default: f64) -> f64 {
        self.read(field, default, "a number above 0", |value| value.as_f64().filter(|n| *n > 0.0))
    }

    pub(super) fn integer(&mut self, field: &str, default: usize, most: usize) -> usize {
        let read =
            |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=most).contains(n));
        self.read(field, default, &format!("an integer from 1 to {most}"), read)
    }

    /// One of several words.
    pub(super) fn word<'w>(&mut self, field: &str, default: &'w str, words: &[&'w str]) -> &'w str {
        let expected: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        let read = |value: &Value| words.iter().copied().find(|word| value.as_str() == Some(*word));
        self.read(field, default, &expected.join(" or "), read)
    }

    /// A field that is supported with one value only, which need not be the default of the class.
    pub(super) fn only(&mut self, field: &str, default: &Value, supported: &Value, why: &str) {
        let found = self.take(field).unwrap_or_else(|| default.clone());
        let same = found == *supported || found.as_f64().is_some_and(|found| Some(found) == supported.as_f64());
        if !same {
            self.problem(field, compact(&found), &format!("{}: {why}", compact(supported)));
        }
    }

    /// Fields that the class ignores where it is used for flow matching.
    pub(super) fn ignore(&mut self, fields: &[&str]) {
        for field in fields {
            self.take(field);
        }
    }

    /// # Errors
    /// Every problem, and every field that nobody read.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        let unknown: Vec<String> = self.entries.keys().cloned().collect();
        for field in unknown {
            self.problem(
                &shown(&field),
                "a field that is unknown here".into(),
                "fields of the class in diffusers 0.42",
            );
        }
        if self.problems.0.is_empty() { Ok(()) } else { Err(Error::new(ErrorKind::Artifact, self.problems.into())) }
    }
}
