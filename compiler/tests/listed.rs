//! Cargo runs the whole-program tests of the folder `tests` only if a manifest lists their binary, and the binary their file: none may be forgotten.
//!
//! This test lies where cargo finds tests by itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The names in `dir` of which `keep` is true of the path.
fn names(dir: &Path, keep: impl Fn(&Path) -> bool) -> BTreeSet<String> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths
        .filter(|path: &PathBuf| keep(path))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_string())
        .collect()
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "rs")
}

#[test]
fn every_file_of_the_folder_tests_is_a_test_that_cargo_runs() {
    let compiler = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = compiler.join("../tests");
    let path = |line: &str| {
        let path = line.strip_prefix("path = \"")?.strip_suffix("/main.rs\"")?.trim_start_matches("../");
        Some(path.strip_prefix("tests/")?.to_string())
    };
    let manifest = |name: &str| fs::read_to_string(compiler.join(name)).unwrap();
    let manifests = [manifest("Cargo.toml"), manifest("python/Cargo.toml")];
    let listed: BTreeSet<String> = manifests.iter().flat_map(|m| m.lines().filter_map(path)).collect();
    let binaries = names(&tests, |path| path.join("main.rs").is_file());
    assert!(binaries.len() > 3, "{binaries:?}");
    assert_eq!(listed, binaries, "listed in the manifests of compiler/, and folders of tests/ with a main.rs");
    assert_eq!(names(&tests, is_rust), BTreeSet::new(), "a file beside the folders of tests/ is in no binary");
    for binary in &binaries {
        let dir = tests.join(binary);
        let main = fs::read_to_string(dir.join("main.rs")).unwrap();
        let module = |line: &str| Some(line.strip_prefix("mod ")?.strip_suffix(';')?.to_string());
        let mut modules: BTreeSet<String> = main.lines().filter_map(module).collect();
        // The harness, which lies beside the folders, or the part of it that a crate without the compiler takes.
        modules.retain(|module| !["common", "python"].contains(&module.as_str()));
        let is_module = |path: &Path| is_rust(path) || path.join("mod.rs").is_file();
        let mut files = names(&dir, is_module);
        files.remove("main");
        assert_eq!(modules, files, "modules of tests/{binary}/main.rs, and files beside it");
    }
}
