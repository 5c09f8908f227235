//! A file of weights that is mapped into memory.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use s2dit_backends::input::{LFS_POINTER, check_regular, is_lfs_pointer};
use s2dit_backends::stamp::{Changed, Stamp};

use crate::problems::Problems;

/// A file that is mapped into memory, and what it was like when it was opened.
#[derive(Debug)]
pub struct Mapped {
    path: PathBuf,
    map: Mmap,
    stamp: Stamp,
}

impl Mapped {
    /// Maps a file; `expected` is what it should be, with its article.
    ///
    /// # Errors
    /// What is no regular file, is empty, is only git-lfs's pointer, or cannot be read.
    pub fn open(path: &Path, expected: &str) -> Result<Self, Problems> {
        let place = path.display().to_string();
        let unreadable = |error: std::io::Error| Problems::one(&place, error.to_string(), expected);
        // Before opening: a pipe would block.
        check_regular(path).map_err(unreadable)?;
        let file = File::open(path).map_err(unreadable)?;
        let meta = file.metadata().map_err(unreadable)?;
        if meta.len() == 0 {
            return Err(Problems::one(&place, "0 bytes", expected));
        }
        // SAFETY: the map is read-only and holds plain bytes. Another process that shortens the file while it is
        // mapped raises SIGBUS, which `output::on_signals` makes an error of; what was written over is found by the stamp.
        let map = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
        if is_lfs_pointer(&map) {
            return Err(Problems::one(&place, LFS_POINTER, expected));
        }
        // Tensors are read front to back, large ones whole. Only a hint.
        #[cfg(unix)]
        let _ = map.advise(memmap2::Advice::Sequential);
        Ok(Mapped { path: path.to_owned(), map, stamp: Stamp::of(path, &meta) })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Checks that nobody has written to the file since it was opened.
    ///
    /// # Errors
    /// Somebody has, or the path leads to another file now.
    pub fn check_unchanged(&self) -> Result<(), Changed> {
        self.stamp.check()
    }

    /// Says that these bytes are not needed again soon.
    pub fn drop_pages(&self, range: Range<usize>) {
        #[cfg(unix)]
        if !range.is_empty() {
            // SAFETY: the map is shared and read-only, so dropped pages come back from the file as they were.
            // Only a hint.
            let _ = unsafe {
                self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
            };
        }
    }
}
