//! What the passes recognise in every golden's clip graph and in every function of every stream's kernel: all of it.

use crate::common::{arg, golden, ok};
use s2dit_ir::close::{Tolerance, assert_close};
use s2dit_ir::interp::{self, Bindings};
use s2dit_ir::{Function, Module, Tensor, WeightSource, text};
use s2dit_models::Model;
use s2dit_models::SchemaWeights;
use s2dit_models::checkpoint::Checkpoint;
use s2dit_models::s2dit::config::{BlockKind, Preset, S2ditConfig, StateWrite};
use s2dit_models::size::LatentSize;
use s2dit_passes::regions::{Kind, Regions, leftovers, recognise};
use s2dit_passes::split::{self, split};
use s2dit_passes::{PassPipeline, fuse};
use serde_json::Value;

fn config(name: &str) -> S2ditConfig {
    match name {
        "small" => Preset::Small.config(),
        "1.8b" => Preset::B1_8.config(),
        name => {
            let dir = golden(name).join("checkpoint");
            let config = Checkpoint::open(&dir).expect("a checkpoint").model().config();
            S2ditConfig::parse(&config.to_string(), name).expect("a configuration of S2DiT")
        }
    }
}

fn clip(config: &dyn Model, weights: &dyn WeightSource, latent: &str) -> Module {
    let latent: LatentSize = latent.parse().expect("a latent");
    let mut module = config.build(weights, latent.into()).expect("a graph");
    PassPipeline::new(&["canonicalize", "phase", "cse"])
        .expect("passes")
        .run(&mut module, |_, _| {})
        .expect("a pipeline");
    module
}

/// Fuses and recognises; nothing may be nearly recognised, and no op of a formula may stand alone.
fn recognised(name: &str, f: &mut Function) -> Regions {
    let misses = fuse::explain(f).expect("fusion");
    assert!(misses.is_empty(), "{name} @{}: {misses:#?}", f.name);
    let regions = recognise(f).expect("patterns");
    assert!(regions.misses.is_empty(), "{name} @{}: {:#?}", f.name, regions.misses);
    let left: Vec<String> = leftovers(f).iter().map(|&v| format!("{} @ {}", f.op(v).name(), f.node(v).scope)).collect();
    assert!(left.is_empty(), "{name} @{}: {left:?}", f.name);
    regions
}

/// Self-attention of the blocks, in order, must be the layout's; each block also attends to the text.
fn check_layout(name: &str, config: &S2ditConfig, regions: &Regions, blocks: usize) {
    let found: Vec<(String, String)> = regions
        .regions
        .iter()
        .filter(|r| r.kind != Kind::Cross)
        .map(|r| (r.kind.to_string(), r.scope.to_string()))
        .collect();
    let wanted: Vec<(String, String)> = config.layout[..blocks]
        .iter()
        .enumerate()
        .map(|(i, kind)| (kind.to_string(), format!("blocks.{i}.attn1")))
        .collect();
    assert_eq!(found, wanted, "{name}");
    assert_eq!(regions.count(Kind::Cross), blocks, "{name}");
    let low: Vec<usize> = config.stages().into_iter().flat_map(|s| 0..s.len()).collect();
    let staged = regions.regions.iter().filter(|r| matches!(r.kind, Kind::Ssa(_))).count();
    assert!(staged <= low.len(), "{name}");
    for (i, r) in regions.regions.iter().filter(|r| matches!(r.kind, Kind::Ssa(_))).enumerate() {
        let block: usize = r.scope.split('.').nth(1).and_then(|n| n.parse().ok()).expect("a block");
        let stage = config.stages().iter().position(|s| s.contains(&block));
        assert_eq!(Some(r.kind), stage.map(Kind::Ssa), "{name}: SSA block {i}");
    }
}

#[test]
fn every_block_of_every_clip_is_recognised() {
    for (name, latent) in [
        ("tiny", "3x8x8"),
        ("odd", "2x12x8"),
        ("post", "4x8x4"),
        ("per_head", "1x12x8"),
        ("sharded", "5x4x8"),
        ("stride3", "2x6x12"),
        ("padded", "2x10x14"),
        ("small", "3x16x24"),
        ("1.8b", "3x36x64"),
    ] {
        let config = config(name);
        let mut module = clip(&config, &SchemaWeights::new(&config), latent);
        let regions = recognised(name, &mut module.functions[0]);
        check_layout(name, &config, &regions, config.layout.len());
        assert_eq!(regions.stages.len(), config.stages().len(), "{name}");
        assert!(regions.stages.iter().all(|s| s.up.is_some()), "{name}");
    }
}

#[test]
fn every_block_of_every_stream_is_recognised() {
    for (name, latent) in [
        ("stream_tiny", "3x8x8"),
        ("stream_post", "2x8x4"),
        ("stream_full", "1x4x8"),
        ("stream_wide", "3x6x6"),
        ("stream_sink", "2x6x10"),
        ("stream_last_step", "3x8x4"),
        ("stream_last_sink", "1x6x8"),
    ] {
        for half_states in [false, true] {
            let config = config(name);
            let weights = SchemaWeights::new(&config);
            let chunk = clip(&config, &weights, latent);
            let options = split::Options {
                window_frames: config.window_frames,
                sink_frames: config.sink_frames,
                ahead: false,
                state_write: match config.state_write {
                    StateWrite::Commit => split::StateWrite::Commit,
                    StateWrite::LastStep => split::StateWrite::LastStep,
                },
                half_states,
            };
            let mut module = split(&chunk.functions[0], &chunk.interface, &options, &weights).expect("a split").module;
            for f in &mut module.functions {
                let regions = recognised(name, f);
                let blocks = config.layout.len();
                match &*f.name {
                    "denoise" | "last_step" => check_layout(name, &config, &regions, blocks),
                    // The last block writes its states and is needed for nothing else.
                    "commit" => check_layout(name, &config, &regions, blocks - 1),
                    _ => assert!(regions.regions.is_empty()),
                }
                let means = f.order().iter().filter(|&&v| f.op(v).name() == "running_mean").count();
                let lcha = config.layout.iter().filter(|k| **k == BlockKind::Lcha).count();
                assert_eq!(means, if f.name == "prompt" { 0 } else { 2 * lcha }, "{name} @{}", f.name);
            }
        }
    }
}

