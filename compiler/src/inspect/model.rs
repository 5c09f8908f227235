//! The model behind a checkpoint or an artifact: layers, parameters, costs.

use std::collections::BTreeMap;

use anyhow::Result;
use s2dit_ir::{Cost, Op};
use serde::Serialize;

use s2dit_models::s2dit::config::{LatentSize, S2ditConfig};
use s2dit_models::s2dit::schema::{ParameterGroup, expected_tensors};
use s2dit_models::{SchemaWeights, s2dit};

/// A run of blocks of one kind: a layer of the sandwich.
#[derive(Debug, Serialize)]
pub struct Layer {
    /// `lcha`, `ssa` or `full`.
    pub kind: String,
    /// First block.
    pub first: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// Tokens that its blocks see.
    pub tokens: usize,
    /// Number of the SSA stage, if the layer is one.
    pub stage: Option<usize>,
}

/// Cost of a block or another part of the step.
#[derive(Debug, Serialize)]
pub struct BlockCost {
    /// Provenance: `blocks.3`, `stages.0`, `condition_embedder`, ….
    pub part: String,
    /// Kind of a block; empty for other parts.
    pub kind: String,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes of weights in fp16.
    pub weight_bytes: u64,
    /// Bytes of activations in fp16 that the ops read and write, added up: memory traffic, and no peak of memory.
    pub activation_bytes: u64,
    /// Tensor ops.
    pub ops: usize,
}

/// The model.
#[derive(Debug, Serialize)]
pub struct ModelReport {
    /// Parameters.
    pub parameters: u64,
    /// Hidden size.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Blocks.
    pub blocks: usize,
    /// `4×lcha, 3×ssa, …`
    pub layout: String,
    /// `ar` (streams) or `bidirectional`.
    pub variant: &'static str,
    /// Latent frames of a streaming step.
    pub chunk_frames: Option<usize>,
    /// Latent of the costs, `[C, F, H, W]`.
    pub latent: [usize; 4],
    /// Token grid, `[frames, rows, columns]`.
    pub grid: [usize; 3],
    /// Layers, in order.
    pub layers: Vec<Layer>,
    /// Parameters by part.
    pub parts: Vec<(&'static str, u64)>,
    /// Costs, in order of the forward pass.
    pub costs: Vec<BlockCost>,
    /// The configuration.
    pub config: serde_json::Value,
}

impl ModelReport {
    /// The report of a configuration at a latent size.
    ///
    /// # Errors
    /// A latent that does not fit.
    pub fn new(config: &S2ditConfig, latent: LatentSize) -> Result<Self> {
        let grid = config.grid(latent)?;
        let stages = config.stages();
        let layers = config
            .runs()
            .into_iter()
            .map(|run| Layer {
                kind: run.kind.to_string(),
                first: run.blocks.start,
                blocks: run.blocks.len(),
                tokens: config.block_grid(run.blocks.start, grid).tokens(),
                stage: stages.iter().position(|s| *s == run.blocks),
            })
            .collect();
        let mut parts: BTreeMap<ParameterGroup, u64> = BTreeMap::new();
        for t in expected_tensors(config) {
            *parts.entry(t.group).or_default() += t.elements() as u64;
        }
        Ok(ModelReport {
            parameters: parts.values().sum(),
            width: config.hidden_size(),
            heads: config.num_attention_heads,
            head_dim: config.attention_head_dim,
            blocks: config.num_blocks(),
            layout: config.sandwich(),
            variant: if config.chunk_frames.is_some() { "ar" } else { "bidirectional" },
            chunk_frames: config.chunk_frames,
            latent: [config.in_channels, latent.frames, latent.rows, latent.cols],
            grid: [grid.frames, grid.rows, grid.cols],
            layers,
            parts: parts.into_iter().map(|(p, n)| (p.name(), n)).collect(),
            costs: costs(config, latent)?,
            config: config.to_json_value(),
        })
    }

    /// FLOPs of the step.
    #[must_use]
    pub fn flops(&self) -> u64 {
        self.costs.iter().map(|c| c.flops).sum()
    }
}

fn costs(config: &S2ditConfig, latent: LatentSize) -> Result<Vec<BlockCost>> {
    let module = s2dit::clip(config, &SchemaWeights::new(config), latent)?;
    let mut costs: Vec<BlockCost> = Vec::new();
    for f in &module.functions {
        for v in f.order() {
            if f.is_const(v) || matches!(f.op(v), Op::Input(_)) {
                continue;
            }
            let part = part_of(&f.node(v).scope);
            let at = costs.iter().position(|c| c.part == part).unwrap_or_else(|| {
                let kind = part.strip_prefix("blocks.").and_then(|n| n.parse::<usize>().ok());
                let kind = kind.and_then(|n| config.layout.get(n)).map(ToString::to_string).unwrap_or_default();
                costs.push(BlockCost { part, kind, flops: 0, weight_bytes: 0, activation_bytes: 0, ops: 0 });
                costs.len() - 1
            });
            let Cost { flops, bytes } = f.cost(v);
            // The graph is f32; the artifact that matters holds two bytes an element.
            let weights: usize = f.operands(v).iter().filter(|&&o| f.is_const(o)).map(|&o| f.ty(o).bytes()).sum();
            let cost = &mut costs[at];
            cost.flops += flops;
            cost.weight_bytes += weights as u64 / 2;
            cost.activation_bytes += bytes.saturating_sub(weights as u64) / 2;
            cost.ops += 1;
        }
    }
    Ok(costs)
}

/// `blocks.3.attn1.to_q` → `blocks.3`; `condition_embedder.…` → `condition_embedder`; the head has no path of its own.
fn part_of(scope: &str) -> String {
    let mut path = scope.split('.');
    match (path.next(), path.next()) {
        (Some(p @ ("blocks" | "stages")), Some(n)) => format!("{p}.{n}"),
        (None | Some(""), _) => "head".into(),
        (Some("proj_out"), _) => "head".into(),
        (Some(p), _) => p.into(),
    }
}
