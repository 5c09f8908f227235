//! Downloads: what a repository holds, and the files of it that a snapshot lacks.

use std::error::Error as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use s2dit_backends::output::free_bytes;
use serde::Deserialize;

use super::checked;
use super::snapshot::{Snapshot, is_commit, is_inside};
use crate::problems::{Problem, quoted, shown};

/// The folder of a cache in which downloads grow.
const STAGING: &str = ".s2ditc";
/// Times that an interrupted download goes on by itself.
const RETRIES: usize = 3;
/// Limit for the list of a repository's files.
const LARGEST_LIST: u64 = 16 << 20;

/// What a repository holds at a commit.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    #[serde(rename = "sha")]
    pub(super) commit: String,
    #[serde(rename = "siblings")]
    pub(super) files: Vec<Listed>,
}

/// A file of a repository.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    #[serde(rename = "rfilename")]
    pub(super) name: String,
    /// Bytes, if the hub says it.
    #[serde(default)]
    size: u64,
}

/// What a download is about.
#[derive(Clone, Copy, Debug)]
pub enum Fetching<'a> {
    /// It begins.
    Begins {
        /// Files.
        files: usize,
        /// Their bytes.
        bytes: u64,
        /// The hub.
        from: &'a str,
        /// The cache.
        to: &'a Path,
    },
    /// So many bytes of so many are there.
    Bytes(u64, u64),
}

