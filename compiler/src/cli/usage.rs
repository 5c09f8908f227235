//! Errors of the command line that only a command can see, and not the parser.

use std::path::PathBuf;

use s2dit_files::parse_size;
use s2dit_files::problems::Problem;

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

/// Endings of what latents are not: video, pictures and the arrays of other tools.
const NO_LATENTS: [&str; 16] =
    ["mp4", "m4v", "mov", "avi", "mkv", "webm", "gif", "png", "apng", "jpg", "jpeg", "webp", "npy", "npz", "pt", "pth"];

/// A path for latents, which are written as safetensors.
///
/// # Errors
/// A name that says another format.
pub(super) fn latents(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let says = |ending: &&&str| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending));
    match NO_LATENTS.iter().find(says) {
        None => Ok(path),
        Some(ending) => Err(format!(
            "found a name that ends in .{ending}, expected .safetensors: latents are written, and the checkpoint's VAE decoder makes \
             pictures of them"
        )),
    }
}

/// A path that must end in `.gif`.
///
/// # Errors
/// One that does not.
pub(super) fn gif(text: &str) -> Result<PathBuf, String> {
    ending(text, "gif")
}

/// A path that must end in `.svg`.
///
/// # Errors
/// One that does not.
pub(super) fn svg(text: &str) -> Result<PathBuf, String> {
    ending(text, "svg")
}

fn ending(text: &str, extension: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension() {
        Some(found) if found.eq_ignore_ascii_case(extension) => Ok(path),
        _ => Err(format!("expected a name that ends in .{extension}: that is what is written")),
    }
}
