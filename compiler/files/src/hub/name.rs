//! Names of repositories on the hub.

use std::fmt;
use std::path::{Component, Path};

/// The name of a repository on the hub: `OWNER/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryName {
    owner: String,
    name: String,
}

/// Endings of files and folders that people give in the place of a repository.
const FILES: [&str; 13] = [
    ".pt2",
    ".onnx",
    ".pt",
    ".pth",
    ".bin",
    ".ckpt",
    ".safetensors",
    ".gguf",
    ".json",
    ".zip",
    ".mlpackage",
    ".aimodel",
    ".s2",
];

impl RepositoryName {
    /// The name that a path spells, if nothing is there and it has the form of one.
    #[must_use]
    pub fn of(path: &Path) -> Option<RepositoryName> {
        if path.exists() {
            return None;
        }
        let parts: Vec<&str> = path
            .components()
            .map(|part| match part {
                Component::Normal(part) => part.to_str(),
                _ => None,
            })
            .collect::<Option<_>>()?;
        let is_word = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        match *parts.as_slice() {
            // A file that is not there is no repository.
            [_, name] if FILES.iter().any(|ending| name.ends_with(ending)) => None,
            [owner, name] if is_word(owner) && is_word(name) => {
                Some(RepositoryName { owner: owner.to_owned(), name: name.to_owned() })
            }
            _ => None,
        }
    }

    /// The folder of the repository in a cache.
    #[must_use]
    pub(super) fn folder(&self) -> String {
        format!("models--{}--{}", self.owner, self.name)
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        let name = |text: &str| RepositoryName::of(Path::new(text)).map(|name| name.to_string());
        assert_eq!(name("Wan-AI/Wan2.1-T2V-1.3B-Diffusers").as_deref(), Some("Wan-AI/Wan2.1-T2V-1.3B-Diffusers"));
        for path in ["one", "a/b/c", "/a/b", "./a/b", "../b", "a b/c", "src/lib.rs", "models/m.pt2", "out/m.onnx"] {
            assert_eq!(name(path), None, "{path}");
        }
    }
}
