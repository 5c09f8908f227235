//! The configuration of a checkpoint: the fields of `config.json`, the presets, and what follows from them.

mod parse;
mod sampler;

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize, Serializer};

pub(crate) use parse::FIELDS;

pub use crate::layers::QkNorm;
pub use s2dit_runtime::stream::contract::StateWrite;

/// The configuration of an S2DiT checkpoint.
///
/// In `config.json` these fields may be left out, and then have the values in brackets: `freq_dim` \[256\],
/// `ssa_stride` \[2\], `kv_stride` \[2\], `conv_kernel` \[[3, 3, 3]\], `linear_head_dim` \[null\], `feature_map` \["softplus"\], `fusion` \["gate"\], `rope_theta` \[10000.0\], `rope_in_kernel` \["pre"\],
/// `qk_norm` \["rms_norm_across_heads"\], `eps` \[1e-6\], `chunk_frames` \[3\], `window_frames` \[6\],
/// `sink_frames` \[0\], `state_write` \["commit"\], `sample_steps` \[[1000, 750, 500, 250]\], `flow_shift` \[5.0\]. All others are required. A name that starts with
/// `_` is metadata of the program that wrote the file, and ignored, but `_class_name` must be [`S2ditConfig::CLASS_NAME`] if it is there; any other unknown name is an error.
///
/// A value of this type that came from [`S2ditConfig::parse`] or a [`Preset`] is valid; the helpers below rely on it.
#[derive(Clone, Debug, PartialEq)]
pub struct S2ditConfig {
    /// Channels of the input latent.
    pub in_channels: usize,
    /// Channels of the velocity.
    pub out_channels: usize,
    /// Patch (frames, rows, columns); the first is 1.
    pub patch_size: [usize; 3],
    /// Attention heads `A`.
    pub num_attention_heads: usize,
    /// Width of a head, `d`: even, at least 6.
    pub attention_head_dim: usize,
    /// Hidden width of the feed-forward layers.
    pub ffn_dim: usize,
    /// Width of the text embeddings.
    pub text_dim: usize,
    /// Text tokens, padding included.
    pub text_len: usize,
    /// Width of the sinusoidal time embedding, even.
    pub freq_dim: usize,
    /// The kind of each block.
    pub layout: Vec<BlockKind>,
    /// Spatial stride of the SSA stages.
    pub ssa_stride: usize,
    /// Spatial stride of the keys and values of `kv_compressed` blocks; it divides the token grid.
    pub kv_stride: usize,
    /// Kernel of the LCHA local path (time, rows, columns), odd.
    pub conv_kernel: [usize; 3],
    /// Width of a head of linear attention, which divides the hidden size; `None` for [`S2ditConfig::attention_head_dim`].
    pub linear_head_dim: Option<usize>,
    /// The feature map φ of linear attention.
    pub feature_map: FeatureMap,
    /// How LCHA adds its two paths.
    pub fusion: Fusion,
    /// Base of the RoPE frequencies.
    pub rope_theta: f64,
    /// Place of RoPE relative to the feature map φ.
    pub rope_in_kernel: RopeInKernel,
    /// Extent of the RMS norm of queries and keys.
    pub qk_norm: QkNorm,
    /// The ε of every norm.
    pub eps: f64,
    /// Latent frames of a streaming step; `None` for a bidirectional checkpoint.
    pub chunk_frames: Option<usize>,
    /// Latent frames in the key/value window of SSA and full attention, without the current chunk.
    pub window_frames: usize,
    /// Latent frames at the start of a stream whose keys and values never leave the window: an attention sink.
    pub sink_frames: usize,
    /// Which pass over a chunk writes the states of a stream.
    pub state_write: StateWrite,
    /// The sampler's steps.
    pub sample_steps: SampleSteps,
    /// The sampler's timestep shift.
    pub flow_shift: f64,
}

/// The self-attention of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockKind {
    /// LinConv Hybrid Attention: linear attention beside a local convolution.
    Lcha,
    /// LCHA's linear attention alone.
    Linear,
    /// LCHA's local convolution alone.
    Local,
    /// Stride Self-Attention: softmax attention at a lower resolution.
    Ssa,
    /// Softmax attention at token resolution.
    Full,
    /// Softmax attention at token resolution over keys and values that a strided convolution made fewer (PixArt-Σ, arXiv 2403.04692).
    KvCompressed,
}

