//! What a command was reading when an error came: many errors say the same of different files, such as `found 3, expected 4`, and then only the reader knows the class.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;

use super::{Class, Rank, find, fitting, other};

/// An error with the class of what was being read.
#[derive(Debug)]
struct Known {
    id: &'static str,
    error: anyhow::Error,
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl StdError for Known {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

/// Errors of a file that a command reads.
pub trait About<T> {
    /// Says which class an error has whose own words tell of none; the innermost of several counts.
    ///
    /// # Errors
    /// The error itself, with the same words.
    fn about(self, id: &'static str) -> anyhow::Result<T>;

    /// The same of errors that name this file: a command reads several.
    ///
    /// # Errors
    /// The error itself, with the same words.
    fn about_file(self, file: Option<&PathBuf>, id: &'static str) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> About<T> for Result<T, E> {
    fn about(self, id: &'static str) -> anyhow::Result<T> {
        self.map_err(|error| {
            let error = error.into();
            match error.chain().any(|cause| cause.is::<Known>()) {
                true => error,
                false => anyhow::Error::new(Known { id, error }),
            }
        })
    }

    fn about_file(self, file: Option<&PathBuf>, id: &'static str) -> anyhow::Result<T> {
        self.map_err(Into::into).or_else(|error: anyhow::Error| {
            // As a whole name, or as the folder that a file lies in.
            let names = |file: &PathBuf| {
                let (said, file) = (format!("{error:#}"), file.to_string_lossy());
                let ends = |rest: &str| rest.is_empty() || rest.starts_with(['`', ':', '/']);
                said.match_indices(&*file).any(|(at, _)| {
                    ends(&said[at + file.len()..])
                        && said[..at].chars().next_back().is_none_or(|c| c == '`' || c == ' ')
                })
            };
            if file.is_some_and(names) { Err(error).about(id) } else { Err(error) }
        })
    }
}

/// Classes of the process, of places for outputs and of engines: they say what happened whatever was being read.
const OF_ITS_OWN: [&str; 10] =
    ["E0002", "E0003", "E0004", "E0005", "E0007", "E0008", "E0010", "E0606", "E0701", "E0702"];
/// What cannot be read, if the system says so.
const UNREADABLE: &str = "E0006";
/// What stands in what the system says, or in what is said of a file that cannot be read.
const OF_THE_SYSTEM: [&str; 3] = ["(os error ", "cannot read `", "a byte that is not UTF-8 at "];
/// What cannot be written, if the system says so, and how the program says it.
const UNWRITABLE: &str = "E0005";
const UNWRITTEN: [&str; 2] = ["cannot write `", "cannot make `"];
/// The class of goldens, whose reader reads latents for others too.
const OF_GOLDENS: &str = "E0801";
/// Letters from which on the words tell of a class better than what was being read.
const TELLING: usize = 20;

/// The class of an error: that of its words, if they say enough, or tell of a class that does not depend on what was being read; else that of what was being read.
#[must_use]
pub fn class(error: &anyhow::Error) -> Option<&'static Class> {
    let text = format!("{error:#}");
    if UNWRITTEN.iter().any(|words| text.contains(words))
        && text.contains(OF_THE_SYSTEM[0])
        && !text.contains(OF_THE_SYSTEM[1])
    {
        return find(UNWRITABLE);
    }
    // A name of a file may have ends of lines.
    let pattern = fitting(&text).or_else(|| fitting(&text.replace('\n', " ")));
    let said = pattern.map(|pattern| pattern.class).or_else(|| other(&text));
    let Some(Known { id, .. }) = error.chain().find_map(|cause| cause.downcast_ref::<Known>()) else { return said };
    let tells = pattern.is_some_and(|pattern| {
        let said = pattern.class.id.as_str();
        match pattern.rank {
            Rank::Marked => true,
            Rank::Own(_) if OF_ITS_OWN.contains(&said) => true,
            Rank::Own(letters) if letters >= TELLING => said != OF_GOLDENS || *id == OF_GOLDENS,
            _ => said == UNREADABLE && OF_THE_SYSTEM.iter().any(|words| text.contains(words)),
        }
    });
    if tells { said } else { find(id) }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    fn id(result: anyhow::Result<()>) -> Option<&'static str> {
        class(&result.unwrap_err()).map(|class| class.id.as_str())
    }

    #[test]
    fn what_is_being_read_decides_where_the_words_do_not() {
        let failed = || Err::<(), _>(anyhow!("`x.safetensors`: text: found [1, 2], expected [3, 4]"));
        assert_eq!(id(failed().about("E0708")), Some("E0708"));
        assert_eq!(id(failed().about("E0708").context("cannot begin").about("E0801")), Some("E0708"), "the innermost");
        let gone = Err::<(), _>(anyhow!("cannot read `x`: No such file or directory (os error 2)"));
        assert_eq!(id(gone.about("E0708")), Some("E0006"));
        let odd = Err::<(), _>(anyhow!(
            "`x.mp4`: found 63x64 pixels, expected even numbers of at least 16 for an .mp4: name a .webp, a .gif or a folder"
        ));
        assert_eq!(id(odd.about("E0708")), Some("E0804"), "words that say enough");
        let file = PathBuf::from("x.safetensors");
        assert_eq!(id(failed().about_file(Some(&file), "E0503")), Some("E0503"));
        assert_ne!(id(failed().about_file(Some(&"y.safetensors".into()), "E0503")), Some("E0503"), "another file");
        assert_ne!(id(failed().about_file(Some(&"x".into()), "E0503")), Some("E0503"), "the beginning of a name");
        let taken = Err::<(), _>(anyhow!("cannot write `x.onnx`: the folder `out` does not exist"));
        assert_eq!(id(taken.about("E0708")), Some("E0005"));
        let full = Err::<(), _>(anyhow!("Permission denied (os error 13)").context("cannot write `x.gif`"));
        assert_eq!(id(full.about("E0708")), Some("E0005"));
        let shown = failed().context("outside").about("E0708").context("more").unwrap_err();
        assert_eq!(format!("{shown:#}"), "more: outside: `x.safetensors`: text: found [1, 2], expected [3, 4]");
    }
}
