//! The seam where models come in: names of one model are known in its folder, and nowhere else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use s2dit_models::{FAMILIES, Model};

/// Where a name that some model also has may be written: what it stands for there is not that model.
const ELSEWHERE: &[(&str, &[&str])] = &[
    // The names that inputs and results have in artifacts which do not say their interface.
    ("runtime/src/interface.rs", &["latent", "timestep", "text", "text_mask", "pooled", "velocity"]),
    ("runtime/src/stream/contract.rs", &["latent", "timestep", "text", "velocity"]),
    // Roles by the names that the command line gives them, words by which they are guessed, and a format's name.
    ("compiler/import/src/ask.rs", &["latent", "text", "text_mask", "tokens", "image", "pooled", "velocity", "video"]),
    ("compiler/import/src/roles.rs", &["latent", "text", "image", "pooled", "video"]),
    // Tensors of files that people bring or keep: goldens, clips, saved streams.
    ("compiler/proof/src/stream.rs", &["text", "text_mask", "pooled", "velocity"]),
    ("compiler/proof/src/stream/clip.rs", &["latent"]),
    ("compiler/proof/src/stream/clip/given.rs", &["image"]),
    ("compiler/proof/src/decode.rs", &["latent", "video"]),
    ("runtime/src/stream/state.rs", &["text", "text_mask"]),
    ("compiler/proof/src/pipeline.rs", &["latent", "text", "velocity", "video"]),
    // A part of a pipeline.
    ("runtime/src/pipeline/contract.rs", &["decoder"]),
    // What an error about a contract is about.
    ("runtime/src/decode/contract.rs", &["decoder"]),
    // A ligature, and a field of a tokenizer's file.
    ("runtime/src/pipeline/clean.rs", &["ff"]),
    ("compiler/emit/src/pipeline/tokenizer.rs", &["decoder"]),
    // What an error about shapes is about.
    ("runtime/src/sampler/autoregressive.rs", &["velocity"]),
    // The last projection is counted with the head.
    ("compiler/src/inspect/model.rs", &["proj_out"]),
    // A field of a rule of lint.
    ("backends/src/coreml/lint/rules.rs", &["text"]),
    // An axis of a formula.
    ("passes/src/fuse/running_mean.rs", &["tokens"]),
    ("passes/src/fuse/linear_attention.rs", &["tokens"]),
    // An option of a pass.
    ("passes/src/pad_notch.rs", &["tokens"]),
    // A flag, a caption, an op of MIL.
    ("compiler/src/cli/search.rs", &["latent"]),
    ("compiler/estimate/src/search/html.rs", &["blocks"]),
    ("backends/src/coreml/raise/sample.rs", &["resample"]),
    // A formula that has a name is no model.
    ("ir/src/ops/mod.rs", &["fusion_gate"]),
    ("ir/src/ops/composite/fusion_gate.rs", &["fusion_gate"]),
    ("passes/src/fuse/fusion_gate.rs", &["fusion_gate"]),
];

/// Names of the tensors, of their modules, and of the values of every model.
fn names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for family in FAMILIES {
        for preset in family.presets() {
            let model = family.preset(preset).expect("a preset");
            for tensor in model.tensors() {
                let parts = tensor.name.split('.').filter(|part| part.parse::<usize>().is_err());
                names.extend(parts.map(str::to_owned));
                names.insert(tensor.name);
            }
            let module = interface(&*model);
            names.extend(module.inputs.iter().map(|input| input.name.clone()));
            names.extend(module.outputs.iter().map(|output| output.name.clone()));
            names.extend(module.milestones.iter().flat_map(|m| [m.value.clone(), m.scope.clone()]));
        }
        names.insert(family.class().to_owned());
    }
    // Words that name no model: what a layer has, a group of sizes, letters of a formula.
    for word in [
        "weight",
        "bias",
        "kernel",
        "linear",
        "conv",
        "norm",
        "gamma",
        "layer_norm",
        "scale",
        "block",
        "layer",
        "shared",
        "q",
        "k",
        "v",
        "o",
    ] {
        names.remove(word);
    }
    names
}

