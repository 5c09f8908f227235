//! What is wrong with a command line and only a command can see.

use std::path::PathBuf;

/// Options that do not go together, or do nothing here: exit code 2, as for what the parser refuses.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

/// Fails with [`Usage`], as `bail!` does with any error.
macro_rules! refuse {
    ($($message:tt)*) => { return Err($crate::cli::usage::Usage(format!($($message)*)).into()) };
}
pub(super) use refuse;

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
