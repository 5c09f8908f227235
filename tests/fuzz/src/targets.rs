//! Readers that are fuzzed. A target is a file of an input, what lies around it, bytes to begin with, and how the input is read.
//!
//! The fuzzer and the test that reads found cases again share this list. A reader may refuse what it gets, and must not panic, hang, or take
//! memory that the input does not justify.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use s2dit_backends::coreai::{self, asset};
use s2dit_backends::coreml::lint::{self, Rules};
use s2dit_backends::coreml::{Package, raise};
use s2dit_estimate::Device;
use s2dit_estimate::search::{Scores, Table};
use s2dit_files::{StateDict, open_door};
use s2dit_import::{Ask, import, importer_of};
use s2dit_ir::text;
use s2dit_ir::verify::verify;
use s2dit_models::checkpoint::{Checkpoint, Lora, Origin};
use s2dit_runtime::{Artifact, decode, pipeline, stream};
use s2ditc::cli::{Silent, call};
use sha2::{Digest, Sha256};

/// A reader.
pub struct Target {
    /// Name of the target, and of its folder under `found`.
    pub name: &'static str,
    /// Path of the file within the input.
    pub file: &'static str,
    /// Makes what lies around the file in an empty folder.
    pub around: fn(&Path),
    /// Files of the repository to begin with: names under `tests`, whose endings count. With none, what [`around`](Target::around) made.
    pub seeds: &'static [&'static str],
    /// Reads the input in a folder.
    pub read: fn(&Path),
}

const NOTHING: fn(&Path) = |_| {};

