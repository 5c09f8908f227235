//! Every pass on random small models, clips and streams, in float64: no pass moves the numbers.

use std::borrow::Cow;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use s2dit_ir::interp::{self, Bindings};
use s2dit_ir::verify::verify;
use s2dit_ir::{Function, Module, Tensor, TensorType, WeightError, WeightSource};
use s2dit_models::SchemaWeights;
use s2dit_models::s2dit;
use s2dit_models::s2dit::config::{LatentSize, Preset, S2ditConfig};
use s2dit_passes::split::{self, split};
use s2dit_passes::{Pipeline, bound, channels_first, timesteps};
use serde_json::json;

/// Weights that look random, of the size of trained ones.
struct Weights(SchemaWeights);

impl WeightSource for Weights {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.0.ty(name)
    }
    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        let ty = self.ty(name).ok_or_else(|| WeightError::Missing { name: name.into() })?;
        let size = if name.contains("norm") && name.ends_with("weight") { 1.0 } else { 0.3 };
        Ok(noise(&ty, name, size).to_le_bytes().into())
    }
}

fn noise(ty: &TensorType, name: &str, size: f64) -> Tensor {
    let seed = name.bytes().fold(7usize, |h, b| (h * 31 + usize::from(b)) % 1_000_003);
    let values = (0..ty.elements()).map(|i| size * ((i * 7919 + seed) as f64 * 0.618).sin()).collect();
    Tensor::from_values(ty, values).expect("values")
}

/// Values for the parameters; states are empty, as at the start of a stream.
fn bindings(f: &Function, module: &Module) -> Bindings {
    let mut bindings = Bindings::default();
    for &p in f.params() {
        let name = f.node(p).name.as_deref().expect("a name");
        let value = match name {
            "timestep" => Tensor::splat(f.ty(p), TIMESTEP),
            _ => noise(f.ty(p), name, 1.0),
        };
        bindings.params.insert(name.into(), value);
    }
    for state in &module.states {
        bindings.states.insert(state.name.clone(), Tensor::splat(&state.ty, 0.0));
    }
    bindings
}

const TIMESTEP: f64 = 750.0;

#[derive(Clone, Debug)]
struct Model {
    config: S2ditConfig,
    latent: LatentSize,
    per_head: bool,
    apart: bool,
    across_blocks: bool,
    state_write: split::StateWrite,
}

fn models() -> impl Strategy<Value = Model> {
    let layout = proptest::collection::vec(prop_oneof![Just("lcha"), Just("ssa"), Just("full")], 1..4);
    let shape = (1usize..4, prop_oneof![Just(6usize), Just(8), Just(12)], 1usize..4, 2usize..4);
    // Rows and columns of tokens: multiples of the stride, or not.
    let grid = (1usize..6, 1usize..5);
    let kernel = (0usize..3, 0usize..2, 0usize..3);
    let flags = any::<[bool; 6]>();
    // Frames of the window and of the sinks: none, fewer than a chunk has, more.
    let past = (prop_oneof![Just(0usize), Just(1), Just(4), Just(7)], 0usize..5);
    (layout, shape, grid, kernel, flags, past, (1usize..4, 1usize..3)).prop_map(
        |(
            layout,
            (heads, width, frames, stride),
            (rows, cols),
            (kt, kh, kw),
            [post, across, per_head, apart, together, last_step],
            (window, sinks),
            (patch, text),
        )| {
            let mut config = Preset::Tiny.config().to_json_value();
            let fields = json!({
                "num_attention_heads": heads, "attention_head_dim": width, "ffn_dim": 5 + heads, "layout": layout,
                "ssa_stride": stride, "conv_kernel": [2 * kt + 1, 2 * kh + 1, 2 * kw + 1], "patch_size": [1, patch, 1],
                "rope_in_kernel": if post { "post" } else { "pre" }, "text_len": 3 * text, "text_dim": 4, "freq_dim": 8,
                "qk_norm": if across { "rms_norm_across_heads" } else { "rms_norm_per_head" },
                "in_channels": 2, "out_channels": 2, "chunk_frames": frames, "window_frames": window,
                "sink_frames": sinks,
            });
            for (name, value) in fields.as_object().expect("fields") {
                config[name] = value.clone();
            }
            let config = S2ditConfig::parse(&config.to_string(), "random").expect("a configuration");
            let latent = LatentSize { frames, rows: rows * patch, cols };
            let state_write = if last_step { split::StateWrite::LastStep } else { split::StateWrite::Commit };
            Model { config, latent, per_head, apart, across_blocks: together, state_write }
        },
    )
}

