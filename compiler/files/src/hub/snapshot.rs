//! A snapshot of a repository: what of it lies in the cache, and what the hub says that it has.

use std::fs;
use std::path::{Component, Path, PathBuf};

use s2dit_backends::input::read_text;

use super::fetch::{Listed, Listing};
use super::{Hub, RepositoryName};
use crate::problems::Problem;

/// The snapshot of the branch `main` of a repository. It may lack files, and be in no cache at all.
#[derive(Debug)]
pub struct Snapshot<'a> {
    pub(super) hub: &'a Hub,
    pub(super) name: RepositoryName,
    /// The cache.
    pub(super) cache: PathBuf,
    /// The commit that the cache's `refs/main` names, or that the hub has.
    commit: Option<String>,
    /// Why the cache has no snapshot, if it has none.
    absent: Option<String>,
    listing: Option<Listing>,
}

impl<'a> Snapshot<'a> {
    /// Looks for a repository in the cache.
    ///
    /// # Errors
    /// No cache: the environment names neither it nor a home.
    pub fn find(hub: &'a Hub, name: &RepositoryName) -> Result<Snapshot<'a>, Problem> {
        let Some(cache) = hub.cache.clone() else {
            return Err(Problem {
                place: name.to_string(),
                found: "no folder for the cache of the Hugging Face hub: neither HF_HOME nor HOME is set".into(),
                expected: "a path, or one of the two".into(),
            });
        };
        let reference = cache.join(name.folder()).join("refs/main");
        let commit = read_text(&reference, 1 << 10).ok().map(|text| text.trim().to_owned());
        let commit = commit.filter(|text| is_commit(text));
        let mut snapshot = Snapshot { hub, name: name.clone(), cache, commit, absent: None, listing: None };
        snapshot.absent = if !snapshot.repository().is_dir() {
            Some(format!("nothing there, and no such repository in `{}`", snapshot.cache.display()))
        } else if !reference.is_file() {
            Some(format!("no `{}`", reference.display()))
        } else if !snapshot.path().is_some_and(|path| path.is_dir()) {
            Some(format!("no snapshot of the commit that `{}` names", reference.display()))
        } else {
            None
        };
        Ok(snapshot)
    }

    /// The folder of the repository in the cache.
    pub(super) fn repository(&self) -> PathBuf {
        self.cache.join(self.name.folder())
    }

    /// The folder of the snapshot, if its commit is known; nothing may be there yet.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        Some(self.repository().join("snapshots").join(self.commit.as_ref()?))
    }

    /// Whether a file is in the cache. A link to a blob that is gone is none.
    #[must_use]
    pub fn has(&self, file: &str) -> bool {
        self.path().is_some_and(|path| path.join(file).is_file())
    }

    /// Whether a file is in the cache or, if the hub has been asked what the repository holds, in its list.
    #[must_use]
    pub fn knows(&self, file: &str) -> bool {
        self.has(file) || self.listed(file).is_some()
    }

    pub(super) fn listed(&self, file: &str) -> Option<&Listed> {
        self.listing.as_ref()?.files.iter().find(|listed| listed.name == file)
    }

    /// Names of the files that the repository holds, as the hub says; none if it has not been asked.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.listing.iter().flat_map(|listing| &listing.files).map(|listed| listed.name.as_str())
    }

    /// Asks the hub what the repository holds, once.
    ///
    /// # Errors
    /// Nothing may be asked (`missing` is then what is said to be missing), or what goes wrong with the hub.
    pub fn ask(&mut self, missing: &[&str]) -> Result<(), Problem> {
        if self.listing.is_some() {
            return Ok(());
        }
        if self.hub.offline.is_some() {
            return Err(self.missing(missing));
        }
        let listing = self.list(self.commit.as_deref().unwrap_or("main"))?;
        self.commit.get_or_insert_with(|| listing.commit.clone());
        self.listing = Some(listing);
        Ok(())
    }

    /// A problem of files that the cache lacks and nothing may be fetched, with the ways out.
    fn missing(&self, files: &[&str]) -> Problem {
        let snapshot = self.path();
        let link = |file: &&str| {
            let path = snapshot.as_ref()?.join(file);
            let blob = fs::read_link(&path).ok()?;
            Some(format!("`{}` is a link to `{}`, which is gone", path.display(), blob.display()))
        };
        let found = match (&self.absent, files.iter().find_map(link)) {
            (Some(absent), _) => absent.clone(),
            (None, Some(gone)) => gone,
            (None, None) => {
                let snapshot = snapshot.map(|path| path.display().to_string()).unwrap_or_default();
                let none = match files {
                    [one] => format!("no {one}"),
                    several => format!("neither {}", several.join(" nor ")),
                };
                format!("{none} in its snapshot `{snapshot}`")
            }
        };
        let said = self.hub.offline.unwrap_or_default();
        // One pattern: versions of `hf` take several in different ways. Text and image encoders are the large files that are not needed.
        let expected = format!(
            "a checkpoint, or a repository in the cache of the Hugging Face hub: `hf download {} --exclude \"*encoder*/*\"` fetches it, and so \
             does s2ditc without {said}",
            self.name
        );
        Problem { place: self.name.to_string(), found, expected }
    }
}

/// Whether a text is the hash of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a file of a repository stays in the folder of its snapshot.
pub(super) fn is_inside(file: &str) -> bool {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    !file.is_empty() && !file.contains(['\\', ':', '\0']) && Path::new(file).components().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_found_by_its_reference() {
        let cache = tempfile::tempdir().unwrap();
        let hub = Hub { cache: Some(cache.path().into()), offline: Some("--offline"), ..Hub::from_env(true) };
        let name = RepositoryName::of(Path::new("a/b")).unwrap();
        let problem = || Snapshot::find(&hub, &name).unwrap().ask(&["config.json"]).unwrap_err().to_string();
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
        assert!(problem().contains("no config.json in its snapshot"), "{}", problem());
        let found = Snapshot::find(&hub, &name).unwrap();
        assert_eq!(found.path(), Some(folder.join("snapshots/0a1b")));
        assert!(!found.has("config.json"));
        fs::write(folder.join("snapshots/0a1b/config.json"), "{}").unwrap();
        assert!(found.has("config.json") && !found.has("model_index.json"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_blob_that_is_gone_is_no_file() {
        let cache = tempfile::tempdir().unwrap();
        let hub = Hub { cache: Some(cache.path().into()), offline: Some("HF_HUB_OFFLINE"), ..Hub::from_env(true) };
        let name = RepositoryName::of(Path::new("a/b")).unwrap();
        let folder = cache.path().join("models--a--b");
        fs::create_dir_all(folder.join("snapshots/0a1b")).unwrap();
        fs::create_dir(folder.join("refs")).unwrap();
        fs::write(folder.join("refs/main"), "0a1b").unwrap();
        std::os::unix::fs::symlink("../../blobs/77", folder.join("snapshots/0a1b/config.json")).unwrap();
        let mut found = Snapshot::find(&hub, &name).unwrap();
        assert!(!found.has("config.json"));
        let said = found.ask(&["config.json"]).unwrap_err().to_string();
        for part in ["0a1b/config.json` is a link to `../../blobs/77`, which is gone", "without HF_HUB_OFFLINE"] {
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn names_that_lead_out_of_a_snapshot_are_told() {
        for (name, inside) in
            [("a/b.json", true), ("../a", false), ("/a", false), ("a/../../b", false), ("", false), ("c:\\a", false)]
        {
            assert_eq!(is_inside(name), inside, "{name}");
        }
    }
}
