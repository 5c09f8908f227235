//! The Python module: pytest judges the extension that cargo built beside this test, with the files of `compiler/python/python` and the environment of
//! the outside judges.

#[path = "../common/python.rs"]
mod python;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository.
fn repo() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder of the crates");
    crates.parent().expect("the repository").to_path_buf()
}

/// The folder for `PYTHONPATH`, as maturin would fill it.
fn stage(root: &Path) {
    let module = root.join("s2ditc");
    fs::create_dir(&module).expect("a folder");
    for entry in fs::read_dir(repo().join("compiler/python/python/s2ditc")).expect("the module") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            fs::copy(&path, module.join(path.file_name().expect("a name"))).expect("a copy");
        }
    }
    let built = std::env::current_exe().expect("this test");
    let name = format!("{}s2ditc_native{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let built = built.parent().expect("its folder").join(name);
    assert!(built.is_file(), "`{}`: cargo builds it with this test", built.display());
    std::os::unix::fs::symlink(&built, module.join("_native.abi3.so")).expect("a link");
}

#[test]
fn pytest_passes() {
    let work = tempfile::tempdir().expect("a temporary folder");
    stage(work.path());
    let output = Command::new(python::interpreter())
        .args([
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-W",
            "error::pytest.PytestUnhandledThreadExceptionWarning",
        ])
        .arg(repo().join("tests/python"))
        .env("PYTHONPATH", work.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HF_HUB_OFFLINE", "1")
        // The module finds the library of the package onnxruntime by itself.
        .env_remove("ORT_DYLIB_PATH")
        .env("XDG_CACHE_HOME", work.path().join("no-cache"))
        .output()
        .expect("python starts");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "pytest\n{text}");
    assert!(text.contains(" passed") && !text.contains(" skipped"), "{text}");
}