/// Every reader.
pub const TARGETS: &[Target] = &[
    Target {
        name: "safetensors",
        file: "x.safetensors",
        around: NOTHING,
        seeds: &["fixtures/doors/*.safetensors"],
        read: |dir| door(&dir.join("x.safetensors")),
    },
    Target {
        name: "torch",
        file: "x.pt",
        around: NOTHING,
        seeds: &["fixtures/doors/*.pt"],
        read: |dir| door(&dir.join("x.pt")),
    },
    Target {
        name: "gguf",
        file: "x.gguf",
        around: NOTHING,
        seeds: &["fixtures/doors/*.gguf"],
        read: |dir| door(&dir.join("x.gguf")),
    },
    Target {
        name: "config",
        file: "config.json",
        around: NOTHING,
        seeds: &[
            "goldens/tiny/checkpoint/config.json",
            "goldens/odd/checkpoint/config.json",
            "goldens/wan_tiny/checkpoint/config.json",
            "goldens/ltx_tiny/checkpoint/config.json",
            "goldens/sana_tiny/checkpoint/config.json",
            "goldens/open_sora_tiny/checkpoint/config.json",
            "goldens/text_clip/checkpoint/config.json",
            "goldens/text_umt5/checkpoint/config.json",
            "goldens/wan_vae/checkpoint/config.json",
        ],
        read: |dir| {
            let path = dir.join("config.json");
            if let Ok(text) = fs::read_to_string(&path) {
                // Bounded: a configuration of millions of tensors is refused when its weights are looked for.
                drop(s2dit_models::config::parse(&text, "config.json"));
            }
        },
    },
    Target {
        name: "index",
        file: "diffusion_pytorch_model.safetensors.index.json",
        around: |dir| copy("goldens/sharded/checkpoint", dir),
        seeds: &[],
        read: |dir| drop(Checkpoint::open(dir)),
    },
    Target {
        name: "lora",
        file: "lora.safetensors",
        around: |dir| copy("fixtures/doors/diffusers", dir),
        seeds: &["fixtures/doors/lora_*.safetensors"],
        read: |dir| {
            let lora = Lora { path: dir.join("lora.safetensors"), scale: 1.0 };
            drop(Checkpoint::open_from(&Origin { path: dir.into(), loras: vec![lora], ..Origin::default() }));
        },
    },
    Target {
        name: "pt2",
        file: "x.pt2",
        around: NOTHING,
        seeds: &["goldens/import/*.pt2"],
        read: |dir| graph(&dir.join("x.pt2")),
    },
    Target {
        name: "onnx",
        file: "x.onnx",
        around: NOTHING,
        seeds: &["goldens/import/*.onnx"],
        read: |dir| {
            let path = dir.join("x.onnx");
            graph(&path);
            drop(Artifact::open(&path).map(|artifact| (artifact.inputs(), artifact.interface().is_ok())));
        },
    },
    Target {
        name: "mil",
        file: "Data/com.apple.CoreML/model.mlmodel",
        around: package,
        seeds: &[],
        read: read_package,
    },
    Target {
        name: "weights",
        file: "Data/com.apple.CoreML/weights/weight.bin",
        // Of few ops, and with all its weights within the 64 KiB of an input.
        around: |dir| graph_as(dir, "coreml"),
        seeds: &[],
        read: read_package,
    },
    Target {
        name: "coreai",
        file: asset::PROGRAM,
        around: |dir| graph_as(dir, "coreai"),
        seeds: &["../backends/src/coreai/fixtures/*.mlirb"],
        read: |dir| {
            // The hash beside the program is right: it would refuse every change.
            let program = fs::read(dir.join(asset::PROGRAM)).expect("the program");
            fs::write(dir.join(asset::HASH), Sha256::digest(program)).expect("the hash");
            let Ok(asset) = coreai::Asset::open(dir) else { return };
            for function in asset.functions() {
                if let Ok(module) = coreai::raise(&asset, Some(function)) {
                    verify(&module).unwrap_or_else(|error| panic!("a raised asset does not hold: {error}"));
                }
            }
        },
    },
    Target { name: "manifest", file: "Manifest.json", around: package, seeds: &[], read: read_package },
    Target {
        name: "contract",
        file: "contract.json",
        around: kernel,
        seeds: &[],
        read: |dir| {
            drop(stream::contract::Contract::read(dir));
            drop(decode::contract::Contract::read(dir));
            drop(stream::KernelFolder::open(dir));
        },
    },
    Target {
        name: "pipeline",
        file: "pipeline.json",
        around: |dir| {
            let from = arg(&tests().join("goldens/pipeline_ltx/pipeline"));
            made(dir, &["compile", &from, "--target", "onnx", "--size", "64x64", "--frames", "9"]);
        },
        seeds: &[],
        read: |dir| drop(pipeline::contract::Contract::read(dir).and_then(|_| pipeline::Pipeline::open(dir))),
    },
    Target {
        name: "plan",
        file: "plan.toml",
        around: |dir| {
            let (from, plan) = (arg(&dir.join("checkpoint")), arg(&dir.join("plan.toml")));
            // Weights that are worth it.
            done(&["init", "--preset", "tiny", "--set", "ffn_dim=2048", "--seed", "1", "-o", &from]);
            done(&["quantize", &from, "--scheme", "palette4", "--latent", "1x4x4", "-o", &plan]);
        },
        seeds: &[],
        read: |dir| drop(s2dit_emit::plan::Plan::read(&dir.join("plan.toml"))),
    },
    Target {
        name: "state",
        file: "state.safetensors",
        around: |dir| {
            kernel(dir);
            let beside = |end: &str| arg(&dir.with_extension(end));
            let (state, frames) = (beside("state"), beside("safetensors"));
            done(&["stream", &arg(dir), "--chunks", "1", "--prompt-seed", "1", "--state-out", &state, "-o", &frames]);
            fs::rename(state, dir.join("state.safetensors")).expect("a saved state");
        },
        seeds: &[],
        read: |dir| {
            if let Ok(contract) = stream::contract::Contract::read(dir) {
                drop(stream::state::restore(&dir.join("state.safetensors"), &contract));
            }
        },
    },
    Target {
        name: "ir",
        file: "x.s2",
        around: NOTHING,
        seeds: &["../passes/tests/text/*.s2"],
        read: |dir| {
            let Ok(source) = fs::read_to_string(dir.join("x.s2")) else { return };
            if let Ok(module) = text::parse(&source) {
                // What is read is printed, and read again it is the same.
                let printed = text::print(&module);
                let again = text::parse(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
                assert_eq!(text::print(&again), printed, "the text of a graph changes when it is read again");
                drop(verify(&module));
            }
        },
    },
    Target {
        name: "tokenizer",
        file: "tokenizer.json",
        around: NOTHING,
        seeds: &[
            "goldens/pipeline_wan/pipeline/tokenizer/tokenizer.json",
            "goldens/pipeline_ltx/pipeline/tokenizer/tokenizer.json",
        ],
        read: |dir| {
            let text = pipeline::contract::Text {
                tokens: 16,
                width: 8,
                vocabulary: 1 << 16,
                padding: 0,
                cleaning: pipeline::Cleaning::None,
                encoder_mask: pipeline::contract::EncoderMask::None,
                zero_padding: false,
                step_mask: false,
                pooled: false,
            };
            if let Ok(tokenizer) = pipeline::Tokenizer::open(&dir.join("tokenizer.json"), text) {
                drop(tokenizer.encode("a red square bounces"));
            }
        },
    },
    Target {
        name: "tables",
        file: "x.toml",
        around: NOTHING,
        seeds: &["../compiler/estimate/devices/*.toml"],
        read: |dir| {
            let path = dir.join("x.toml");
            drop(Device::open(&arg(&path)));
            drop(Table::read(&path));
            drop(Scores::read(&path));
        },
    },
];

/// The folder `tests` of the repository.
pub fn tests() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = if here.ends_with("fuzz") { here.join("..") } else { here.join("../tests") };
    root.canonicalize().expect("the folder `tests`")
}

