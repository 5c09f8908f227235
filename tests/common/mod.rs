//! The harness of the whole-program tests: everything goes through the `s2ditc` binary.
#![allow(dead_code)]

pub mod clip;
pub mod hub;
pub mod property;
pub mod python;
pub mod wire;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use assert_cmd::assert::OutputAssertExt;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;

/// The binary under test.
pub fn s2ditc() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("s2ditc"));
    // A path where nothing lies may be the name of a repository: no test asks a hub but one of its own.
    command.env("HF_HUB_OFFLINE", "1");
    command
}

/// The repository.
pub fn repo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the compiler's folder has a parent").to_path_buf()
}

/// The folder of a golden.
pub fn golden(name: &str) -> PathBuf {
    repo().join("tests/goldens").join(name)
}

/// Runs `s2ditc` with arguments.
pub fn run<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Output {
    s2ditc().args(args).output().expect("s2ditc starts")
}

/// Runs `s2ditc`, which must succeed, and returns its standard output. What it wrote to `-o` is judged by the [second codec](wire).
#[track_caller]
pub fn ok<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> String {
    let done = s2ditc().args(args).assert().success();
    let place = args.iter().position(|a| a.as_ref() == "-o").and_then(|at| args.get(at + 1));
    if let Some(place) = place.map(|p| Path::new(p.as_ref())).filter(|p| p.exists()) {
        wire::judge_all(place);
    }
    String::from_utf8(done.get_output().stdout.clone()).expect("output is UTF-8")
}

/// Runs `s2ditc`, which must fail with exit code 1 and one clear error, and returns that error.
#[track_caller]
pub fn fails<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> String {
    let done = s2ditc().args(args).assert().code(1);
    let done = done.stderr(contains("error: ").count(1));
    // Every error is in the index.
    let done = done.stderr(contains("\n  help: s2ditc explain E"));
    let done = done.stderr(contains("panicked").or(contains("RUST_BACKTRACE")).not());
    String::from_utf8(done.get_output().stderr.clone()).expect("errors are UTF-8")
}

/// Every file below a folder (or the file itself), with its bytes, sorted by relative path.
pub fn files(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    fn walk(at: &Path, root: &Path, out: &mut Vec<(PathBuf, Vec<u8>)>) {
        if at.is_dir() {
            for entry in std::fs::read_dir(at).expect("a readable folder") {
                walk(&entry.expect("an entry").path(), root, out);
            }
        } else {
            let name = at.strip_prefix(root).unwrap_or(at).to_path_buf();
            out.push((name, std::fs::read(at).expect("a readable file")));
        }
    }
    let mut out = Vec::new();
    walk(root, root, &mut out);
    out.sort();
    out
}

/// A path as an argument.
pub fn arg(path: &Path) -> String {
    path.to_str().expect("paths in tests are UTF-8").to_owned()
}

/// A copy of a checkpoint in `to` whose configuration has these fields, a JSON object, as well: those that diffusers keeps in its pipeline.
pub fn with_fields(checkpoint: &Path, to: &Path, fields: &str) -> PathBuf {
    let copy = to.join("checkpoint");
    std::fs::create_dir(&copy).expect("a folder");
    for entry in std::fs::read_dir(checkpoint).expect("a checkpoint") {
        let from = entry.expect("an entry").path();
        std::fs::copy(&from, copy.join(from.file_name().expect("a name"))).expect("a copy");
    }
    let path = copy.join("config.json");
    let text = std::fs::read_to_string(&path).expect("a configuration");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let fields: serde_json::Value = serde_json::from_str(fields).expect("JSON");
    for (field, value) in fields.as_object().expect("an object") {
        config[field] = value.clone();
    }
    std::fs::write(&path, config.to_string()).expect("a configuration");
    copy
}
