//! Errors of the command line that only a command can see, and not the parser.

use std::path::PathBuf;
use std::str::FromStr;

use s2dit_files::parse_size;
use s2dit_files::problems::{Problem, quoted};
use s2dit_models::config::presets;
use s2dit_proof::decode::VideoOutput;
use s2dit_video::{NAMES, is_video};

/// Options that do not go together, or do nothing here: exit code 2, as for what the parser refuses.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

/// Fails with [`Usage`], as `bail!` does with any error.
macro_rules! refuse {
    ($($message:tt)*) => { return Err($crate::cli::usage::Usage(format!($($message)*)).into()) };
}
pub(super) use refuse;

/// A size in bytes, such as `1.2GB`.
///
/// # Errors
/// See [`parse_size`].
pub(super) fn bytes(text: &str) -> Result<u64, Problem> {
    parse_size(text)
}

/// A path for latents, which are written as safetensors.
///
/// # Errors
/// A name that says another format.
pub(super) fn latents(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension() {
        Some(ending) if !ending.eq_ignore_ascii_case("safetensors") => Err(format!(
            "found a name that ends in .{}, expected .safetensors: latents are written, and the checkpoint's VAE decoder makes pictures of them",
            ending.display()
        )),
        _ => Ok(path),
    }
}

/// A name of a preset.
///
/// # Errors
/// A name that there is not.
pub(super) fn preset(name: &str) -> Result<String, String> {
    match presets().contains(&name) {
        true => Ok(name.into()),
        false => Err(format!("expected one of {}", presets().join(", "))),
    }
}

/// A path for a video.
///
/// # Errors
/// A name that says no format of videos.
pub(super) fn video(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    VideoOutput::check(&path).map(|()| path)
}

/// A path for a moving picture.
///
/// # Errors
/// A name that says no format of videos.
pub(super) fn moving(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if is_video(&path) { Ok(path) } else { Err(format!("expected {NAMES}")) }
}

/// The greatest strength of guidance that is taken: far above any that makes a picture.
const MOST_GUIDANCE: f64 = 1000.0;

/// `G`, or `G,G2` of two transformers.
#[derive(Clone, Copy)]
pub(super) struct Guidance(pub(super) f64, pub(super) Option<f64>);

impl FromStr for Guidance {
    type Err = Problem;
    fn from_str(text: &str) -> Result<Self, Problem> {
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|g| (0.0..=MOST_GUIDANCE).contains(g));
        let read = match text.split_once(',') {
            None => number(text).map(|g| Guidance(g, None)),
            Some((high, low)) => number(high).zip(number(low)).map(|(high, low)| Guidance(high, Some(low))),
        };
        read.ok_or_else(|| Problem {
            place: "guidance".into(),
            found: quoted(text),
            expected: format!(
                "a number from 0 to {MOST_GUIDANCE}, such as 5; or two, such as 4,3, for two transformers"
            ),
        })
    }
}

/// Frames a second.
///
/// # Errors
/// What is no number from 0.01 to 1000.
pub(super) fn fps(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|fps| (0.01..=1000.0).contains(fps));
    number.ok_or_else(|| format!("found {text:?}, expected frames a second, from 0.01 to 1000"))
}

/// A path that must end in `.svg`.
///
/// # Errors
/// One that does not.
pub(super) fn svg(text: &str) -> Result<PathBuf, String> {
    ending(text, "svg")
}

/// A path of a page, which must end in `.html`.
///
/// # Errors
/// One that does not.
pub(super) fn html(text: &str) -> Result<PathBuf, String> {
    ending(text, "html")
}

fn ending(text: &str, extension: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension() {
        Some(found) if found.eq_ignore_ascii_case(extension) => Ok(path),
        _ => Err(format!("expected a name that ends in .{extension}: that is what is written")),
    }
}
