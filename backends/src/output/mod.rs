//! Outputs that appear whole or not at all: written beside their place, brought to the disk, then renamed into the place.
//!
//! - [`Staged`] is an output on its way;
//! - [`Destination`] says where it goes, [`Contents`] what of a folder's files it may take the place of;
//! - [`made`] recognises files that this program wrote;
//! - [`on_signals`] removes what is half written when the process is told to stop, or when a file that it reads is cut short.

mod leftovers;
pub mod made;
mod place;
mod signals;
mod space;
mod sync;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::{fs, io};

pub use place::{Contents, Destination};
#[cfg(unix)]
pub use signals::on_signals;
pub use space::free_bytes;
pub use sync::set_sync;

/// Staging paths that a signal must remove.
static PENDING: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// An output that cannot be put in its place.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The folder that should hold the output does not exist.
    #[error("cannot write `{path}`: the folder `{parent}` does not exist", path = path.display(), parent = parent.display())]
    NoParent {
        /// The output.
        path: PathBuf,
        /// Folder of the output.
        parent: PathBuf,
    },
    /// Something that is never replaced is where the output should go.
    #[error("cannot write `{path}`: {found} is in the way, and only {expected} would be replaced", path = path.display())]
    Occupied {
        /// The output.
        path: PathBuf,
        /// What lies at the place.
        found: String,
        /// What could be replaced there.
        expected: String,
    },
    /// Another program's file or folder is where the output should go.
    #[error("cannot write `{path}`: {found} that s2ditc did not make is there; --force replaces it", path = path.display())]
    Foreign {
        /// The output.
        path: PathBuf,
        /// What lies at the place.
        found: &'static str,
    },
    /// The operating system refused.
    #[error("cannot write `{path}`: {error}", path = path.display())]
    Io {
        /// The output.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}

impl OutputError {
    /// The error without the output's path.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            OutputError::NoParent { parent, .. } => format!("no folder `{}`", parent.display()),
            OutputError::Occupied { found, .. } => format!("{found} in the way"),
            OutputError::Foreign { found, .. } => format!("{found} that s2ditc did not make"),
            OutputError::Io { error, .. } => error.to_string(),
        }
    }
}

/// A file or folder that is being written beside its place. Dropped without [`Staged::commit`], it is removed.
#[derive(Debug)]
pub struct Staged {
    /// The place as it was asked for: errors name it.
    asked: PathBuf,
    /// The same with links followed.
    place: PathBuf,
    staging: PathBuf,
    force: bool,
    committed: bool,
    /// Held as long as this process writes: see [`leftovers`].
    #[cfg(unix)]
    _lock: Option<fs::File>,
}

impl Staged {
    /// Stages a file, which exists and is empty after this call. Links at the place are followed: what they name is replaced, or
    /// made if it is not there. A file that is there is replaced if it is empty, if `ours` knows it, or by force.
    ///
    /// # Errors
    /// A missing parent folder; something in the way that is not replaced; a parent that cannot be written.
    pub fn file(to: Destination<'_>, ours: &dyn Fn(&Path) -> bool) -> Result<Staged, OutputError> {
        let place = place::follow(to.path)?;
        place::check_file(to, &place, ours)?;
        let staged = Staged::beside(to, place)?;
        fs::File::create(&staged.staging).map_err(|error| OutputError::Io { path: to.path.into(), error })?;
        Ok(staged.locked())
    }

    /// Stages a folder, which exists and is empty after this call. Links at the place are followed. An existing folder is replaced
    /// if it is empty, or if it holds `contents` and nothing else and this program made it; one that another made by force only.
    ///
    /// # Errors
    /// A missing parent folder; something in the way that is not replaced; a parent that cannot be written.
    pub fn folder(to: Destination<'_>, contents: &Contents<'_>) -> Result<Staged, OutputError> {
        let place = place::follow(to.path)?;
        place::check_folder(to, &place, contents)?;
        let staged = Staged::beside(to, place)?;
        fs::create_dir(&staged.staging).map_err(|error| OutputError::Io { path: to.path.into(), error })?;
        Ok(staged.locked())
    }

    fn beside(to: Destination<'_>, place: PathBuf) -> Result<Staged, OutputError> {
        let asked = to.path;
        let parent = place::parent(&place).ok_or_else(|| OutputError::Occupied {
            path: asked.into(),
            found: "the root folder".into(),
            expected: "a name below it".into(),
        })?;
        let no_name = || OutputError::Io { path: asked.into(), error: io::Error::other("the path has no file name") };
        let prefix = leftovers::prefix(place.file_name().ok_or_else(no_name)?);
        if !parent.is_dir() {
            return Err(OutputError::NoParent { path: asked.into(), parent: parent.into() });
        }
        #[cfg(unix)]
        leftovers::sweep(parent, &prefix);
        let staging = parent.join(prefix + &std::process::id().to_string());
        let _ = remove(&staging);
        pending().insert(staging.clone());
        Ok(Staged {
            asked: asked.into(),
            place,
            staging,
            force: to.force,
            committed: false,
            #[cfg(unix)]
            _lock: None,
        })
    }

