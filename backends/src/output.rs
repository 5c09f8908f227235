//! Outputs that appear whole or not at all: written beside their place, then renamed into it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::{fs, io};

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
        /// Its folder.
        parent: PathBuf,
    },
    /// Something else is where the output should go.
    #[error("cannot write `{path}`: {found} is in the way, and only {expected} would be replaced", path = path.display())]
    Occupied {
        /// The output.
        path: PathBuf,
        /// What is there.
        found: &'static str,
        /// What could be replaced.
        expected: String,
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
    committed: bool,
    /// Held as long as this process writes: see [`sweep`].
    #[cfg(unix)]
    _lock: Option<fs::File>,
}

impl Staged {
    /// Stages a file, which exists and is empty after this call. A link at the place is followed: what it names is replaced.
    ///
    /// # Errors
    /// A missing parent folder, something other than a file in the way, a parent that cannot be written.
    pub fn file(place: &Path) -> Result<Staged, OutputError> {
        let real = std::path::absolute(place).and_then(fs::canonicalize).unwrap_or_else(|_| place.into());
        if let Ok(found) = fs::metadata(&real)
            && !found.is_file()
        {
            let found = if found.is_dir() { "a folder" } else { "a device, pipe or socket" };
            return Err(OutputError::Occupied { path: place.into(), found, expected: "a file".into() });
        }
        let staged = Staged::beside(place, &real)?;
        fs::File::create(&staged.staging).map_err(|error| OutputError::Io { path: place.into(), error })?;
        Ok(staged.locked())
    }

    /// Stages a folder, which exists and is empty after this call. An existing folder at the place is replaced only if it
    /// is empty, or holds `marker` and nothing whose name `ours` does not know.
    ///
    /// # Errors
    /// A missing parent folder, something else in the way, a parent that cannot be written.
    pub fn folder(place: &Path, marker: &str, ours: impl Fn(&str) -> bool) -> Result<Staged, OutputError> {
        let occupied = |found| OutputError::Occupied {
            path: place.into(),
            found,
            expected: format!("a folder that is empty, or holds `{marker}` and nothing foreign"),
        };
        if let Ok(found) = fs::metadata(place)
            && !found.is_dir()
        {
            return Err(occupied("a file"));
        }
        if let Ok(entries) = fs::read_dir(place) {
            let names: Vec<String> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
            if !names.is_empty() && (!place.join(marker).exists() || !names.iter().all(|n| ours(n))) {
                return Err(occupied("a folder with other things in it"));
            }
        }
        let staged = Staged::beside(place, place)?;
        fs::create_dir(&staged.staging).map_err(|error| OutputError::Io { path: place.into(), error })?;
        Ok(staged.locked())
    }

