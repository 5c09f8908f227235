//! Where an output goes, and what it may take the place of.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::OutputError;

/// Where an output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination<'a> {
    /// The path that was asked for.
    pub path: &'a Path,
    /// Replaces what this program did not make, too: `--force`.
    pub force: bool,
}

impl<'a> Destination<'a> {
    /// A path at which only what this program made is replaced.
    #[must_use]
    pub fn new(path: &'a Path) -> Self {
        Destination { path, force: false }
    }
}

/// What a folder of an output's kind has in it.
#[derive(Clone, Copy)]
pub struct Contents<'a> {
    /// What a person calls it: `a Core ML package`.
    pub kind: &'a str,
    /// The file without which it is none.
    pub marker: &'a str,
    /// Whether a file belongs to it, by its path below the folder, with `/` between the parts.
    pub part: &'a dyn Fn(&str) -> bool,
    /// Whether this program made the one at a path.
    pub ours: &'a dyn Fn(&Path) -> bool,
}

/// As many as Linux follows.
const MOST_LINKS: usize = 40;

/// Where a path leads: links at its end followed, also one that leads to nothing yet.
pub(super) fn follow(asked: &Path) -> Result<PathBuf, OutputError> {
    // Without a separator at the end, behind which the system would look for a folder.
    let mut at: PathBuf = asked.components().collect();
    let failed = |error| Err(OutputError::Io { path: asked.into(), error });
    for _ in 0..MOST_LINKS {
        match fs::read_link(&at) {
            Ok(target) => at = parent(&at).unwrap_or(Path::new(".")).join(target),
            // Found now, not after the work.
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename => return failed(error),
            Err(_) => return Ok(at),
        }
    }
    failed(io::Error::other("a symbolic link that leads round in a circle"))
}

/// The folder that a path lies in; `None` for the root.
pub(super) fn parent(path: &Path) -> Option<&Path> {
    path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// Checks that a file may be put at `place`.
///
/// An empty file is always replaced, one that this program made as well, others by force.
pub(super) fn check_file(to: Destination<'_>, place: &Path, ours: &dyn Fn(&Path) -> bool) -> Result<(), OutputError> {
    let Ok(found) = fs::metadata(place) else { return Ok(()) };
    if !found.is_file() {
        let found = if found.is_dir() { "a folder" } else { "a device, pipe or socket" };
        return Err(OutputError::Occupied { path: to.path.into(), found: found.into(), expected: "a file".into() });
    }
    match found.len() == 0 || to.force || ours(place) {
        true => Ok(()),
        false => Err(OutputError::Foreign { path: to.path.into(), found: "a file" }),
    }
}

/// Checks that a folder may be put at `place`.
///
/// An empty folder is always replaced. One that holds `contents` and nothing else is if this program made it, or by force.
pub(super) fn check_folder(to: Destination<'_>, place: &Path, contents: &Contents<'_>) -> Result<(), OutputError> {
    let occupied = |found: String| {
        let expected = format!("a folder that is empty, or holds {} and nothing else", contents.kind);
        Err(OutputError::Occupied { path: to.path.into(), found, expected })
    };
    let Ok(found) = fs::metadata(place) else { return Ok(()) };
    if !found.is_dir() {
        return occupied("a file".into());
    }
    let io = |error| OutputError::Io { path: to.path.into(), error };
    if fs::read_dir(place).map_err(io)?.next().is_none() {
        return Ok(());
    }
    if let Some(foreign) = foreign(place, "", contents).map_err(io)? {
        return occupied(format!("`{}`", to.path.join(foreign).display()));
    }
    if !place.join(contents.marker).exists() {
        return occupied(format!("a folder without `{}`", contents.marker));
    }
    match to.force || (contents.ours)(place) {
        true => Ok(()),
        false => Err(OutputError::Foreign { path: to.path.into(), found: "a folder" }),
    }
}

/// The first file below a folder that is no part of it. Links are not followed: they are files under their own names.
fn foreign(root: &Path, below: &str, contents: &Contents<'_>) -> io::Result<Option<String>> {
    let mut entries = fs::read_dir(root.join(below))?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = if below.is_empty() { name.to_string() } else { format!("{below}/{name}") };
        if entry.file_type()?.is_dir() {
            if let Some(found) = foreign(root, &path, contents)? {
                return Ok(Some(found));
            }
        } else if !(contents.part)(&path) && name != FINDER {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// What macOS leaves in every folder that somebody looks at.
const FINDER: &str = ".DS_Store";
