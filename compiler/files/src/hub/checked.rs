//! What a downloaded file must be: the size and the hash that the hub says.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What is wrong with a downloaded file; `None` if nothing is.
///
/// The entity tag of a file is, in hexadecimal digits, the SHA-256 of a large file or git's hash of a small one: the SHA-1 of `blob SIZE`, a zero and the bytes. A
/// tag of another form says nothing, and the size alone is compared.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn fault(path: &Path, size: u64, tag: &str) -> io::Result<Option<String>> {
    let found = path.metadata()?.len();
    if found != size {
        return Ok(Some(format!("{found} of {size} bytes")));
    }
    let is_hash = tag.bytes().all(|byte| byte.is_ascii_hexdigit());
    let hash = match tag.len() {
        64 if is_hash => hash::<Sha256>(path, &[])?,
        40 if is_hash => hash::<Sha1>(path, format!("blob {size}\0").as_bytes())?,
        _ => return Ok(None),
    };
    Ok((!hash.eq_ignore_ascii_case(tag)).then(|| format!("bytes with the hash {hash}, where the hub says {tag}")))
}

/// The hash of `before` and a file's bytes, in hexadecimal digits.
fn hash<D: Digest>(path: &Path, before: &[u8]) -> io::Result<String> {
    let mut digest = D::new();
    digest.update(before);
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => digest.update(&buffer[..n]),
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hashes are those of `printf hello | git hash-object --stdin` and `printf hello | sha256sum`.
    #[test]
    fn sizes_and_hashes_are_those_of_git_and_sha256sum() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hello").unwrap();
        let found = |size, tag: &str| fault(file.path(), size, tag).unwrap();
        let git = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";
        let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        for tag in [git, sha256, "another form"] {
            assert_eq!(found(5, tag), None, "{tag}");
        }
        assert_eq!(found(6, git).as_deref(), Some("5 of 6 bytes"));
        let wrong = |tag: &str| found(5, &tag.replace('b', "c")).unwrap();
        assert!(wrong(git).contains(git) && wrong(sha256).contains(sha256));
    }
}
