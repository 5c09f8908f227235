//! The index of errors: each message of the program is of a class, and a class has an id, a cause and a cure.
//!
//! `classes/*.toml` describe the classes and say which sources make their messages. `messages.tsv` has every message of the sources with the
//! class that follows from that; a test writes it (`S2DITC_BLESS=1`) and fails for a message without a class. So a new error needs no
//! more than a class that its file belongs to, or a line `words` in one.

mod about;

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;

pub use about::{About, class};

/// A class of errors.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// `E` and four digits; the first two are those of the area.
    pub id: String,
    /// What happened, in a line.
    pub title: String,
    /// Why it happens.
    pub cause: String,
    /// What to do.
    pub cure: String,
    /// What the errors of its file are about.
    #[serde(skip)]
    pub area: String,
    /// Sources whose messages are of this class, as the beginnings of their paths; the longest that fits decides.
    #[serde(default)]
    pub from: Vec<String>,
    /// Texts that a message of this class has, whichever source makes it.
    #[serde(default)]
    pub words: Vec<String>,
    /// Texts that decide wherever they stand in a message.
    #[serde(default)]
    pub marks: Vec<String>,
    /// Messages of the system and of libraries, with `{}` for what varies.
    #[serde(default)]
    pub also: Vec<String>,
    /// Classes that have texts in common with this one, which wins.
    #[serde(default)]
    pub over: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Area {
    area: String,
    class: Vec<Class>,
}

const FILES: [&str; 10] = [
    include_str!("classes/use.toml"),
    include_str!("classes/weights.toml"),
    include_str!("classes/models.toml"),
    include_str!("classes/import.toml"),
    include_str!("classes/compile.toml"),
    include_str!("classes/quantize.toml"),
    include_str!("classes/artifacts.toml"),
    include_str!("classes/run.toml"),
    include_str!("classes/proof.toml"),
    include_str!("classes/device.toml"),
];

#[allow(clippy::expect_used, reason = "the files are inside the program, and a test reads them")]
static CLASSES: LazyLock<Vec<Class>> = LazyLock::new(|| {
    let areas = FILES.iter().map(|text| toml::from_str(text).expect("the classes of this program"));
    areas
        .flat_map(|Area { area, class }| class.into_iter().map(move |class| Class { area: area.clone(), ..class }))
        .collect()
});

/// Every message of the sources, with its class.
const MESSAGES: &str = include_str!("messages.tsv");

/// A message of a class.
struct Pattern {
    class: &'static Class,
    /// What does not vary, in order.
    fixed: Vec<&'static str>,
    rank: Rank,
}

/// How much a pattern says of a message that fits it: what the program says of its own goes before what others say, and that before
/// the beginning of a message, whose cause follows. What sources of several classes say decides last, and a mark first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Shared(usize),
    Beginning(usize),
    Foreign(usize),
    Own(usize),
    Marked,
}

/// Where in a message a cause may begin.
const CAUSE: &str = ": ";
/// What stands between what was found and what was expected.
const WANTED: &str = ", expected ";
/// What stands for a value.
const VALUE: &str = "{}";

/// Weight from which on a message with values says something of its own.
const LEAST: usize = 6;

static PATTERNS: LazyLock<Vec<Pattern>> = LazyLock::new(|| {
    let mut patterns = Vec::new();
    let mut classes = HashMap::<&str, usize>::new();
    let lines = || MESSAGES.lines().filter_map(|line| line.split_once('\t'));
    for (_, text) in lines() {
        *classes.entry(text).or_default() += 1;
    }
    for (id, text) in lines() {
        let Some(class) = find(id) else { continue };
        match text.strip_suffix(": {}") {
            _ if classes[text] > 1 => patterns.push(pattern(class, text, Rank::Shared)),
            Some(beginning) => {
                patterns.push(pattern(class, text, Rank::Beginning));
                // Said of what is missing, there is no cause.
                patterns.push(pattern(class, beginning, Rank::Own));
            }
            None => patterns.push(pattern(class, text, Rank::Own)),
        }
    }
    for class in CLASSES.iter() {
        let marks = class.marks.iter().map(|mark| Pattern { class, fixed: vec!["", mark, ""], rank: Rank::Marked });
        patterns.extend(marks);
        patterns.extend(class.also.iter().map(|text| pattern(class, text, Rank::Foreign)));
    }
    // Where nothing but values is left, a message is of any class.
    patterns.retain(|pattern| !pattern.is_of_any());
    patterns
});