    /// Marks the staging path as being written by a living process.
    #[cfg(unix)]
    fn locked(mut self) -> Staged {
        self._lock = fs::File::open(&self.staging).ok().filter(|file| file.try_lock().is_ok());
        self
    }

    #[cfg(not(unix))]
    fn locked(self) -> Staged {
        self
    }

    /// Gives a staged file another name in the same folder, for a name that follows from what was written.
    ///
    /// # Errors
    /// Something in the way that is not replaced: see [`Staged::file`].
    pub fn renamed(mut self, name: &str, ours: &dyn Fn(&Path) -> bool) -> Result<Staged, OutputError> {
        self.asked.set_file_name(name);
        self.place.set_file_name(name);
        place::check_file(Destination { path: &self.asked, force: self.force }, &self.place, ours)?;
        Ok(self)
    }

    /// An error of a writer, about the place that was asked for instead of the staging path, which is gone when it is read.
    #[must_use]
    pub fn unwritten(&self, error: &anyhow::Error) -> anyhow::Error {
        let asked = self.asked.display().to_string();
        let mut message = format!("{error:#}").replace(&*self.staging.to_string_lossy(), &asked);
        // Each layer says what it could not write: once is enough.
        let whole = format!("cannot write `{asked}`: ");
        while let Some(inner) = message.strip_prefix(&whole).filter(|inner| inner.starts_with("cannot write `")) {
            message = inner.to_string();
        }
        match message.starts_with("cannot write `") {
            true => anyhow::Error::msg(message),
            false => anyhow::anyhow!("{whole}{message}"),
        }
    }

    /// The path to write to, beside the final place.
    pub fn path(&self) -> &Path {
        &self.staging
    }

    /// The path at which the output will appear.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Puts the output in its place, replacing what was there. The output is on the disk before it is in its place, and in its place
    /// when this returns, whatever happens to the machine then: see [`set_sync`].
    ///
    /// # Errors
    /// The disk does not take what was written, or the rename failed; the old output is still whole.
    pub fn commit(self) -> Result<(), OutputError> {
        Staged::commit_all(vec![self])
    }

    /// Puts several outputs in their places, in this order. No signal that [`on_signals`] handles comes between them.
    ///
    /// # Errors
    /// As [`Staged::commit`]: this output and those after it are not in place.
    pub fn commit_all(mut outputs: Vec<Staged>) -> Result<(), OutputError> {
        for staged in &outputs {
            sync::tree(&staged.staging).map_err(|error| OutputError::Io { path: staged.asked.clone(), error })?;
        }
        let mut pending = pending();
        outputs.iter_mut().try_for_each(|staged| staged.put(&mut pending))?;
        drop(pending);
        for staged in &outputs {
            let parent = place::parent(&staged.place).unwrap_or(Path::new("."));
            sync::folder(parent).map_err(|error| OutputError::Io { path: staged.asked.clone(), error })?;
        }
        Ok(())
    }

    fn put(&mut self, pending: &mut BTreeSet<PathBuf>) -> Result<(), OutputError> {
        let io = |error| OutputError::Io { path: self.asked.clone(), error };
        if self.staging.is_dir() && self.place.is_dir() {
            swap_folders(&self.staging, &self.place).map_err(io)?;
            // The staging path now holds the old folder.
            let _ = remove(&self.staging);
        } else {
            fs::rename(&self.staging, &self.place).map_err(io)?;
        }
        self.committed = true;
        pending.remove(&self.staging);
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.committed {
            let mut pending = pending();
            let _ = remove(&self.staging);
            pending.remove(&self.staging);
        }
    }
}

/// Whether a folder is, or lies in, one that this process is still writing: no other process puts anything there.
#[must_use]
pub fn is_staged(folder: &Path) -> bool {
    pending().iter().any(|staging| folder.starts_with(staging))
}

fn pending() -> std::sync::MutexGuard<'static, BTreeSet<PathBuf>> {
    PENDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(m) if m.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    }
}

#[cfg(target_os = "linux")]
fn swap_folders(new: &Path, old: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        // File systems without the exchange: two renames, with a moment in which the place is empty.
        Err(_) => swap_by_two_renames(new, old),
    }
}

#[cfg(not(target_os = "linux"))]
fn swap_folders(new: &Path, old: &Path) -> io::Result<()> {
    swap_by_two_renames(new, old)
}

fn swap_by_two_renames(new: &Path, old: &Path) -> io::Result<()> {
    let mut aside = new.as_os_str().to_owned();
    aside.push(".old");
    fs::rename(old, &aside)?;
    if let Err(e) = fs::rename(new, old) {
        fs::rename(&aside, old)?;
        return Err(e);
    }
    fs::rename(&aside, new)
}

#[cfg(test)]
mod tests;
