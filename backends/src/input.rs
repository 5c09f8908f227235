//! Files from elsewhere, read whole: only regular files, and none that is larger than it may be.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Reads a file of at most `most` bytes.
///
/// # Errors
/// A folder; a device, pipe or socket, which might never end; a file that is larger or cannot be read.
pub fn read_file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    check_regular(path)?;
    let too_large = |size: u64| io::Error::other(format!("{size} bytes or more, where at most {most} make sense"));
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    if size > most {
        return Err(too_large(size));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    // A file may grow meanwhile, and those of `/proc` say that they have no bytes.
    file.by_ref().take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

/// Far above any description or contract: they have some hundred kilobytes. JSON takes up to 25 times its size in memory.
pub const LARGEST_JSON: u64 = 4 << 20;

/// Checks the size of JSON that lies inside another file.
///
/// # Errors
/// Text of more than [`LARGEST_JSON`] bytes.
pub fn check_json(text: &str) -> io::Result<()> {
    match text.len() as u64 {
        size if size > LARGEST_JSON => {
            Err(io::Error::other(format!("{size} bytes of JSON, where at most {LARGEST_JSON} make sense")))
        }
        _ => Ok(()),
    }
}

/// Reads a file of text, of at most `most` bytes.
///
/// # Errors
/// See [`read_file`]; bytes that are not UTF-8.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read_file(path, most)?)
        .map_err(|e| io::Error::other(format!("a byte that is not UTF-8 at {}", e.utf8_error().valid_up_to())))
}

/// Refuses what is no regular file, before anything opens it: opening a pipe waits for its writer.
///
/// # Errors
/// Nothing there; a folder; a device, pipe or socket.
pub fn check_regular(path: &Path) -> io::Result<()> {
    let meta = std::fs::metadata(path)?;
    match meta.is_file() {
        true => Ok(()),
        false if meta.is_dir() => Err(io::Error::other("a folder, not a file")),
        false => Err(io::Error::other("a device, pipe or socket, not a file")),
    }
}

/// Whether a file is only git-lfs's note of what should be here.
pub fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs.github.com/spec/")
}

/// The end of an error about a git-lfs pointer: what it is and what to do.
pub const LFS_POINTER: &str = "a git-lfs pointer, not the file itself (`git lfs pull` fetches it)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_a_sensible_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"1234").unwrap();
        assert_eq!(read_file(&path, 4).unwrap(), b"1234");
        assert!(read_file(&path, 3).unwrap_err().to_string().contains("at most 3"));
        assert!(read_file(dir.path(), 3).unwrap_err().to_string().contains("a folder"));
        assert!(read_file(&dir.path().join("none"), 3).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn endless_files_are_not_read() {
        assert!(read_file(Path::new("/dev/zero"), 3).unwrap_err().to_string().contains("a device"));
    }
}