#[test]
fn fused_goldens_have_the_same_numbers() {
    for (name, latent) in [("tiny", "3x8x8"), ("post", "4x8x4"), ("per_head", "1x12x8")] {
        let dir = golden(name).join("checkpoint");
        let checkpoint = Checkpoint::open(&dir).expect("a checkpoint");
        let mut module = clip(checkpoint.model(), &checkpoint, latent);
        let bindings = noise(&module.functions[0]);
        let run = |m: &Module| {
            let [clip] = &m.functions[..] else { panic!("{name}: expected one function") };
            interp::effects(clip, &checkpoint, &bindings).expect("values").results
        };
        let plain = run(&module);
        assert!(plain.iter().flat_map(|(_, v)| &v.data).any(|x| x.abs() > 0.1), "{name}: nothing to compare");
        for pass in ["fuse", "decompose"] {
            PassPipeline::new(&[pass]).expect("a pass").run(&mut module, |_, _| {}).expect("a pipeline");
            assert_close(format!("{name} after {pass}"), &run(&module), &plain, Tolerance::relative(1e-12, 0.0));
        }
    }
}

/// The frontend writes each formula as its composite decomposes: so the way there and back changes nothing at all.
#[test]
fn the_round_trip_gives_the_frontends_graph() {
    let config = config("1.8b");
    let mut module = clip(&config, &SchemaWeights::new(&config), "3x36x64");
    let before = text::print(&module);
    PassPipeline::new(&["fuse", "decompose", "cse"]).expect("passes").run(&mut module, |_, _| {}).expect("a pipeline");
    let after = text::print(&module);
    let differs = before.lines().zip(after.lines()).position(|(a, b)| a != b);
    assert!(before == after, "line {differs:?} differs, of {} and {}", before.lines().count(), after.lines().count());
}

/// A finished package in the plain layout is read back and recognised, fp16 and folded constants and all.
#[test]
fn packages_are_recognised() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for (name, mode, latent) in
        [("odd", "clip", "2x12x8"), ("padded", "clip", "2x10x14"), ("stream_post", "stream", "8x4")]
    {
        let checkpoint = arg(&golden(name).join("checkpoint"));
        let out = work.path().join(if mode == "clip" { "clip.mlpackage" } else { "kernel" });
        let plain = ["--target", "coreml", "--compute", "any"];
        let args = ["compile", "-q", &checkpoint, "--mode", mode, "--latent", latent, "-o", &arg(&out)];
        ok(&[&args[..], &plain].concat());
        let package = if mode == "clip" { out } else { out.join("kernel.mlpackage") };
        let report: Value = serde_json::from_str(&ok(&["inspect", "--json", &arg(&package)])).expect("JSON");
        let step = &report["recognised"][0];
        let layout = config(name).layout;
        for kind in [BlockKind::Lcha, BlockKind::Ssa, BlockKind::Full] {
            let wanted = layout.iter().filter(|k| **k == kind).count();
            assert_eq!(step[kind.to_string()], wanted, "{name}: {kind}");
        }
        assert_eq!(step["cross"], layout.len(), "{name}");
        assert_eq!(step["leftovers"], serde_json::json!({}), "{name}");
        assert_eq!(step["near_misses"], serde_json::json!([]), "{name}");
    }
}

/// What is not the formula is named: another kernel, a norm that multiplies by the root.
#[test]
fn near_misses_say_why() {
    let config = config("tiny");
    let printed = text::print(&clip(&config, &SchemaWeights::new(&config), "3x8x8"));
    for (from, to, rule, reason) in [
        ("softplus(", "exp(", "lcha", "feature map of queries and keys: expected `feature_map`"),
        ("rsqrt(", "sqrt(", "attention", "expected `rms_norm("),
    ] {
        let mut module = text::parse(&printed.replace(from, to)).expect("IR");
        let f = &mut module.functions[0];
        let misses = fuse::explain(f).expect("fusion");
        let regions = recognise(f).expect("patterns");
        let told = misses.iter().chain(&regions.misses).find(|m| m.rule == rule);
        let told = told.unwrap_or_else(|| panic!("{to}: {misses:?} {:?}", regions.misses));
        assert!(told.reason.contains(reason), "{told:?}");
        assert!(told.scope.starts_with("blocks."), "{told:?}");
        assert!(!leftovers(f).is_empty());
    }
}

/// Values for the parameters that look random.
fn noise(f: &Function) -> Bindings {
    let mut bindings = Bindings::default();
    for &p in f.params() {
        let ty = f.ty(p);
        let values = (0..ty.elements()).map(|i| ((i * 7919 + p.index() * 104_729) as f64 * 0.618).sin()).collect();
        let name = f.node(p).name.as_deref().expect("a name").to_string();
        bindings.params.insert(name, Tensor::from_values(ty, values).expect("values"));
    }
    bindings
}