/// Runs passes one by one, and compares the results of every function with those before the first.
fn unmoved(
    module: &mut Module,
    passes: &[&str],
    options: &channels_first::Options,
    weights: &Weights,
) -> Result<(), TestCaseError> {
    let run = |m: &Module| -> Vec<(String, Tensor)> {
        let mut all = Vec::new();
        for f in &m.functions {
            let values = interp::run(f, weights, &bindings(f, m)).expect("values");
            all.extend(f.results.iter().map(|(name, _)| format!("{}.{name}", f.name)).zip(values));
        }
        all
    };
    let before = run(module);
    for &pass in passes {
        match pass {
            "channels-first" => drop(channels_first::run_with(module, options).expect("a pass")),
            "bound-softplus" => drop(bound::run(module, weights).expect("a pass")),
            "timesteps" => drop(timesteps::run(module, "timestep", &[1000.0, TIMESTEP, 250.0]).expect("a pass")),
            _ => drop(Pipeline::new(&[pass]).expect("a pass").run(module, |_, _| {}).expect("a pass")),
        }
        prop_assert!(verify(module).is_ok(), "{pass}");
        for ((name, a), (_, b)) in before.iter().zip(run(module)) {
            prop_assert_eq!(a.data.shape(), b.data.shape(), "{} after {}", name, pass);
            let scale = a.data.iter().fold(1e-3, |m: f64, x| m.max(x.abs()));
            let worst = a.data.iter().zip(&b.data).fold(0.0, |m: f64, (x, y)| m.max((x - y).abs()));
            // Numbers inside formulas (ε that must not vanish in fp16, the splits of a phase) are those of fp32.
            prop_assert!(worst <= 1e-6 * scale, "{name} after {pass}: {worst:e} of {scale:e}");
        }
    }
    Ok(())
}

const FRONT: [&str; 6] = ["canonicalize", "phase", "cse", "fuse", "fold-gate", "cse"];
const ENGINE: [&str; 6] = ["pad-tokens", "cse", "channels-first", "canonicalize", "decompose", "cse"];
const ONNX: [&str; 4] = ["bound-softplus", "split-conv3d", "decompose-for-onnx23", "decompose"];

fn check(cases: u32, property: impl Fn(Model) -> Result<(), TestCaseError>) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(config, rng).run(&models(), property).unwrap_or_else(|e| panic!("{e}"));
}

fn options(model: &Model) -> channels_first::Options {
    channels_first::Options {
        internal: std::collections::HashSet::new(),
        across_blocks: model.across_blocks,
        apart: model.apart,
        per_head: model.per_head,
    }
}

#[test]
fn passes_on_clips() {
    check(24, |model| {
        let weights = Weights(SchemaWeights::new(&model.config));
        let clip = s2dit::clip(&model.config, &weights, model.latent).expect("a graph");
        for tail in [&ENGINE[..], &ONNX] {
            let mut module = clip.clone();
            unmoved(&mut module, &[&["timesteps"], &FRONT[..], tail].concat(), &options(&model), &weights)?;
        }
        unmoved(&mut clip.clone(), &[&FRONT[..], &ENGINE].concat(), &options(&model), &weights)
    });
}

#[test]
fn passes_on_streams() {
    check(12, |model| {
        let weights = Weights(SchemaWeights::new(&model.config));
        let chunk = s2dit::clip(&model.config, &weights, model.latent).expect("a graph");
        let options_of_split = split::Options {
            chunk: "latent".into(),
            time: "timestep".into(),
            prompt: "text".into(),
            window_frames: model.config.window_frames,
            sink_frames: model.config.sink_frames,
            state_write: model.state_write,
            half_states: false,
        };
        let mut module = split(&chunk.functions[0], &options_of_split).expect("a split").module;
        unmoved(&mut module, &[&FRONT[..], &ENGINE].concat(), &options(&model), &weights)
    });
}