impl BlockKind {
    /// Every kind.
    pub const ALL: [BlockKind; 6] = [
        BlockKind::Lcha,
        BlockKind::Ssa,
        BlockKind::Full,
        BlockKind::Linear,
        BlockKind::Local,
        BlockKind::KvCompressed,
    ];

    /// The name in `config.json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            BlockKind::Lcha => "lcha",
            BlockKind::Ssa => "ssa",
            BlockKind::Full => "full",
            BlockKind::Linear => "linear",
            BlockKind::Local => "local",
            BlockKind::KvCompressed => "kv_compressed",
        }
    }
}

impl fmt::Display for BlockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The place of RoPE relative to the feature map φ of linear attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RopeInKernel {
    /// `φ(rope(q))`, and the normaliser uses the same.
    Pre,
    /// `rope(φ(q))` in the numerator, `φ(q)` in the normaliser.
    Post,
}

impl RopeInKernel {
    /// The name in `config.json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            RopeInKernel::Pre => "pre",
            RopeInKernel::Post => "post",
        }
    }
}

/// The feature map φ of linear attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureMap {
    /// `softplus(W·x + b)` with learned W and b for each head.
    Softplus,
    /// `max(x, 0)`, which has no weights.
    Relu,
}

impl FeatureMap {
    /// The name in `config.json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FeatureMap::Softplus => "softplus",
            FeatureMap::Relu => "relu",
        }
    }
}

/// How LCHA adds its two paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fusion {
    /// `α ⊙ global + (1 − α) ⊙ local` with a learned α for each channel.
    Gate,
    /// `global + local`.
    Sum,
}

impl Fusion {
    /// The name in `config.json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Fusion::Gate => "gate",
            Fusion::Sum => "sum",
        }
    }
}

/// The sampler's steps.
#[derive(Clone, Debug, PartialEq)]
pub enum SampleSteps {
    /// Fixed timesteps, descending in [0, 1000] (AR variant).
    Timesteps(Vec<f64>),
    /// A number of steps (bidirectional variants).
    Count(usize),
}

impl Serialize for SampleSteps {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            SampleSteps::Count(count) => count.serialize(serializer),
            SampleSteps::Timesteps(steps) => serializer.collect_seq(steps.iter().map(|t| number(*t))),
        }
    }
}

/// A JSON number, without a decimal point when it is whole.
fn number(value: f64) -> serde_json::Number {
    // Exact: timesteps are at most 1000.
    if value.fract() == 0.0 {
        return serde_json::Number::from(value as i64);
    }
    serde_json::Number::from_f64(value).unwrap_or_else(|| serde_json::Number::from(0))
}

/// A maximal run of blocks of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The kind of every block in it.
    pub kind: BlockKind,
    /// The blocks.
    pub blocks: Range<usize>,
}

impl S2ditConfig {
    /// The diffusers class name.
    pub const CLASS_NAME: &str = "S2DiTTransformer3DModel";

    /// The hidden size `D`.
    #[must_use]
    pub fn hidden_size(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Number of blocks.
    #[must_use]
    pub fn num_blocks(&self) -> usize {
        self.layout.len()
    }

    /// The layout as maximal runs of one kind: the layers of the sandwich.
    #[must_use]
    pub fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (index, kind) in self.layout.iter().enumerate() {
            match runs.last_mut() {
                Some(run) if run.kind == *kind => run.blocks.end = index + 1,
                _ => runs.push(Run { kind: *kind, blocks: index..index + 1 }),
            }
        }
        runs
    }

    /// The SSA stages, in order: stage `M` of the checkpoint's `stages.M` is the blocks of entry `M`.
    #[must_use]
    pub fn stages(&self) -> Vec<Range<usize>> {
        let ssa = |run: Run| (run.kind == BlockKind::Ssa).then_some(run.blocks);
        self.runs().into_iter().filter_map(ssa).collect()
    }

    /// The stage of a block, if it is in one.
    #[must_use]
    pub fn stage_of(&self, block: usize) -> Option<usize> {
        self.stages().iter().position(|stage| stage.contains(&block))
    }

    /// The number of blocks of a kind.
    #[must_use]
    pub fn count(&self, kind: BlockKind) -> usize {
        self.layout.iter().filter(|k| **k == kind).count()
    }

