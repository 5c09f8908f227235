//! Inputs that the fuzzer found are read again (`tests/fuzz/found/READER/*`), and with each reader a whole input and some that are cut short.

#[path = "../fuzz/src/targets.rs"]
mod targets;

use std::fs;
use std::path::PathBuf;

use targets::{TARGETS, tests};

/// Files of a folder, sorted; none where there is no folder.
fn found(reader: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(tests().join("fuzz/found").join(reader)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_reader_reads_what_the_fuzzer_found() {
    let mut cases = 0;
    for target in TARGETS {
        let work = tempfile::tempdir().expect("a temporary folder");
        let dir = work.path().join("input");
        fs::create_dir(&dir).expect("a folder");
        target.whole(&dir);
        for path in found(target.name) {
            println!("{}", path.display());
            target.run(&dir, &fs::read(&path).expect("a case"));
            cases += 1;
        }
        // Whole, cut short, with a byte changed.
        let first = target.first(&dir);
        assert!(first.iter().any(|bytes| !bytes.is_empty()), "{}: nothing to begin with", target.name);
        for bytes in first.iter().filter(|bytes| bytes.len() <= 1 << 14).take(4) {
            target.run(&dir, bytes);
            for part in 1..8 {
                let at = bytes.len() * part / 8;
                target.run(&dir, &bytes[..at]);
                let mut changed = bytes.clone();
                changed[at] ^= 0x41;
                target.run(&dir, &changed);
            }
        }
    }
    let folders = fs::read_dir(tests().join("fuzz/found")).map_or(0, Iterator::count);
    let known = TARGETS.iter().filter(|target| !found(target.name).is_empty()).count();
    assert_eq!(folders, known, "a folder under tests/fuzz/found that no reader is called after");
    println!("{cases} cases");
}
