//! Reading the fields of a `config.json` of S2DiT, collecting every problem.

use serde_json::Value;

use super::{BlockKind, FeatureMap, Fusion, QkNorm, RopeInKernel, S2ditConfig, SampleSteps, StateWrite};
use crate::fields::{Fields, LARGEST, MOST_BLOCKS, MOST_FRAMES, as_integer, check_shift, check_width};
use s2dit_files::json::{Entries, compact};
use s2dit_files::problems::Problems;

/// Every field, in the order they are written.
pub(crate) const FIELDS: &[&str] = &[
    "in_channels",
    "out_channels",
    "patch_size",
    "num_attention_heads",
    "attention_head_dim",
    "ffn_dim",
    "text_dim",
    "text_len",
    "freq_dim",
    "layout",
    "ssa_stride",
    "kv_stride",
    "conv_kernel",
    "linear_head_dim",
    "feature_map",
    "fusion",
    "rope_theta",
    "rope_in_kernel",
    "qk_norm",
    "eps",
    "chunk_frames",
    "window_frames",
    "sink_frames",
    "state_write",
    "sample_steps",
    "flow_shift",
];

impl S2ditConfig {
    /// Parses the text of a `config.json` of S2DiT; `place` names it in problems.
    ///
    /// # Errors
    /// Every problem of the text.
    pub fn parse(text: &str, place: &str) -> Result<Self, Problems> {
        let Entries(entries) = serde_json::from_str(text)
            .map_err(|error| Problems::one(place, format!("bad JSON ({error})"), "a JSON object"))?;
        Self::from_entries(entries, place)
    }

    pub(crate) fn from_entries(entries: Vec<(String, Value)>, place: &str) -> Result<Self, Problems> {
        let mut fields = Fields::new(entries, FIELDS, place);
        let config = S2ditConfig {
            in_channels: fields.size("in_channels", None),
            out_channels: fields.size("out_channels", None),
            patch_size: fields.patch_size(None),
            num_attention_heads: fields.size("num_attention_heads", None),
            attention_head_dim: fields.head_dim(None),
            ffn_dim: fields.size("ffn_dim", None),
            text_dim: fields.size("text_dim", None),
            text_len: fields.size("text_len", None),
            freq_dim: fields.freq_dim(),
            layout: layout(&mut fields),
            ssa_stride: fields.integer("ssa_stride", Some(2), 1..=64),
            kv_stride: fields.integer("kv_stride", Some(2), 1..=64),
            conv_kernel: conv_kernel(&mut fields),
            linear_head_dim: linear_head_dim(&mut fields),
            feature_map: fields.choice(
                "feature_map",
                FeatureMap::Softplus,
                &[FeatureMap::Softplus, FeatureMap::Relu].map(|map| (map.name(), map)),
            ),
            fusion: fields.choice("fusion", Fusion::Gate, &[Fusion::Gate, Fusion::Sum].map(|how| (how.name(), how))),
            rope_theta: fields.positive("rope_theta", 10000.0),
            rope_in_kernel: fields.choice(
                "rope_in_kernel",
                RopeInKernel::Pre,
                &[RopeInKernel::Pre, RopeInKernel::Post].map(|mode| (mode.name(), mode)),
            ),
            qk_norm: fields.choice("qk_norm", QkNorm::AcrossHeads, &QkNorm::ALL.map(|norm| (norm.name(), norm))),
            eps: fields.eps("eps", 1e-6),
            chunk_frames: chunk_frames(&mut fields),
            window_frames: fields.integer("window_frames", Some(6), 0..=LARGEST),
            sink_frames: fields.integer("sink_frames", Some(0), 0..=MOST_FRAMES),
            state_write: fields.choice(
                "state_write",
                StateWrite::Commit,
                &[StateWrite::Commit, StateWrite::LastStep].map(|pass| (pass.name(), pass)),
            ),
            sample_steps: sample_steps(&mut fields),
            flow_shift: fields.positive("flow_shift", 5.0),
        };
        fields.finish()?;
        check_width(config.hidden_size(), place)?;
        if let Some(width) = config.linear_head_dim.filter(|width| !config.hidden_size().is_multiple_of(*width)) {
            let expected = format!("a width that divides the hidden size {}", config.hidden_size());
            return Err(Problems::one(format!("{place}: linear_head_dim"), width.to_string(), expected));
        }
        check_shift(&config.sigmas(), config.flow_shift, place)?;
        Ok(config)
    }
}

