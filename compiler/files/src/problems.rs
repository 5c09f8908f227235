//! Problems of an input, all of them at once: each says where, what was found and what was expected.

use std::fmt;
use std::path::Path;

/// A problem of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Place of the problem: a file, and the field or tensor in it.
    pub place: String,
    /// What was found at the place.
    pub found: String,
    /// What was expected there.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: found {}, expected {}", self.place, self.found, self.expected)
    }
}

impl std::error::Error for Problem {}

/// All the problems of an input; an error is never an empty list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

/// Problems that are printed; a hostile file can have millions.
const MOST_SHOWN: usize = 20;

impl Problems {
    /// No problems yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A list of one.
    pub fn one(place: impl Into<String>, found: impl Into<String>, expected: impl Into<String>) -> Self {
        let mut problems = Self::new();
        problems.push(place, found, expected);
        problems
    }

    /// Adds a problem.
    pub fn push(&mut self, place: impl Into<String>, found: impl Into<String>, expected: impl Into<String>) {
        self.0.push(Problem { place: place.into(), found: found.into(), expected: expected.into() });
    }

    /// Adds all problems of another list.
    pub fn extend(&mut self, other: Problems) {
        self.0.extend(other.0);
    }

    /// Keeps the value of a result, or its problems.
    pub fn absorb<T>(&mut self, result: Result<T, Problems>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(problems) => {
                self.extend(problems);
                None
            }
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `Ok` when nothing is wrong.
    ///
    /// # Errors
    /// The list itself, if it is not empty.
    pub fn into_result(self) -> Result<(), Problems> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return only.fmt(f);
        }
        write!(f, "{} problems:", self.0.len())?;
        for problem in self.0.iter().take(MOST_SHOWN) {
            write!(f, "\n  - {problem}")?;
        }
        if self.0.len() > MOST_SHOWN {
            write!(f, "\n  … and {} more", self.0.len() - MOST_SHOWN)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Says where a link leads, if nothing is there: what the caches of model hubs leave when blobs are removed.
#[must_use]
pub fn gone(path: &Path) -> Option<String> {
    let to = std::fs::read_link(path).ok().filter(|_| !path.exists())?;
    Some(format!("a link to {}, which is gone", quoted(&to.display().to_string())))
}

/// Text from an untrusted file, made fit to print: quoted, escaped and cut.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text))
}

/// Text from an untrusted file, made fit to print as by [`quoted`], without the quotes.
#[must_use]
pub fn shown(text: &str) -> String {
    const LONGEST: usize = 160;
    let mut out: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}

/// What is expected in place of weights of a type that is not read, and the way out.
#[must_use]
pub fn not_read(dtype: &str) -> String {
    format!("bf16, f16 or f32: {dtype} is not read; take a bf16 or a GGUF file of the same model")
}

/// The candidate nearest to `name`, if it is near enough to be what was meant.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .filter_map(|candidate| Some((slips(name, candidate)?, candidate)))
        .min()
        .map(|(_, candidate)| candidate)
}

/// The edits between a name and what may have been meant, if they are few enough.
pub fn slips(name: &str, meant: &str) -> Option<usize> {
    let limit = name.chars().count().max(3) / 3 + 1;
    let near = meant.len().abs_diff(name.len()) <= 4 * limit;
    near.then(|| strsim::levenshtein(name, meant)).filter(|distance| *distance <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_problem_is_one_line_and_more_are_a_list() {
        let mut problems = Problems::one("a", "1", "2");
        assert_eq!(problems.to_string(), "a: found 1, expected 2");
        problems.push("b", "3", "4");
        assert_eq!(problems.to_string(), "2 problems:\n  - a: found 1, expected 2\n  - b: found 3, expected 4");
    }

    #[test]
    fn nearest_finds_slips_and_nothing_else() {
        assert_eq!(nearest("window_frame", ["chunk_frames", "window_frames"]), Some("window_frames"));
        assert_eq!(nearest("num_heads", ["num_attention_heads"]), None);
    }

    #[test]
    fn hostile_text_is_cut_and_escaped() {
        assert_eq!(quoted("a\n\u{1b}[2J"), "\"a\\n\\u{1b}[2J\"");
        assert!(shown(&"x".repeat(10_000)).chars().count() < 200);
    }
}
