//! Names of staging paths, and what processes that were killed left behind under them.

use std::ffi::OsStr;
#[cfg(unix)]
use std::{fs, path::Path};

/// Bytes of an output's name that its staging name repeats: with what goes around them, the whole stays below the 255 that file
/// systems allow.
const REPEATED: usize = 180;

/// What the staging names of the output `name` start with; the number of the writing process follows. A long name is cut, and a hash
/// of the whole tells it from its likes.
pub(super) fn prefix(name: &OsStr) -> String {
    let text = name.to_string_lossy();
    if name.len() <= REPEATED && name.to_str().is_some() {
        return format!(".{text}.partial-");
    }
    let hash = blake3::hash(name.as_encoded_bytes()).to_hex();
    format!(".{}-{}.partial-", &text[..text.floor_char_boundary(REPEATED)], &hash[..16])
}

/// Removes what processes that were killed left behind when they wrote the same output: staging paths whose process
/// is dead, and that no process holds locked (it may be one of another container, whose numbers mean nothing here).
#[cfg(unix)]
pub(super) fn sweep(parent: &Path, prefix: &str) {
    use rustix::process::{Pid, test_kill_process};
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.as_encoded_bytes().strip_prefix(prefix.as_bytes());
        let pid = pid.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).and_then(Pid::from_raw);
        let dead = pid.is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH));
        // Opening a pipe would block.
        if !dead || !entry.file_type().is_ok_and(|ty| ty.is_file() || ty.is_dir()) {
            continue;
        }
        let path = entry.path();
        if let Ok(file) = fs::File::open(&path)
            && file.try_lock().is_ok()
        {
            let _ = super::remove(&path);
        }
    }
}
