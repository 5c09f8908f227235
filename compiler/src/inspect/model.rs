//! The model behind a checkpoint or an artifact: layers, parameters, costs.

use std::collections::HashMap;

use anyhow::Result;
use s2dit_ir::weights::sources;
use s2dit_ir::{Cost, Module, Op, ValueId};
use serde::Serialize;

use s2dit_models::SchemaWeights;
use s2dit_models::model::{Model, Outline, Part, Sampler};
use s2dit_models::size::Size;

/// A run of blocks of one kind: a layer of the sandwich.
#[derive(Debug, Serialize)]
pub struct Layer {
    /// Kind of the blocks, such as `lcha`, `ssa` or `full`.
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

/// An input of the step.
#[derive(Debug, Serialize)]
pub struct InputReport {
    /// Name of the input.
    pub name: String,
    /// Shape of the input.
    pub shape: Vec<usize>,
}

/// The model.
#[derive(Debug, Serialize)]
pub struct ModelReport {
    /// Name of the family.
    pub family: &'static str,
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
    /// Of a step `ar` (streams) or `bidirectional`; of all else what it does in a pipeline, such as `text encoder`.
    pub variant: String,
    /// Latent frames of a streaming step.
    pub chunk_frames: Option<usize>,
    /// Latent frames before the chunk that attention of a stream sees, the sink not counted.
    pub window_frames: Option<usize>,
    /// Latent frames at the start of a stream that attention always sees.
    pub sink_frames: Option<usize>,
    /// Latent of the costs, `[C, F, H, W]`; none of a text encoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latent: Option<[usize; 4]>,
    /// Token grid, `[frames, rows, columns]`.
    pub grid: [usize; 3],
    /// Layers, in order.
    pub layers: Vec<Layer>,
    /// Parameters by part.
    pub parts: Vec<(&'static str, u64)>,
    /// Costs, in order of the forward pass.
    pub costs: Vec<BlockCost>,
    /// Inputs of the step.
    pub inputs: Vec<InputReport>,
    /// The sampler in words; `None` for a model that has none.
    pub sampler: Option<String>,
    /// The configuration.
    pub config: serde_json::Value,
}

impl ModelReport {
    /// The report of a model at a size.
    ///
    /// # Errors
    /// A size that does not fit.
    pub fn new(model: &dyn Model, size: Size) -> Result<Self> {
        let (grid, outline) = (model.grid(size)?, model.outline());
        let layers = (outline.layers.iter())
            .map(|layer| Layer {
                kind: layer.kind.into(),
                first: layer.blocks.start,
                blocks: layer.blocks.len(),
                tokens: grid.strided(layer.stride).tokens(),
                stage: layer.stage,
            })
            .collect();
        let mut parts: Vec<(&'static str, u64)> = Vec::new();
        for t in model.tensors() {
            let elements = t.elements() as u64;
            match parts.iter_mut().find(|(group, _)| *group == t.group) {
                Some((_, sum)) => *sum += elements,
                None => parts.push((t.group, elements)),
            }
        }
        let module = model.build(&SchemaWeights::new(model), size)?;
        let find = |name: &str| module.functions.iter().find_map(|f| Some(f.shape(f.by_name(name)?)));
        let latent = module.interface.latent().and_then(find).and_then(|shape| shape.get(1..)?.try_into().ok());
        let input = |name: &String| Some(InputReport { name: name.clone(), shape: find(name)?.to_vec() });
        let inputs = module.interface.inputs.iter().filter_map(|i| input(&i.name)).collect();
        let streaming = model.streaming().ok();
        Ok(ModelReport {
            family: model.family().name(),
            parameters: parts.iter().map(|(_, n)| n).sum(),
            width: outline.width,
            heads: outline.heads,
            head_dim: outline.head_dim,
            blocks: outline.blocks(),
            layout: outline.sandwich(),
            variant: match (model.family().part(), streaming.is_some()) {
                (Part::Step, true) => "ar".into(),
                (Part::Step, false) => "bidirectional".into(),
                (part, _) => part.to_string(),
            },
            chunk_frames: streaming.map(|streaming| streaming.chunk_frames),
            window_frames: streaming.map(|streaming| streaming.window_frames),
            sink_frames: streaming.map(|streaming| streaming.sink_frames),
            latent,
            grid: [grid.frames, grid.rows, grid.cols],
            layers,
            parts,
            costs: costs(&module, &outline),
            inputs,
            sampler: model.sampler().ok().map(|sampler| in_words(&sampler)),
            config: model.config(),
        })
    }

    /// FLOPs of the step.
    #[must_use]
    pub fn flops(&self) -> u64 {
        self.costs.iter().map(|c| c.flops).sum()
    }
}

/// `4 fixed steps at timesteps 1000, 937.5, 833.33, 625`
fn in_words(sampler: &Sampler) -> String {
    match sampler {
        Sampler::Fixed { sigmas, .. } => {
            let timesteps = sampler.timesteps().into_iter().map(|t| ((100.0 * t).round() / 100.0).to_string());
            format!("{} fixed step(s) at timesteps {}", sigmas.len(), timesteps.collect::<Vec<_>>().join(", "))
        }
        Sampler::Euler { steps, shift } => format!("{steps} Euler step(s), shift {shift}"),
    }
}

/// The costs of a module's parts, in order of the forward pass.
pub(super) fn costs(module: &Module, outline: &Outline) -> Vec<BlockCost> {
    let mut costs: Vec<BlockCost> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let blocks = module.interface.blocks();
    for f in &module.functions {
        for v in f.order() {
            if f.is_const(v) || matches!(f.op(v), Op::Input(_)) {
                continue;
            }
            let scope = &*f.node(v).scope;
            let block = blocks.of(scope);
            let part = match block {
                Some(block) => module.interface.milestones[block].scope.clone(),
                None => part_of(scope),
            };
            let at = places.get(&part).copied().unwrap_or_else(|| {
                let kind = block.and_then(|block| outline.kind(block)).unwrap_or_default().to_owned();
                places.insert(part.clone(), costs.len());
                costs.push(BlockCost { part, kind, flops: 0, weight_bytes: 0, activation_bytes: 0, ops: 0 });
                costs.len() - 1
            });
            let Cost { flops, bytes } = f.cost(v);
            // The graph is f32; the artifact that matters holds two bytes an element.
            let constants: Vec<ValueId> = f.operands(v).into_iter().filter(|&o| f.is_const(o)).collect();
            let bytes_of =
                |list: &mut dyn Iterator<Item = &ValueId>| list.map(|&o| f.ty(o).bytes() as u64).sum::<u64>();
            // Tables of positions and other numbers are no weights.
            let weights = bytes_of(&mut constants.iter().filter(|&&o| sources(f, o).is_some()));
            let cost = &mut costs[at];
            cost.flops += flops;
            cost.weight_bytes += weights / 2;
            cost.activation_bytes += bytes.saturating_sub(bytes_of(&mut constants.iter())) / 2;
            cost.ops += 1;
        }
    }
    costs
}

/// The part of the model outside of blocks that an op is counted in: `stages.0.down` → `stages.0`, `condition_embedder.…` →
/// `condition_embedder`; what has no path of its own, and the last projection, are the head.
fn part_of(scope: &str) -> String {
    let mut path = scope.split('.');
    match (path.next(), path.next()) {
        (Some(p), Some(n)) if n.parse::<usize>().is_ok() => format!("{p}.{n}"),
        (None | Some("" | "proj_out"), _) => "head".into(),
        (Some(p), _) => p.into(),
    }
}