fn pattern(class: &'static Class, text: &'static str, rank: fn(usize) -> Rank) -> Pattern {
    let fixed: Vec<&str> = text.split(VALUE).collect();
    // What every second message says tells none from the others, and few words around many values fit much that they do not mean.
    let words = text.replace("expected", "").replace("found", "");
    let weight = words.chars().filter(|c| c.is_alphanumeric()).count().saturating_sub(2 * (fixed.len() - 1));
    let rank = match rank(weight) {
        Rank::Own(_) | Rank::Beginning(_) if weight < LEAST && fixed.len() > 1 => Rank::Shared(weight),
        rank => rank,
    };
    Pattern { class, fixed, rank }
}

impl Pattern {
    /// Whether it says no more than that something was found and something else expected.
    fn is_of_any(&self) -> bool {
        let words = self.fixed.concat().replace("expected", "").replace("found", "");
        !words.chars().any(char::is_alphanumeric)
    }

    fn fits(&self, text: &str) -> bool {
        let Some((first, rest)) = self.fixed.split_first() else { return false };
        let Some(mut text) = text.strip_prefix(first) else { return false };
        let Some((last, middle)) = rest.split_last() else { return text.is_empty() };
        for part in middle {
            let Some(at) = text.find(part) else { return false };
            text = &text[at + part.len()..];
        }
        text.ends_with(last)
    }
}

/// Every class, in the order of the ids.
#[must_use]
pub fn classes() -> &'static [Class] {
    &CLASSES
}

/// The class of an id.
#[must_use]
pub fn find(id: &str) -> Option<&'static Class> {
    CLASSES.iter().find(|class| class.id.eq_ignore_ascii_case(id))
}

/// The class of a message, with or without `error: ` before it.
///
/// ```
/// use s2ditc::errors;
///
/// let said = "cannot write `x.onnx`: the folder `out` does not exist";
/// assert_eq!(errors::of(said).expect("a class").id, "E0005");
/// ```
#[must_use]
pub fn of(message: &str) -> Option<&'static Class> {
    fitting(message).map(|pattern| pattern.class).or_else(|| other(message))
}

/// The class of what was found in the place of something else, and is of no other class.
const OTHER: &str = "E0011";

fn other(message: &str) -> Option<&'static Class> {
    (message.contains("found ") && message.contains(WANTED)).then(|| find(OTHER)).flatten()
}

/// The pattern that says most of a message.
fn fitting(message: &str) -> Option<&'static Pattern> {
    let message = message.trim().trim_start_matches("error: ");
    let mut lines = message.lines();
    let first = lines.next().unwrap_or_default();
    // Of a list of problems the first decides.
    let listed = lines.next().and_then(|line| line.trim_start().strip_prefix("- "));
    let line = listed.filter(|_| first.ends_with("problems:")).unwrap_or(first);
    // The message, what was found and what was expected, and each cause in them.
    let (found, expected) = line.find(WANTED).map_or((line, None), |at| (&line[..at], Some(&line[at + 2..])));
    let mut texts: Vec<&str> = expected.into_iter().collect();
    for text in [line, found] {
        let causes = text.match_indices(CAUSE).map(|(at, mark)| &text[at + mark.len()..]);
        texts.extend([text].into_iter().chain(causes).flat_map(|text| [text, text.trim_start_matches("found ")]));
    }
    let fitting = PATTERNS.iter().filter(|pattern| texts.iter().any(|text| pattern.fits(text)));
    // The first of the best.
    fitting.reduce(|best, other| if other.rank > best.rank { other } else { best })
}

/// Messages of a class, as the sources have them.
pub fn messages(class: &Class) -> impl Iterator<Item = &'static str> {
    MESSAGES.lines().filter_map(|line| line.split_once('\t')).filter(|(id, _)| *id == class.id).map(|(_, text)| text)
}
