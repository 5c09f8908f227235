//! ONNX Runtime's shared library: found, or fetched on first need.
//!
//! Looked for in this order: the environment variable `ORT_DYLIB_PATH`; the library that a host [prefers](prefer); beside the executable; the
//! user's cache. If it is in none
//! of them, the wheel of [`VERSION`] is downloaded with `python3 -m pip` (which knows the user's mirrors and proxies), and the
//! library in it is put into the cache. Several processes may do so at once: one downloads, the others wait.
//!
//! The library in the cache is loaded only if it has the hash that was recorded when it was fetched: a damaged library crashes
//! whoever loads it. One that has another hash, or whose hash was not recorded, is fetched anew.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use s2dit_backends::input::{LARGEST_JSON, read_text};
use sha2::{Digest, Sha256};

use crate::{Error, ErrorKind};

/// The release of ONNX Runtime that is fetched.
pub const VERSION: &str = "1.31.1";

/// SHA-256 of wheels that were checked here: (file name, hash). Others are as pip verified them.
const KNOWN_WHEELS: &[(&str, &str)] = &[(
    "onnxruntime-1.31.1-cp312-cp312-manylinux_2_28_x86_64.whl",
    "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
)];

/// The library of the process's host.
static PREFERRED: OnceLock<PathBuf> = OnceLock::new();

/// Names the library that is loaded unless `ORT_DYLIB_PATH` names one: a host that brings ONNX Runtime along, such as the Python module, calls it
/// before the first model is opened. Only the first call counts.
pub fn prefer(path: PathBuf) {
    // A second call changes nothing: the library may be loaded.
    let _ = PREFERRED.set(path);
}

/// The library's path; downloads it if need be. `notice` is called once before a download.
///
/// # Errors
/// `ORT_DYLIB_PATH` names nothing; the library is nowhere, or damaged, and cannot be fetched.
pub fn locate(notice: impl FnOnce(&str)) -> Result<PathBuf, Error> {
    found_or_fetched(notice).map_err(|error| Error::new(ErrorKind::Library, error))
}

fn found_or_fetched(notice: impl FnOnce(&str)) -> Result<PathBuf> {
    if let Some(path) = env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from) {
        if path.is_file() {
            return Ok(path);
        }
        bail!("ORT_DYLIB_PATH is `{}`: expected ONNX Runtime's shared library there, found no file", path.display());
    }
    if let Some(path) = PREFERRED.get().filter(|path| path.is_file()) {
        return Ok(path.clone());
    }
    let name = env::consts::DLL_PREFIX.to_string() + "onnxruntime" + env::consts::DLL_SUFFIX;
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(&name)));
    if let Some(path) = beside.filter(|p| p.is_file()) {
        return Ok(path);
    }
    let folder = cache_folder()?;
    let cached = folder.join(&name);
    if condition(&cached)? == Condition::Whole {
        return Ok(cached);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the cache folder `{}`", folder.display()))?;
    let lock_path = folder.join("lock");
    let lock = File::create(&lock_path).with_context(|| format!("cannot write `{}`", lock_path.display()))?;
    lock.lock().with_context(|| format!("cannot lock `{}`", lock_path.display()))?;
    // Whoever had the lock before may have fetched it.
    let found = condition(&cached)?;
    let why = match &found {
        Condition::Whole => return Ok(cached),
        Condition::Missing => String::new(),
        Condition::Damaged(how) => format!("`{}` is damaged ({how}): ", cached.display()),
    };
    notice(&format!("{why}fetching ONNX Runtime {VERSION} with pip into {}", folder.display()));
    fetch(&folder, &cached).with_context(|| match found {
        Condition::Damaged(how) => format!("`{}` is damaged ({how}) and cannot be fetched anew", cached.display()),
        _ => format!("no ONNX Runtime in the cache folder `{}`", folder.display()),
    })?;
    Ok(cached)
}

/// What is at the library's place in the cache.
#[derive(Debug, PartialEq, Eq)]
enum Condition {
    Missing,
    /// It has the hash that was recorded when it was fetched.
    Whole,
    /// Found and expected hash.
    Damaged(String),
}

fn condition(library: &Path) -> Result<Condition> {
    if !library.is_file() {
        return Ok(Condition::Missing);
    }
    let unreadable = || format!("cannot read `{}`", library.display());
    let found = hash(library).with_context(unreadable)?;
    let expected = read_text(&record(library), LARGEST_JSON).unwrap_or_default();
    Ok(match expected.trim() {
        expected if expected == found => Condition::Whole,
        "" => Condition::Damaged("no record of its hash beside it".into()),
        expected => Condition::Damaged(format!("found blake3 {found}, expected {}", expected.escape_debug())),
    })
}

/// Where a library's hash is recorded.
fn record(library: &Path) -> PathBuf {
    library.with_added_extension("blake3")
}