    /// The text of a `config.json`: always the same fields, in the same order.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = format!("{:#}", self.to_json_value());
        text.push('\n');
        text
    }

    /// The configuration as a JSON value; see [`S2ditConfig::to_json`].
    #[must_use]
    pub fn to_json_value(&self) -> serde_json::Value {
        serde_json::json!({
            "_class_name": Self::CLASS_NAME,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "patch_size": self.patch_size,
            "num_attention_heads": self.num_attention_heads,
            "attention_head_dim": self.attention_head_dim,
            "ffn_dim": self.ffn_dim,
            "text_dim": self.text_dim,
            "text_len": self.text_len,
            "freq_dim": self.freq_dim,
            "layout": self.layout,
            "ssa_stride": self.ssa_stride,
            "kv_stride": self.kv_stride,
            "conv_kernel": self.conv_kernel,
            "linear_head_dim": self.linear_head_dim,
            "feature_map": self.feature_map,
            "fusion": self.fusion,
            "rope_theta": self.rope_theta,
            "rope_in_kernel": self.rope_in_kernel,
            "qk_norm": self.qk_norm,
            "eps": self.eps,
            "chunk_frames": self.chunk_frames,
            "window_frames": self.window_frames,
            "sink_frames": self.sink_frames,
            "state_write": self.state_write,
            "sample_steps": self.sample_steps,
            "flow_shift": self.flow_shift,
        })
    }
}

/// A named configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// 4 blocks of width 48: for tests.
    Tiny,
    /// 8 blocks of width 512: small enough for a laptop, large enough to mean something.
    Small,
    /// The paper's 1.8B model: 24 blocks of width 2048, 10 LCHA and 14 SSA.
    B1_8,
    /// The 1.8B model as the paper runs it on the phone: prompts of CLIP-ViT-L, and no pass of its own for the states.
    Mobile,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Preset; 4] = [Preset::Tiny, Preset::Small, Preset::B1_8, Preset::Mobile];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Preset::Tiny => "tiny",
            Preset::Small => "small",
            Preset::B1_8 => "1.8b",
            Preset::Mobile => "mobile",
        }
    }

    /// The configuration.
    #[must_use]
    pub fn config(self) -> S2ditConfig {
        use BlockKind::{Lcha, Ssa};
        let large = S2ditConfig {
            in_channels: 16,
            out_channels: 16,
            patch_size: [1, 2, 2],
            num_attention_heads: 16,
            attention_head_dim: 128,
            ffn_dim: 8192,
            text_dim: 4096,
            text_len: 512,
            freq_dim: 256,
            layout: [(Lcha, 2), (Ssa, 4), (Lcha, 3), (Ssa, 5), (Lcha, 3), (Ssa, 5), (Lcha, 2)]
                .into_iter()
                .flat_map(|(kind, count)| std::iter::repeat_n(kind, count))
                .collect(),
            ssa_stride: 2,
            kv_stride: 2,
            conv_kernel: [3, 3, 3],
            linear_head_dim: None,
            feature_map: FeatureMap::Softplus,
            fusion: Fusion::Gate,
            rope_theta: 10000.0,
            rope_in_kernel: RopeInKernel::Pre,
            qk_norm: QkNorm::AcrossHeads,
            eps: 1e-6,
            chunk_frames: Some(3),
            window_frames: 6,
            sink_frames: 0,
            state_write: StateWrite::Commit,
            sample_steps: SampleSteps::Timesteps(vec![1000.0, 750.0, 500.0, 250.0]),
            flow_shift: 5.0,
        };
        match self {
            Preset::B1_8 => large,
            Preset::Mobile => S2ditConfig { text_dim: 768, text_len: 77, state_write: StateWrite::LastStep, ..large },
            Preset::Small => S2ditConfig {
                num_attention_heads: 8,
                attention_head_dim: 64,
                ffn_dim: 2048,
                text_dim: 1024,
                text_len: 128,
                layout: vec![Lcha, Lcha, Ssa, Ssa, Lcha, Ssa, Lcha, Lcha],
                ..large
            },
            Preset::Tiny => S2ditConfig {
                in_channels: 4,
                out_channels: 4,
                num_attention_heads: 2,
                attention_head_dim: 24,
                ffn_dim: 128,
                text_dim: 32,
                text_len: 8,
                freq_dim: 32,
                layout: vec![Lcha, Ssa, Ssa, Lcha],
                window_frames: 7,
                ..large
            },
        }
    }
}

#[cfg(test)]
mod tests;
