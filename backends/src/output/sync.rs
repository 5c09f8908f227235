//! Bringing outputs to the disk: a rename may reach the disk before the data does, and a machine that loses power in between has an
//! empty file under the right name.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

static SYNC: AtomicBool = AtomicBool::new(true);

/// Whether outputs wait for the disk, as they do unless this was called with `false`. Without it they are still whole or not there
/// whatever happens to this process, but not if the machine stops.
pub fn set_sync(on: bool) {
    SYNC.store(on, Ordering::Relaxed);
}

/// Brings a file, or a folder with all that is in it, to the disk.
pub(super) fn tree(path: &Path) -> io::Result<()> {
    if !SYNC.load(Ordering::Relaxed) {
        return Ok(());
    }
    let meta = fs::symlink_metadata(path)?;
    if meta.is_file() {
        // Windows flushes only what is open for writing.
        return OpenOptions::new().read(true).write(cfg!(windows)).open(path)?.sync_all();
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            tree(&entry?.path())?;
        }
        return folder(path);
    }
    Ok(())
}

/// Brings the names in a folder to the disk.
#[cfg(unix)]
pub(super) fn folder(path: &Path) -> io::Result<()> {
    if !SYNC.load(Ordering::Relaxed) {
        return Ok(());
    }
    match fs::File::open(path)?.sync_all() {
        // File systems that cannot do this for folders say that the call makes no sense.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
        done => done,
    }
}

#[cfg(not(unix))]
pub(super) fn folder(_: &Path) -> io::Result<()> {
    Ok(())
}
