//! The cache of the Hugging Face hub: snapshots of repositories that its own tools fetched, found by name. Nothing is fetched here.
//!
//! `CACHE/models--OWNER--NAME/refs/main` names a commit, and `snapshots/COMMIT` holds its files (see *Understand caching* in the
//! documentation of `huggingface_hub`).

use std::env;
use std::path::{Component, Path, PathBuf};

use s2dit_backends::input::read_text;

use crate::problems::Problem;

/// The snapshot of a repository in the cache.
///
/// # Errors
/// No cache, no such repository in it, or no snapshot of its branch `main`: the problem names what is missing and the command that
/// fetches it.
pub fn snapshot(name: &RepositoryName) -> Result<PathBuf, Problem> {
    let Some(cache) = cache(|key| env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from)) else {
        return Err(
            name.missing("no folder for the cache of the Hugging Face hub: neither HF_HOME nor HOME is set".into())
        );
    };
    snapshot_in(&cache, name)
}

fn snapshot_in(cache: &Path, name: &RepositoryName) -> Result<PathBuf, Problem> {
    let folder = cache.join(format!("models--{}--{}", name.owner, name.name));
    if !folder.is_dir() {
        return Err(name.missing(format!("nothing there, and no such repository in `{}`", cache.display())));
    }
    let reference = folder.join("refs/main");
    let Ok(commit) = read_text(&reference, 1 << 10) else {
        return Err(name.missing(format!("no `{}`", reference.display())));
    };
    let commit = commit.trim();
    let hexadecimal = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    let snapshot = folder.join("snapshots").join(commit);
    match hexadecimal && snapshot.is_dir() {
        true => Ok(snapshot),
        false => Err(name.missing(format!("no snapshot of the commit that `{}` names", reference.display()))),
    }
}

/// The folder of the cache, as `huggingface_hub` chooses it.
fn cache(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if let Some(cache) = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")) {
        return Some(cache);
    }
    let home = variable("HF_HOME").or_else(|| Some(variable("XDG_CACHE_HOME")?.join("huggingface")));
    let home =
        home.or_else(|| Some(variable("HOME").or_else(|| variable("USERPROFILE"))?.join(".cache/huggingface")))?;
    Some(home.join("hub"))
}

/// The name of a repository on the hub: `OWNER/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryName {
    owner: String,
    name: String,
}

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
        match parts.as_slice() {
            &[owner, name] if is_word(owner) && is_word(name) => {
                Some(RepositoryName { owner: owner.to_owned(), name: name.to_owned() })
            }
            _ => None,
        }
    }

    /// A problem of what is not in the cache, with the command that fetches it.
    #[must_use]
    pub fn missing(&self, found: String) -> Problem {
        let name = format!("{}/{}", self.owner, self.name);
        // One pattern: versions of `hf` take several in different ways. Text and image encoders are the large files that are not needed.
        let expected = format!(
            "a checkpoint, or a repository in the cache of the Hugging Face hub: `hf download {name} --exclude \"*encoder*/*\"` fetches it"
        );
        Problem { place: name, found, expected }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        let name = |text: &str| RepositoryName::of(Path::new(text)).map(|name| format!("{}/{}", name.owner, name.name));
        assert_eq!(name("Wan-AI/Wan2.1-T2V-1.3B-Diffusers").as_deref(), Some("Wan-AI/Wan2.1-T2V-1.3B-Diffusers"));
        for path in ["one", "a/b/c", "/a/b", "./a/b", "../b", "a b/c", "src/lib.rs"] {
            assert_eq!(name(path), None, "{path}");
        }
    }

    #[test]
    fn the_cache_is_where_the_tools_of_the_hub_have_it() {
        let of = |set: &[(&str, &str)]| {
            let set: Vec<(String, PathBuf)> = set.iter().map(|(k, v)| ((*k).to_owned(), PathBuf::from(v))).collect();
            cache(|key| set.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone()))
        };
        let all = [("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")];
        assert_eq!(of(&all), Some("/c".into()));
        assert_eq!(of(&all[..3]), Some("/f/hub".into()));
        assert_eq!(of(&all[..2]), Some("/x/huggingface/hub".into()));
        assert_eq!(of(&all[..1]), Some("/h/.cache/huggingface/hub".into()));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_snapshot_is_found_by_its_reference() {
        let cache = tempfile::tempdir().unwrap();
        let name = RepositoryName { owner: "a".into(), name: "b".into() };
        let problem = || snapshot_in(cache.path(), &name).unwrap_err().to_string();
        assert!(problem().contains("no such repository") && problem().contains("hf download a/b"), "{}", problem());
        let folder = cache.path().join("models--a--b");
        fs::create_dir_all(folder.join("snapshots/0a1b")).unwrap();
        assert!(problem().contains("refs/main"), "{}", problem());
        fs::create_dir(folder.join("refs")).unwrap();
        for commit in ["ffff", "../../x", ""] {
            fs::write(folder.join("refs/main"), commit).unwrap();
            assert!(problem().contains("no snapshot"), "{}", problem());
        }
        fs::write(folder.join("refs/main"), "0a1b\n").unwrap();
        assert_eq!(snapshot_in(cache.path(), &name).unwrap(), folder.join("snapshots/0a1b"));
    }
}