impl Target {
    /// The files that the fuzzer begins with, up to 64 KiB each: those of the repository, or the one that lies in `dir`, a whole input.
    pub fn first(&self, dir: &Path) -> Vec<Vec<u8>> {
        if self.seeds.is_empty() {
            return vec![fs::read(dir.join(self.file)).expect("the file of a whole input")];
        }
        let mut found = Vec::new();
        for seed in self.seeds {
            let path = tests().join(seed);
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let (start, end) = name.split_once('*').unwrap_or((&name, ""));
            let entries = fs::read_dir(path.parent().expect("a folder")).unwrap_or_else(|e| panic!("{seed}: {e}"));
            let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
            paths.retain(|path| {
                let file = path.file_name().expect("a name").to_string_lossy();
                file.starts_with(start) && file.ends_with(end)
            });
            paths.sort();
            assert!(!paths.is_empty(), "no file {seed}");
            found.extend(
                paths.iter().map(|path| fs::read(path).expect("a seed")).filter(|bytes| bytes.len() <= 1 << 16),
            );
        }
        found
    }

    /// Makes a whole input in an empty folder.
    pub fn whole(&self, dir: &Path) {
        (self.around)(dir);
        let file = dir.join(self.file);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        if !file.exists() {
            fs::write(&file, &self.first(dir)[0]).expect("the file");
        }
    }

    /// Reads the input in `dir` with `bytes` in the place of the file.
    pub fn run(&self, dir: &Path, bytes: &[u8]) {
        fs::write(dir.join(self.file), bytes).expect("the file");
        (self.read)(dir);
    }
}

fn arg(path: &Path) -> String {
    path.to_str().expect("paths are UTF-8").to_owned()
}

fn done(args: &[&str]) {
    if let Err(failure) = call(args, Arc::new(Silent)) {
        panic!("{args:?}: {failure}");
    }
}

/// Runs a command whose output is a folder, `dir`.
fn made(dir: &Path, args: &[&str]) {
    fs::remove_dir(dir).expect("an empty folder");
    done(&[args, &["-o", &arg(dir)]].concat());
}

fn copy(from: &str, to: &Path) {
    for entry in fs::read_dir(tests().join(from)).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("a copy");
        }
    }
}

/// A small checkpoint beside `dir`.
fn checkpoint(dir: &Path) -> String {
    let place = arg(&dir.with_extension("checkpoint"));
    if !Path::new(&place).exists() {
        done(&["init", "--preset", "tiny", "--seed", "1", "-o", &place]);
    }
    place
}

fn package(dir: &Path) {
    let place = dir.with_extension("mlpackage");
    done(&["compile", &checkpoint(dir), "--target", "coreml", "--latent", "1x4x4", "-o", &arg(&place)]);
    fs::remove_dir(dir).and_then(|()| fs::rename(&place, dir)).expect("a package");
}

/// A graph of a block, compiled.
fn graph_as(dir: &Path, target: &str) {
    let place = dir.with_extension(if target == "coreai" { "aimodel" } else { "mlpackage" });
    let graph = arg(&tests().join("goldens/import/variant_geglu.raw.pt2"));
    done(&["compile", &graph, "--target", target, "-o", &arg(&place)]);
    fs::remove_dir(dir).and_then(|()| fs::rename(&place, dir)).expect("a compiled graph");
}

fn kernel(dir: &Path) {
    made(dir, &["compile", &checkpoint(dir), "--target", "onnx", "--mode", "stream", "--latent", "4x4"]);
}

/// Opens a file of weights and reads every tensor, but no more than a MiB of each.
fn door(path: &Path) {
    let known = |_: &str| false;
    let Ok((door, _)) = open_door(path, StateDict::Known(&known)) else { return };
    let names: Vec<String> = door.names().into_iter().map(str::to_owned).collect();
    for name in names {
        let Some(ty) = door.ty(&name) else { continue };
        let size = ty.bytes().min(1 << 20);
        if door.part(&name, 0..size).is_none() {
            drop(door.bytes(&name).map(|bytes| bytes.iter().fold(0_u8, |sum, byte| sum ^ byte)));
        }
    }
}

/// Imports a graph; what is read holds.
fn graph(path: &Path) {
    let Some(importer) = importer_of(path) else { return };
    if let Ok(imported) = import(importer, path, &Ask::default()) {
        verify(&imported.module).unwrap_or_else(|error| panic!("an imported graph does not hold: {error}"));
    }
}

/// Opens a package, raises each function and lints it; what is raised holds.
fn read_package(dir: &Path) {
    let Ok(package) = Package::open(dir) else { return };
    if let Ok(module) = raise(&package, None) {
        verify(&module).unwrap_or_else(|error| panic!("a raised package does not hold: {error}"));
    }
    if let Ok(rules) = Rules::builtin() {
        drop(lint::lint(&package, &rules));
    }
}
