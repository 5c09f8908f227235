//! The fuzzer of one reader: `S2DITC_FUZZ=NAME` chooses it from the list in `targets.rs`. `.ci/fuzz` runs all of them.

#![no_main]

mod mutate;
mod targets;

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use targets::{TARGETS, Target};

/// Readers of messages of protocol buffers.
const PROTOBUF: [&str; 2] = ["onnx", "mil"];

static CHOSEN: OnceLock<(&'static Target, PathBuf)> = OnceLock::new();

fn chosen() -> &'static (&'static Target, PathBuf) {
    CHOSEN.get_or_init(|| {
        let name = std::env::var("S2DITC_FUZZ").unwrap_or_default();
        let target = TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            eprintln!("S2DITC_FUZZ is `{name}`, expected one of {}", names.join(", "));
            std::process::exit(2);
        });
        // Panics that a library is known to have are caught by the reader; those that are not end the fuzzer.
        std::panic::set_hook(Box::new(|info| eprintln!("{info}")));
        let folder = std::env::temp_dir().join(format!("s2ditc-fuzz-{}", std::process::id())).join("input");
        fs::create_dir_all(&folder).expect("a folder");
        target.whole(&folder);
        // Files to begin with.
        if let Some(corpus) = std::env::var_os("S2DITC_FUZZ_CORPUS").map(PathBuf::from) {
            for (number, bytes) in target.first(&folder).iter().enumerate() {
                fs::write(corpus.join(format!("first-{number}")), bytes).expect("the corpus");
            }
        }
        (target, folder)
    })
}

fuzz_target!(
    init: {
        chosen();
    },
    |data: &[u8]| {
        let (target, folder) = chosen();
        target.run(folder, data);
    }
);

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let most = max_size.min(data.len());
    match PROTOBUF.contains(&chosen().0.name) {
        true => mutate::protobuf(&mut data[..most], size, seed),
        false => fuzzer_mutate(data, size, max_size),
    }
});
