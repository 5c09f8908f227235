//! Python environments with the outside judges (coremltools and onnx; FFmpeg and Pillow), made on first need under `target`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The interpreter of an environment that has `tests/conformance/requirements.txt`.
pub fn interpreter() -> PathBuf {
    environment("python", "requirements.txt")
}

/// The interpreter of an environment that has `tests/conformance/video.txt`.
#[allow(dead_code, reason = "tests of a backend include this file too, and judge no videos")]
pub fn of_video() -> PathBuf {
    environment("python-video", "video.txt")
}

fn environment(name: &str, list: &str) -> PathBuf {
    let requirements = super::repo().join("tests/conformance").join(list);
    let wanted = fs::read_to_string(&requirements).expect("requirements.txt");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // One process at a time makes it; the others wait.
    let lock = File::create(target.join(format!("{name}.lock"))).expect("a lock file");
    lock.lock().expect("the lock");
    let venv = target.join(name);
    let python = venv.join("bin/python");
    let stamp = venv.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return python;
    }
    let _ = fs::remove_dir_all(&venv);
    must(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    must(
        Command::new(&python)
            .args(["-m", "pip", "install", "-q", "--disable-pip-version-check", "-r"])
            .arg(&requirements),
    );
    fs::write(&stamp, wanted).expect("a stamp");
    python
}

fn must(command: &mut Command) {
    let status = command
        .status()
        .unwrap_or_else(|e| panic!("{command:?}: {e}; the conformance tests need python3 with venv and pip"));
    assert!(status.success(), "{command:?} failed");
}
