//! Random configurations, and weights that look random.

use std::borrow::Cow;

use proptest::prelude::*;
use s2dit_emit::parts::Partition;
use s2dit_emit::stream::{self, Functions, States};
use s2dit_emit::{self as emit, Attention, Compute, Layout, Opset, Precision, Target, TimestepChoice};
use s2dit_ir::{Tensor, TensorType, WeightError, WeightSource};
use s2dit_models::SchemaWeights;
use s2dit_models::s2dit::config::{Preset, S2ditConfig};
use s2dit_models::size::LatentSize;
use s2dit_passes::channels_first::Norms;
use s2dit_passes::{Lowerings, tile_queries};
use serde_json::json;

/// Weights that look random, of the size of trained ones.
pub struct Weights(SchemaWeights);

impl Weights {
    pub fn of(config: &S2ditConfig) -> Weights {
        Weights(SchemaWeights::new(config))
    }
}

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

/// The same values for the same name.
pub fn noise(ty: &TensorType, name: &str, size: f64) -> Tensor {
    let seed = name.bytes().fold(7usize, |h, b| (h * 31 + usize::from(b)) % 1_000_003);
    let values = (0..ty.elements()).map(|i| size * ((i * 7919 + seed) as f64 * 0.618).sin()).collect();
    Tensor::from_values(ty, values).expect("values")
}

/// A configuration and how it is compiled.
#[derive(Clone, Debug)]
pub struct Model {
    pub config: S2ditConfig,
    pub latent: LatentSize,
    pub target: Target,
    pub precision: Precision,
    opset: Opset,
    layout: Layout,
    timesteps: TimestepChoice,
    /// Keys and values of several blocks are not joined.
    partitioned: bool,
    native: bool,
    pub streams: bool,
}

impl Model {
    fn partition(&self) -> Option<Partition> {
        self.partitioned.then_some(Partition::Auto)
    }

    pub fn clip(&self) -> emit::Options {
        emit::Options {
            target: self.target,
            precision: self.precision,
            opset: self.opset,
            layout: self.layout.clone(),
            size: self.latent.into(),
            timesteps: self.timesteps,
            quantize: None,
            partition: self.partition(),
        }
    }

    pub fn stream(&self) -> stream::Options {
        let native = self.native && self.target == Target::CoreMl && self.precision == Precision::Fp16;
        stream::Options {
            target: self.target,
            precision: self.precision,
            opset: self.opset,
            layout: self.layout.clone(),
            rows: self.latent.rows,
            cols: self.latent.cols,
            timesteps: self.timesteps,
            states: if native { States::Native } else { States::Io },
            functions: Functions::Shared,
            quantize: None,
            partition: self.partition().filter(|_| !native),
        }
    }
}

/// What a device may ask for, with a working set that small models leave.
fn lowerings() -> impl Strategy<Value = Lowerings> {
    (any::<[bool; 6]>(), 200usize..4000).prop_map(|([length, apart, tiles, hidden, notch, rows], working_set)| {
        Lowerings {
            norms: if length { Norms::Length } else { Norms::Doubled },
            apart_beyond: apart.then_some(working_set),
            tiles: tiles.then_some(tile_queries::Options { working_set, queries: 32 }),
            hidden: hidden.then_some(working_set),
            notch: notch.then_some(working_set),
            rows,
        }
    })
}

/// Small models of every kind, and every way to compile them.
pub fn models() -> impl Strategy<Value = Model> {
    let layout = proptest::collection::vec(prop_oneof![Just("lcha"), Just("ssa"), Just("full")], 1..4);
    let shape = (1usize..4, prop_oneof![Just(6usize), Just(8), Just(12)], 1usize..4, 2usize..4);
    let sizes = (0usize..3, 0usize..2, 0usize..3, 1usize..4, 1usize..3);
    // Rows and columns of tokens: multiples of the stride, or not.
    let grid = (1usize..6, 1usize..5);
    // Frames of the window and of the sinks: none, fewer than a chunk has, more.
    let past = (prop_oneof![Just(0usize), Just(1), Just(4), Just(7)], 0usize..5);
    let flags = any::<[bool; 11]>();
    (layout, shape, sizes, grid, past, flags, lowerings()).prop_map(
        |(
            layout,
            (heads, width, frames, stride),
            (kt, kh, kw, patch, text),
            (rows, cols),
            (window, sinks),
            flags,
            lowerings,
        )| {
            let [post, across, per_head, apart, partitioned, onnx, half, old, plain, native, last_step] = flags;
            let mut config = Preset::Tiny.config().to_json_value();
            let fields = json!({
                "num_attention_heads": heads, "attention_head_dim": width, "ffn_dim": if lowerings.hidden.is_some() { 64 } else { 5 + heads }, "layout": layout,
                "ssa_stride": stride, "conv_kernel": [2 * kt + 1, 2 * kh + 1, 2 * kw + 1], "patch_size": [1, patch, 1],
                "rope_in_kernel": if post { "post" } else { "pre" }, "text_len": 3 * text, "text_dim": 4, "freq_dim": 8,
                "qk_norm": if across { "rms_norm_across_heads" } else { "rms_norm_per_head" },
                "in_channels": 2, "out_channels": 2, "chunk_frames": frames, "window_frames": window,
                "sink_frames": sinks, "state_write": if last_step { "last_step" } else { "commit" },
            });
            for (name, value) in fields.as_object().expect("fields") {
                config[name] = value.clone();
            }
            let config = S2ditConfig::parse(&config.to_string(), "random").expect("a configuration");
            let latent = LatentSize { frames, rows: rows * patch, cols };
            Model {
                config,
                latent,
                target: if onnx { Target::Onnx } else { Target::CoreMl },
                precision: if half { Precision::Fp16 } else { Precision::Fp32 },
                opset: if old { Opset::V21 } else { Opset::V23 },
                layout: Layout {
                    // The layout of the Neural Engine has by far the most rules.
                    compute: if plain && across { Compute::Any } else { Compute::Ane },
                    attention: if per_head { Attention::PerHead } else { Attention::Batched },
                    apart,
                    device: None,
                    lowerings,
                },
                timesteps: if old != plain { TimestepChoice::FromConfig } else { TimestepChoice::Any },
                partitioned,
                native,
                streams: false,
            }
        },
    )
}