fn hash(file: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(file)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// `<cache>/s2ditc/onnxruntime-<version>`
fn cache_folder() -> Result<PathBuf> {
    cache_of(&format!("onnxruntime-{VERSION}"))
}

/// `<cache>/s2ditc/<name>`
pub(crate) fn cache_of(name: &str) -> Result<PathBuf> {
    let home = || env::var_os(if cfg!(windows) { "USERPROFILE" } else { "HOME" }).map(PathBuf::from);
    let base = match env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute()) {
        Some(cache) => cache,
        None => {
            let home =
                home().context("no HOME: set XDG_CACHE_HOME, or ORT_DYLIB_PATH to ONNX Runtime's shared library")?;
            home.join(if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" })
        }
    };
    Ok(base.join("s2ditc").join(name))
}

/// What the folders of downloads are called.
const DOWNLOAD: &str = "download-";

/// Removes what fetches that were interrupted left behind. The lock is held: nobody else is downloading.
fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(DOWNLOAD.as_bytes()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Downloads the wheel and puts its library at `place`.
fn fetch(folder: &Path, place: &Path) -> Result<()> {
    remove_leftovers(folder);
    let download = tempfile::Builder::new().prefix(DOWNLOAD).tempdir_in(folder)?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]);
    // The library does not depend on Python: any interpreter's wheel has it, so ask for one that surely exists.
    pip.args(["--implementation", "cp", "--python-version", "3.12"]);
    for platform in platforms()? {
        pip.args(["--platform", platform]);
    }
    pip.arg("--dest").arg(download.path()).arg(format!("onnxruntime=={VERSION}"));
    let output = pip.output().with_context(|| format!("cannot run python3 to fetch ONNX Runtime; {REMEDY}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("pip could not fetch ONNX Runtime {VERSION}: {}; {REMEDY}", stderr.trim());
    }
    let wheel = fs::read_dir(download.path())?
        .filter_map(Result::ok)
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "whl"))
        .context("pip downloaded no wheel")?;
    check_hash(&wheel)?;
    let fresh = download.path().join("library");
    extract(&wheel, &fresh)?;
    let fresh_record = record(&fresh);
    let record = record(place);
    fs::write(&fresh_record, hash(&fresh)? + "\n").with_context(|| format!("cannot write `{}`", record.display()))?;
    // A process that is killed between the two leaves a library that does not fit its record: it is fetched anew.
    fs::rename(&fresh, place).with_context(|| format!("cannot write `{}`", place.display()))?;
    fs::rename(&fresh_record, &record).with_context(|| format!("cannot write `{}`", record.display()))
}

const REMEDY: &str =
    "install Python 3 with pip, or set ORT_DYLIB_PATH to ONNX Runtime's shared library (1.24 or later)";

/// Wheel tags of this machine, newest first.
fn platforms() -> Result<&'static [&'static str]> {
    Ok(match (env::consts::OS, env::consts::ARCH) {
        ("linux", "x86_64") => &["manylinux_2_28_x86_64", "manylinux_2_27_x86_64"],
        ("linux", "aarch64") => &["manylinux_2_28_aarch64", "manylinux_2_27_aarch64"],
        ("macos", "aarch64") => &["macosx_14_0_arm64", "macosx_13_0_arm64"],
        ("macos", "x86_64") => &["macosx_13_0_x86_64"],
        ("windows", "x86_64") => &["win_amd64"],
        (os, arch) => bail!("no ONNX Runtime wheel is known for {os} on {arch}; {REMEDY}"),
    })
}

fn check_hash(wheel: &Path) -> Result<()> {
    let name = wheel.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if let Some((_, expected)) = KNOWN_WHEELS.iter().find(|(known, _)| name == *known) {
        let mut hasher = Sha256::new();
        io::copy(&mut File::open(wheel)?, &mut hasher)?;
        let found: String = hasher.finalize().iter().map(|b| format!("{b:02x}")).collect();
        if found != *expected {
            bail!("wheel `{name}`: expected SHA-256 {expected}, found {found}");
        }
    }
    Ok(())
}

/// The library is `onnxruntime/capi/libonnxruntime.so.<version>` on Linux, `libonnxruntime.<version>.dylib` on macOS,
/// `onnxruntime.dll` on Windows.
fn extract(wheel: &Path, to: &Path) -> Result<()> {
    let mut zip = zip::ZipArchive::new(File::open(wheel)?).context("the wheel is not a zip file")?;
    let wanted = format!("onnxruntime/capi/{}onnxruntime.", env::consts::DLL_PREFIX);
    let name = zip
        .file_names()
        .find(|n| n.starts_with(&wanted) && (n.contains(".so") || n.ends_with(".dylib") || n.ends_with(".dll")))
        .map(str::to_string)
        .with_context(|| format!("the wheel has no `{wanted}*`"))?;
    io::copy(&mut zip.by_name(&name)?, &mut File::create(to)?)?;
    Ok(())
}