fn conv_kernel(fields: &mut Fields<'_>) -> [usize; 3] {
    let kernel = fields.triple("conv_kernel", true).unwrap_or([3, 3, 3]);
    for (axis, size) in kernel.into_iter().enumerate() {
        if size % 2 == 0 {
            fields.problem(&format!("conv_kernel[{axis}]"), size.to_string(), "an odd size");
        }
    }
    kernel
}

fn layout(fields: &mut Fields<'_>) -> Vec<BlockKind> {
    let names: Vec<String> = BlockKind::ALL.iter().map(|kind| format!("\"{kind}\"")).collect();
    let (last, first) = names.split_last().map_or(("", &[][..]), |(last, first)| (last.as_str(), first));
    let kinds = format!("{} or {last}", first.join(", "));
    let expected = format!("a list of 1 to {MOST_BLOCKS} blocks, each {kinds}");
    let Some(value) = fields.take("layout", false, &expected) else { return Vec::new() };
    let items = match value.as_array() {
        Some(items) if (1..=MOST_BLOCKS).contains(&items.len()) => items,
        _ => {
            fields.problem("layout", compact(&value), expected);
            return Vec::new();
        }
    };
    let mut layout = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        match BlockKind::ALL.into_iter().find(|kind| item.as_str() == Some(kind.name())) {
            Some(kind) => layout.push(kind),
            None => fields.problem(&format!("layout[{index}]"), compact(item), kinds.as_str()),
        }
    }
    layout
}

fn linear_head_dim(fields: &mut Fields<'_>) -> Option<usize> {
    const FIELD: &str = "linear_head_dim";
    let value = fields.remove(FIELD).filter(|value| !value.is_null())?;
    let width = as_integer(&value, &(6..=4096)).filter(|width| width % 2 == 0);
    if width.is_none() {
        fields.problem(FIELD, compact(&value), "null or an even width from 6 to 4096 (RoPE rotates pairs)");
    }
    width
}

fn chunk_frames(fields: &mut Fields<'_>) -> Option<usize> {
    match fields.remove("chunk_frames") {
        None => Some(3),
        Some(Value::Null) => None,
        Some(value) => {
            let frames = as_integer(&value, &(1..=LARGEST));
            if frames.is_none() {
                fields.problem("chunk_frames", compact(&value), format!("null or an integer from 1 to {LARGEST}"));
            }
            frames
        }
    }
}

fn sample_steps(fields: &mut Fields<'_>) -> SampleSteps {
    const FIELD: &str = "sample_steps";
    let default = || SampleSteps::Timesteps(vec![1000.0, 750.0, 500.0, 250.0]);
    let Some(value) = fields.remove(FIELD) else { return default() };
    if let Some(count) = as_integer(&value, &(1..=100_000)) {
        return SampleSteps::Count(count);
    }
    let steps: Option<Vec<f64>> = value.as_array().and_then(|items| items.iter().map(Value::as_f64).collect());
    match steps {
        Some(steps)
            if !steps.is_empty()
                && steps[0] > 0.0
                && steps.iter().all(|t| (0.0..=1000.0).contains(t))
                && steps.is_sorted_by(|a, b| a > b) =>
        {
            SampleSteps::Timesteps(steps)
        }
        _ => {
            let expected =
                "a number of steps (1 to 100000), or a list of timesteps that descends within 0 to 1000 from above 0";
            fields.problem(FIELD, compact(&value), expected);
            default()
        }
    }
}
