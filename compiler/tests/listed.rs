//! Cargo runs the whole-program tests of the folder `tests` only if a manifest lists them: none may be forgotten.
//!
//! This test lies where cargo finds tests by itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_file_of_the_folder_tests_is_a_test_that_cargo_runs() {
    let compiler = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(compiler.join("Cargo.toml")).unwrap();
    let path = |line: &str| Some(line.strip_prefix("path = \"../tests/")?.strip_suffix('"')?.to_string());
    let listed: BTreeSet<String> = manifest.lines().filter_map(path).collect();
    let files: BTreeSet<String> = fs::read_dir(compiler.join("../tests"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".rs"))
        .collect();
    assert!(files.len() > 10, "{files:?}");
    assert_eq!(listed, files, "listed in compiler/Cargo.toml, and files of tests/");
}