    fn beside(asked: &Path, place: &Path) -> Result<Staged, OutputError> {
        let parent = match place.parent() {
            Some(p) if p.as_os_str().is_empty() => Path::new("."),
            Some(p) => p,
            None => {
                return Err(OutputError::Occupied {
                    path: asked.into(),
                    found: "the root folder",
                    expected: "a name below it".into(),
                });
            }
        };
        let no_name = || OutputError::Io { path: asked.into(), error: io::Error::other("the path has no file name") };
        let mut name = OsString::from(".");
        name.push(place.file_name().ok_or_else(no_name)?);
        name.push(".partial-");
        if !parent.is_dir() {
            return Err(OutputError::NoParent { path: asked.into(), parent: parent.into() });
        }
        #[cfg(unix)]
        sweep(parent, &name);
        name.push(std::process::id().to_string());
        let staging = parent.join(name);
        let _ = remove(&staging);
        pending().insert(staging.clone());
        Ok(Staged {
            asked: asked.into(),
            place: place.into(),
            staging,
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

    /// A message about the staging path, about the place instead: the staging path is gone when it is read.
    #[must_use]
    pub fn at_place(&self, message: &str) -> String {
        message.replace(&*self.staging.to_string_lossy(), &self.asked.to_string_lossy())
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.staging
    }

    /// Where the output will be.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Puts the output in its place, replacing what was there.
    ///
    /// # Errors
    /// The rename failed; the old output is still whole.
    pub fn commit(self) -> Result<(), OutputError> {
        Staged::commit_all(vec![self])
    }

    /// Puts several outputs in their places, in this order. No signal that [`remove_partials_on_signal`] handles comes
    /// between them.
    ///
    /// # Errors
    /// A rename failed; this output and those after it are not in place.
    pub fn commit_all(mut outputs: Vec<Staged>) -> Result<(), OutputError> {
        let mut pending = pending();
        outputs.iter_mut().try_for_each(|staged| staged.put(&mut pending))
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

/// Removes what processes that were killed left behind when they wrote the same output: staging paths whose process
/// is dead, and that no process holds locked (it may be one of another container, whose numbers mean nothing here).
#[cfg(unix)]
fn sweep(parent: &Path, prefix: &std::ffi::OsStr) {
    use rustix::process::{Pid, test_kill_process};
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        let pid = pid.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).and_then(Pid::from_raw);
        let dead = pid.is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH));
        // A pipe would block whoever opens it.
        if !dead || !entry.file_type().is_ok_and(|ty| ty.is_file() || ty.is_dir()) {
            continue;
        }
        let path = entry.path();
        if let Ok(file) = fs::File::open(&path)
            && file.try_lock().is_ok()
        {
            let _ = remove(&path);
        }
    }
}

/// Removes half-written outputs when the process is told to stop (SIGINT, SIGTERM, SIGHUP), then exits with 128 + the
/// signal's number. Call it once, early in `main`.
///
/// # Errors
/// The handler could not be installed.
#[cfg(unix)]
pub fn remove_partials_on_signal() -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // Held until the end: from here on nothing is committed, and a writer that fails because its files
            // go waits here instead of ending the process with another exit code.
            let pending = pending();
            // The writer may still create files and folders while they go: again until they stay away.
            for _ in 0..500 {
                let there =
                    pending.iter().filter(|path| remove(path).is_ok() || path.symlink_metadata().is_ok()).count();
                if there == 0 {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            // Not `std::process::exit`: ONNX Runtime's destructors do not bear threads that still run.
            signal_hook::low_level::exit(128 + signal);
        }
    })?;
    Ok(())
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
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_on_commit_only() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("x.onnx");
        let staged = Staged::file(&place).unwrap();
        fs::write(staged.path(), b"new").unwrap();
        assert!(!place.exists());
        staged.commit().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_devices_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, b"old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let staged = Staged::file(&link).unwrap();
        fs::write(staged.path(), b"new").unwrap();
        staged.commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert!(matches!(Staged::file(Path::new("/dev/null")), Err(OutputError::Occupied { .. })));
    }

    #[test]
    fn a_dropped_output_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let staged = Staged::folder(&dir.path().join("x.mlpackage"), "Manifest.json", |_| true).unwrap();
        fs::write(staged.path().join("half"), b"...").unwrap();
        drop(staged);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn leftovers_of_the_dead_are_removed_and_those_of_the_living_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let (dead, alive) = (child.id(), std::os::unix::process::parent_id());
        let leftover = |name: &str, pid| dir.path().join(format!(".{name}.partial-{pid}"));
        for (name, pid) in [("x.onnx", dead), ("x.onnx", alive), ("y.onnx", dead)] {
            fs::write(leftover(name, pid), b"half").unwrap();
        }
        let package = leftover("x.mlpackage", dead);
        fs::create_dir_all(package.join("Data")).unwrap();
        let held = fs::File::open(&package).unwrap();
        held.lock().unwrap();

        Staged::file(&dir.path().join("x.onnx")).unwrap().commit().unwrap();
        assert!(!leftover("x.onnx", dead).exists());
        assert!(leftover("x.onnx", alive).exists() && leftover("y.onnx", dead).exists());
        let place = dir.path().join("x.mlpackage");
        drop(Staged::folder(&place, "Manifest.json", |_| true).unwrap());
        assert!(package.exists(), "locked by another process");
        drop(held);
        drop(Staged::folder(&place, "Manifest.json", |_| true).unwrap());
        assert!(!package.exists());
    }

    #[test]
    fn several_outputs_are_committed_together() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let staged = vec![Staged::file(&a).unwrap(), Staged::file(&b).unwrap()];
        // A folder that came meanwhile is in the way of the second.
        fs::create_dir(&b).unwrap();
        fs::write(b.join("x"), b"").unwrap();
        assert!(Staged::commit_all(staged).unwrap_err().to_string().contains("b`"));
        assert!(a.is_file() && b.join("x").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_package_is_replaced_and_other_folders_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("x.mlpackage");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("Manifest.json"), b"old").unwrap();
        let staged = Staged::folder(&place, "Manifest.json", |n| n == "Manifest.json").unwrap();
        fs::write(staged.path().join("Manifest.json"), b"new").unwrap();
        staged.commit().unwrap();
        assert_eq!(fs::read(place.join("Manifest.json")).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        let home = dir.path().join("home");
        fs::create_dir(&home).unwrap();
        fs::write(home.join("thesis"), b"precious").unwrap();
        let ours = |n: &str| n == "Manifest.json";
        assert!(matches!(Staged::folder(&home, "Manifest.json", ours), Err(OutputError::Occupied { .. })));
        fs::write(home.join("Manifest.json"), b"{}").unwrap();
        assert!(matches!(Staged::folder(&home, "Manifest.json", ours), Err(OutputError::Occupied { .. })));
        assert!(matches!(Staged::file(&home), Err(OutputError::Occupied { .. })));
        assert!(matches!(Staged::file(&dir.path().join("no/such")), Err(OutputError::NoParent { .. })));
    }
}
