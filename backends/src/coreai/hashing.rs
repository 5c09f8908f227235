//! SHA-256 of a file that several threads write at several places, computed meanwhile.
//!
//! ```text
//! written   ██████████████░░██░░░░░██
//! hashed    ████████
//! ```
//! The hash needs the bytes in order. A thread of its own follows: it maps what is written without a gap from the start, which the system still has in memory. Mapped, it is
//! not copied.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Condvar, Mutex, PoisonError};

use anyhow::{Result, bail};
use memmap2::MmapOptions;
use sha2::{Digest, Sha256};

use crate::fill::{read_at, write_at};

/// Bytes that are hashed at once.
const AT_ONCE: usize = 1 << 23;

/// A file that is being written and hashed.
pub(super) struct Hashing<'f> {
    file: &'f File,
    written: Mutex<Written>,
    more: Condvar,
}

/// What of a file is written.
#[derive(Default)]
struct Written {
    /// The end of what is written without a gap from the start.
    whole: u64,
    /// What is written behind a gap: where it begins and where it ends.
    later: BTreeMap<u64, u64>,
    /// Nothing more comes.
    over: bool,
}

impl Written {
    fn add(&mut self, at: u64, len: u64) {
        self.later.insert(at, at + len);
        while let Some(next) = self.later.first_entry().filter(|next| *next.key() <= self.whole) {
            self.whole = self.whole.max(next.remove());
        }
    }
}

impl Hashing<'_> {
    /// The file. Who writes to it says so with [`Hashing::wrote`].
    pub(super) fn file(&self) -> &File {
        self.file
    }

    /// Writes bytes at an offset.
    pub(super) fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        write_at(self.file, bytes, at)?;
        self.wrote(at, bytes.len() as u64);
        Ok(())
    }

    /// Notes that `len` bytes were written at an offset.
    pub(super) fn wrote(&self, at: u64, len: u64) {
        self.change(|written| written.add(at, len));
    }

    fn change(&self, change: impl FnOnce(&mut Written)) {
        change(&mut self.written.lock().unwrap_or_else(PoisonError::into_inner));
        self.more.notify_one();
    }

    /// The hash of the first `bytes` bytes, as they come to be written; `None` if the end comes before.
    fn follow(&self, bytes: u64) -> io::Result<Option<[u8; 32]>> {
        let (mut hasher, mut at) = (Sha256::new(), 0);
        while at < bytes {
            let end = bytes.min(at + AT_ONCE as u64);
            let waits = |written: &mut Written| written.whole < end && !written.over;
            let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            let whole = self.more.wait_while(written, waits).unwrap_or_else(PoisonError::into_inner).whole;
            if whole < end {
                return Ok(None);
            }
            self.hash(at, (end - at) as usize, &mut hasher)?;
            at = end;
        }
        Ok(Some(hasher.finalize().into()))
    }

    /// Hashes `len` bytes at an offset that are written.
    fn hash(&self, at: u64, len: usize, hasher: &mut Sha256) -> io::Result<()> {
        // SAFETY: these bytes are written and do not change; nobody else knows the file yet, which is as long as it will be.
        if let Ok(part) = unsafe { MmapOptions::new().offset(at).len(len).populate().map(self.file) } {
            hasher.update(&part);
            return Ok(());
        }
        // Some file systems have no maps.
        let mut part = vec![0; len];
        read_at(self.file, &mut part, at)?;
        hasher.update(&part);
        Ok(())
    }
}

/// Ends the hashing, also where the writing panics.
struct Over<'a, 'f>(&'a Hashing<'f>);

impl Drop for Over<'_, '_> {
    fn drop(&mut self) {
        self.0.change(|written| written.over = true);
    }
}

/// Lets `write` write all `bytes` bytes of a file; returns their SHA-256.
///
/// # Errors
/// That of `write`; bytes that cannot be read again, or that were never written.
pub(super) fn while_writing(
    file: &File,
    bytes: u64,
    write: impl FnOnce(&Hashing<'_>) -> Result<()>,
) -> Result<[u8; 32]> {
    let hashing = Hashing { file, written: Mutex::default(), more: Condvar::new() };
    std::thread::scope(|scope| {
        let hash = scope.spawn(|| hashing.follow(bytes));
        let over = Over(&hashing);
        let written = write(&hashing);
        drop(over);
        let hash = hash.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written?;
        match hash? {
            Some(hash) => Ok(hash),
            None => bail!("not all of the {bytes} bytes were written"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(bytes: u64, write: impl FnOnce(&Hashing<'_>) -> Result<()>) -> Result<[u8; 32]> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        while_writing(&file, bytes, write)
    }

    /// Parts in any order, from several threads, with one that is twice as large as what is read at once.
    #[test]
    fn parts_in_any_order_have_the_hash_of_the_whole() {
        let whole: Vec<u8> = (0..5 * AT_ONCE + 3).map(|i| ((i * 7919) >> 5) as u8).collect();
        let cuts = [0, 1, AT_ONCE, 3 * AT_ONCE, 3 * AT_ONCE + 17, whole.len()];
        let parts: Vec<(u64, &[u8])> = cuts.windows(2).map(|w| (w[0] as u64, &whole[w[0]..w[1]])).collect();
        for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]] {
            let found = hashed(whole.len() as u64, |out| {
                std::thread::scope(|scope| {
                    let (first, second) = order.split_at(2);
                    for half in [first, second] {
                        scope.spawn(|| half.iter().for_each(|&i| out.write(parts[i].1, parts[i].0).unwrap()));
                    }
                });
                Ok(())
            });
            assert_eq!(found.unwrap(), <[u8; 32]>::from(Sha256::digest(&whole)));
        }
        assert_eq!(hashed(0, |_| Ok(())).unwrap(), <[u8; 32]>::from(Sha256::digest([])));
    }

    #[test]
    fn a_gap_and_a_failure_are_errors() {
        let gap = hashed(10, |out| Ok(out.write(&[1; 4], 6)?)).unwrap_err();
        assert!(gap.to_string().contains("not all of the 10 bytes were written"), "{gap}");
        let failed = hashed(10, |_| bail!("a full disk")).unwrap_err();
        assert!(failed.to_string().contains("a full disk"), "{failed}");
    }
}