impl Snapshot<'_> {
    /// Asks the hub for the files of a revision.
    pub(super) fn list(&self, revision: &str) -> Result<Listing, Problem> {
        let repo = self.api(revision)?;
        let request = repo.info_request().query("blobs", "true");
        let answer = request.call().map_err(|error| self.refused(&Box::new(error).into(), None))?;
        let text = answer.into_body().into_with_config().limit(LARGEST_LIST).read_to_string();
        let text = text.map_err(|error| self.refused(&Box::new(error).into(), None))?;
        let listing: Listing = serde_json::from_str(&text)
            .map_err(|error| self.odd(&format!("an answer that is no list of files ({error})")))?;
        match is_commit(&listing.commit) {
            true => Ok(listing),
            false => Err(self.odd(&format!("the commit {}", quoted(&listing.commit)))),
        }
    }

    /// Puts files into the snapshot. A file that is there already is passed over.
    ///
    /// # Errors
    /// A file that the repository does not hold; what goes wrong on the way. The snapshot then has the files that came whole.
    pub fn fetch(&mut self, files: &[String], watch: &mut dyn FnMut(Fetching<'_>)) -> Result<(), Problem> {
        let wanted: Vec<&str> = files.iter().map(String::as_str).filter(|file| !self.has(file)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        self.ask(&wanted)?;
        let problem = |file: &str, found: &str, expected: &str| Problem {
            place: format!("{}: {}", self.name, shown(file)),
            found: found.into(),
            expected: expected.into(),
        };
        let mut total = 0;
        for file in &wanted {
            let Some(listed) = self.listed(file).filter(|_| is_inside(file)) else {
                return Err(problem(file, "no such file in the repository", "one that the files beside it name"));
            };
            total += listed.size;
        }
        let path = self.path().unwrap_or_default();
        let failed =
            |error: &io::Error| problem(&path.display().to_string(), &error.to_string(), "a folder to write to");
        fs::create_dir_all(self.staging()).and_then(|()| fs::create_dir_all(&path)).map_err(|error| failed(&error))?;
        if let Some(free) = free_bytes(&path).filter(|free| *free < total) {
            let (place, found) = (self.cache.display().to_string(), format!("{free} bytes free"));
            return Err(Problem { place, found, expected: format!("room for {total} bytes of {}", self.name) });
        }
        watch(Fetching::Begins { files: wanted.len(), bytes: total, from: &self.hub.endpoint, to: &self.cache });
        let mut before = 0;
        for file in wanted {
            let size = self
                .download(file, &path, &mut |done| watch(Fetching::Bytes(before + done, total.max(before + done))))?;
            before += size;
        }
        // Downloads are whole: what is left in the folder is of no use.
        let _ = fs::remove_dir_all(self.staging().join(self.name.folder()));
        let _ = fs::remove_dir(self.staging());
        let commit = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match self.repository().join("refs/main").exists() {
            true => Ok(()),
            false => {
                self.repo(&Cache::new(self.cache.clone()), "main").create_ref(&commit).map_err(|error| failed(&error))
            }
        }
    }

    /// Downloads a file, checks it and moves it into the snapshot; returns its size. `watch` is told how many of its bytes are there.
    fn download(&self, file: &str, snapshot: &Path, watch: &mut dyn FnMut(u64)) -> Result<u64, Problem> {
        let revision = snapshot.file_name().unwrap_or_default().to_string_lossy();
        let repo = self.api(&revision)?;
        let staged = self.repo(&Cache::new(self.staging()), &revision);
        let mut attempt = 0;
        let (size, tag) = loop {
            let done = self.metadata(file, &revision).and_then(|(size, tag)| {
                // What is as long as the file, and was not moved, is not the file; and no server sends what lies behind its end.
                let part = staged.blob_path(&tag).with_extension("part");
                if part.metadata().is_ok_and(|meta| meta.len() >= size) {
                    fs::remove_file(&part)?;
                }
                // Links of before, whose blobs were moved.
                let _ = fs::remove_dir_all(self.staging().join(self.name.folder()).join("snapshots"));
                let watch = Count { watch: &mut *watch, done: 0 };
                repo.download_with_progress(file, watch).map(|_| (size, tag))
            });
            match done {
                Ok(done) => break done,
                Err(error) if attempt < RETRIES && is_interruption(&error) => attempt += 1,
                Err(error) => return Err(self.refused(&error, Some(file))),
            }
        };
        let blob = staged.blob_path(&tag);
        self.place(&blob, size, &tag, &snapshot.join(file)).map_err(|found| {
            let _ = fs::remove_file(&blob);
            Problem {
                place: format!("{}: {}", self.name, shown(file)),
                found,
                expected: "the file that the hub says: nothing of it was kept, and the same command fetches it anew"
                    .into(),
            }
        })?;
        Ok(size)
    }

    /// Moves a downloaded file to its place, if it is what the hub says.
    fn place(&self, blob: &Path, size: u64, tag: &str, to: &Path) -> Result<(), String> {
        let text = |error: io::Error| error.to_string();
        if let Some(fault) = checked::fault(blob, size, tag).map_err(text)? {
            return Err(fault);
        }
        let folder = to.parent().unwrap_or(to);
        fs::create_dir_all(folder).map_err(text)?;
        // A link to a blob that is gone.
        if to.symlink_metadata().is_ok() {
            fs::remove_file(to).map_err(text)?;
        }
        #[cfg(unix)]
        {
            let blobs = self.repository().join("blobs");
            fs::create_dir_all(&blobs).map_err(text)?;
            fs::rename(blob, blobs.join(tag)).map_err(text)?;
            let below = folder.strip_prefix(self.repository()).map_or(0, |path| path.components().count());
            let up: PathBuf = std::iter::repeat_n("..", below).collect();
            std::os::unix::fs::symlink(up.join("blobs").join(tag), to).map_err(text)
        }
        #[cfg(not(unix))]
        {
            fs::rename(blob, to).map_err(text)
        }
    }

    /// The size and the tag of a file.
    fn metadata(&self, file: &str, revision: &str) -> Result<(u64, String), ApiError> {
        let (api, repo) = self.connect(revision)?;
        let metadata = api.metadata(&repo.url(file))?;
        let tag = metadata.etag();
        // A tag is a file's name in the cache.
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        match tag.bytes().all(is_word) && !tag.is_empty() && tag.len() <= 128 && is_commit(metadata.commit_hash()) {
            true => Ok((metadata.size() as u64, tag.to_owned())),
            false => Err(ApiError::InvalidHeader("ETag or X-Repo-Commit")),
        }
    }

    fn connect(&self, revision: &str) -> Result<(hf_hub::api::sync::Api, ApiRepo), ApiError> {
        let builder = ApiBuilder::from_cache(Cache::new(self.staging())).with_token(self.hub.token.clone());
        let builder = builder.with_endpoint(self.hub.endpoint.clone()).with_progress(false);
        let api = builder.with_user_agent("s2ditc", env!("CARGO_PKG_VERSION")).build()?;
        let repo = Repo::with_revision(self.name.to_string(), RepoType::Model, revision.to_owned());
        Ok((api.clone(), api.repo(repo)))
    }

    fn api(&self, revision: &str) -> Result<ApiRepo, Problem> {
        self.connect(revision).map(|(_, repo)| repo).map_err(|error| self.refused(&error, None))
    }

    fn repo(&self, cache: &Cache, revision: &str) -> hf_hub::CacheRepo {
        cache.repo(Repo::with_revision(self.name.to_string(), RepoType::Model, revision.to_owned()))
    }

    fn staging(&self) -> PathBuf {
        self.cache.join(STAGING)
    }

    /// A problem of an answer that no hub gives.
    fn odd(&self, found: &str) -> Problem {
        let place = format!("{}: {}", self.hub.endpoint, self.name);
        Problem { place, found: found.into(), expected: "a hub's answer: HF_ENDPOINT says which is asked".into() }
    }

    /// A problem of what the hub did not do.
    fn refused(&self, error: &ApiError, file: Option<&str>) -> Problem {
        let (hub, name) = (&self.hub.endpoint, &self.name);
        let place = match file {
            Some(file) => format!("{hub}: {name}: {}", shown(file)),
            None => format!("{hub}: {name}"),
        };
        let status = match error {
            ApiError::RequestError(error) => match **error {
                ureq::Error::StatusCode(status) => Some(status),
                _ => None,
            },
            _ => None,
        };
        let (found, expected) = match status {
            Some(status @ (401 | 403)) => {
                let token = if self.hub.token.is_some() { "with the token that was sent" } else { "without a token" };
                let ways =
                    "set HF_TOKEN to a token that may read it (or `hf auth login`), and agree to its terms on its page";
                (format!("no access {token} (HTTP {status})"), format!("a public repository; or {ways}"))
            }
            Some(404) if file.is_none() => {
                let expected = "a checkpoint that lies here, or a repository by its name, OWNER/NAME";
                ("no such repository (HTTP 404), and nothing at that path".to_owned(), expected.to_owned())
            }
            Some(status) => (format!("HTTP {status}"), "the file; the same command tries again".to_owned()),
            None if matches!(error, ApiError::LockAcquisition(_)) => {
                ("another process that fetches the file".to_owned(), "one at a time: wait until it is done".to_owned())
            }
            None => {
                let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
                let expected =
                    "the hub: the same command goes on where it stopped, and --offline takes only what the cache has";
                (cause, expected.to_owned())
            }
        };
        Problem { place, found, expected }
    }
}

/// Whether a download may go on: a connection that broke, and no answer of the hub.
fn is_interruption(error: &ApiError) -> bool {
    matches!(error, ApiError::IoError(error) if error.kind() != io::ErrorKind::StorageFull && error.raw_os_error().is_none_or(is_of_network))
}

/// Whether an error of the system is one of a connection, and none of the disk.
fn is_of_network(code: i32) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    let kind = io::Error::from_raw_os_error(code).kind();
    [BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof].contains(&kind)
}

/// Counts the bytes of a file as they come.
struct Count<'a> {
    watch: &'a mut dyn FnMut(u64),
    done: u64,
}

impl Progress for Count<'_> {
    fn init(&mut self, _: usize, _: &str) {
        self.done = 0;
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        (self.watch)(self.done);
    }

    fn finish(&mut self) {}
}