fn interface(model: &dyn Model) -> s2dit_ir::Interface {
    let size = model.usual_size("1x8x8".parse().expect("a latent"));
    model.build(&s2dit_models::SchemaWeights::new(model), size).expect("a graph").interface
}

/// A file's code without comments and unit tests.
fn code(text: &str) -> String {
    let before = text.split("#[cfg(test)]").next().unwrap_or_default();
    before.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The string literals of a file's code: no comments, no unit tests.
fn literals(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in code(text).lines() {
        let mut rest = line;
        while let Some((_, after)) = rest.split_once('"') {
            let Some((literal, next)) = after.split_once('"') else { break };
            found.push(literal.to_owned());
            rest = next;
        }
    }
    found
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a folder").map(|e| e.expect("an entry").path()) {
        let name = entry.file_name().expect("a name").to_string_lossy().into_owned();
        if entry.is_dir() && name != "tests" && name != "target" {
            sources(&entry, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(entry);
        }
    }
}

#[test]
fn names_of_a_model_are_in_its_folder_only() {
    let (root, names) = (crate::common::repo(), names());
    assert!(names.contains("blocks.0.attn1.to_q.weight") && names.contains("block1") && names.contains("velocity"));
    let mut files = Vec::new();
    for folder in ["ir", "passes", "backends", "runtime", "compiler"] {
        sources(&root.join(folder), &mut files);
    }
    assert!(files.len() > 150, "{}", files.len());
    let mut leaks = Vec::new();
    for file in files {
        let place = file.strip_prefix(&root).expect("a path in the repository").to_string_lossy().into_owned();
        if place.starts_with("compiler/models/src/") {
            continue;
        }
        let allowed = ELSEWHERE.iter().find(|(path, _)| place == *path).map_or(&[][..], |(_, names)| *names);
        let text = std::fs::read_to_string(&file).expect("text");
        let known: Vec<String> = literals(&text).into_iter().filter(|literal| names.contains(literal)).collect();
        for name in allowed.iter().filter(|name| !known.iter().any(|literal| literal == *name)) {
            leaks.push(format!("{place}: \"{name}\" is allowed and is not there"));
        }
        let leaked = known.iter().filter(|literal| !allowed.contains(&literal.as_str()));
        leaks.extend(leaked.map(|literal| format!("{place}: \"{literal}\"")));
        // The crates are called after the first model.
        let code = code(&text).replace("s2dit_", "");
        let words = [
            "S2dit",
            "s2dit::",
            "WanConfig",
            "wan::",
            "LtxConfig",
            "ltx::",
            "SanaConfig",
            "sana::",
            "OpenSoraConfig",
            "open_sora::",
            "ClipTextConfig",
            "clip_text::",
            "WanVaeConfig",
            "wan_vae::",
            "LtxVaeConfig",
            "ltx_vae::",
            "TaehvConfig",
            "taehv::",
            "T5Config",
            "t5::",
            "config()[",
        ]
        .iter()
        .filter(|word| code.contains(*word));
        leaks.extend(words.map(|word| format!("{place}: {word}")));
    }
    assert!(leaks.is_empty(), "names of a model outside its folder:\n{}", leaks.join("\n"));
}

/// Inside the models' crate, one family does not know another.
#[test]
fn a_family_does_not_know_another() {
    let root = crate::common::repo().join("compiler/models/src");
    let entries = std::fs::read_dir(&root).expect("the crate").map(|entry| entry.expect("an entry").path());
    let folders = entries.filter(|path| path.join("family.rs").exists());
    let families: Vec<String> =
        folders.map(|path| path.file_name().expect("a name").to_str().expect("UTF-8").to_owned()).collect();
    // A folder may have two: Wan and SANA-Video, and each of them made causal; T5, and UMT5.
    assert_eq!(families.len() + 3, FAMILIES.len(), "{families:?}");
    for family in &families {
        let mut files = Vec::new();
        sources(&root.join(family), &mut files);
        assert!(files.len() > 3);
        for file in files {
            let code = code(&std::fs::read_to_string(&file).expect("text"));
            for other in families.iter().filter(|other| *other != family) {
                assert!(!code.contains(&format!("{other}::")), "{}: knows `{other}`", file.display());
            }
        }
    }
}
