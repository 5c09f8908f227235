//! Whether a file is still what it was when it was opened: a source that another process writes over while it is read would give an
//! output that is neither of the two.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file that another process changed while it was in use.
#[derive(Debug, thiserror::Error)]
#[error("`{path}`: found a file that changed while it was being read ({what}), expected one that stays as it is; run this again", path = path.display())]
pub struct Changed {
    /// The file.
    pub path: PathBuf,
    /// What is different.
    pub what: String,
}

/// What a file was like at one moment.
#[derive(Clone, Debug)]
pub struct Stamp {
    path: PathBuf,
    size: u64,
    modified: Option<SystemTime>,
    identity: Identity,
}

/// Which file it is, and when the system last changed its record: device, inode, seconds, nanoseconds. The last two tell of a writer
/// that put the time of modification back.
#[cfg(unix)]
type Identity = (u64, u64, i64, i64);
#[cfg(not(unix))]
type Identity = ();

impl Stamp {
    /// The file as it is now.
    ///
    /// # Errors
    /// The file's metadata cannot be read.
    pub fn now(path: &Path) -> io::Result<Stamp> {
        Ok(Stamp::of(path, &std::fs::metadata(path)?))
    }

    /// The file as its metadata has it: that of an open file, if it is to be the very one that is read.
    #[must_use]
    pub fn of(path: &Path, meta: &Metadata) -> Stamp {
        Stamp { path: path.into(), size: meta.len(), modified: meta.modified().ok(), identity: identity(meta) }
    }

    /// Checks that the path still leads to the same file, and that nobody has written to it.
    ///
    /// # Errors
    /// What is different.
    pub fn check(&self) -> Result<(), Changed> {
        let changed = |what: String| Err(Changed { path: self.path.clone(), what });
        let now = match Stamp::now(&self.path) {
            Ok(now) => now,
            Err(error) => return changed(error.to_string()),
        };
        if now.size != self.size {
            return changed(format!("{} bytes, then {}", self.size, now.size));
        }
        match (now.modified, now.identity) == (self.modified, self.identity) {
            true => Ok(()),
            false => changed("of the same size, written anew".into()),
        }
    }
}

#[cfg(unix)]
fn identity(meta: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    (meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec())
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> Identity {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::time::Duration;

    type Change = fn(&Path);

    #[test]
    fn every_kind_of_change_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let changes: [(&str, Change); 4] = [
            ("another size", |path| fs::write(path, b"longer").unwrap()),
            ("another file", |path| {
                let new = path.with_extension("new");
                fs::write(&new, b"four").unwrap();
                fs::rename(new, path).unwrap();
            }),
            ("the same size, the time put back", |path| {
                let before = fs::metadata(path).unwrap().modified().unwrap();
                // Longer than the clock of the file system takes to move on.
                std::thread::sleep(Duration::from_millis(50));
                fs::write(path, b"FOUR").unwrap();
                File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
            }),
            ("nothing there", |path| fs::remove_file(path).unwrap()),
        ];
        for (what, change) in changes {
            fs::write(&path, b"four").unwrap();
            let stamp = Stamp::now(&path).unwrap();
            stamp.check().unwrap();
            change(&path);
            let said = stamp.check().expect_err(what).to_string();
            assert!(said.contains("x`") && said.contains("changed while"), "{what}: {said}");
        }
    }
}
