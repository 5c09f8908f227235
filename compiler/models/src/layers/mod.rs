//! Layers that video transformers share, in plain tensor ops: patches, embeddings, attention, blocks, the output head.
//!
//! A layer reads its weights by the names that diffusers gives them, under the module path that the model has entered. Shapes in comments: D hidden
//! width, A heads, d = D/A, N tokens of the grid (frames F, rows h, columns w), L text tokens.

mod attention;
mod block;
mod embed;
mod rope;
mod specs;

use s2dit_ir::interface::{Input, InputRole, Interface, Milestone, Output, OutputRole};
use s2dit_ir::ops::OpError;
use s2dit_ir::{Builder, DType, Function, Module, TensorType, ValueId, WeightSource};
use serde::{Deserialize, Serialize};

pub(crate) use block::Conditions;
pub(crate) use rope::Rope;
pub(crate) use specs::group;
use s2dit_files::problems::Problems;

/// A graph that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The latent size does not fit the model.
    #[error(transparent)]
    Latent(#[from] Problems),
    /// The checkpoint lacks a tensor; validate it against the model's tensors first.
    #[error("tensor `{0}`: not in the checkpoint")]
    MissingTensor(String),
    /// An op's constraint does not hold: a defect of this compiler, or a checkpoint that was not validated.
    #[error("cannot build the graph: {0}")]
    Op(#[from] OpError),
}

/// A value, or why there is none.
pub(crate) type Built = Result<ValueId, BuildError>;

/// The extent of the RMS norm of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum QkNorm {
    /// The whole hidden size; gain `[D]`.
    #[serde(rename = "rms_norm_across_heads")]
    AcrossHeads,
    /// Each head alone; gain `[d]`, shared by the heads.
    #[serde(rename = "rms_norm_per_head")]
    PerHead,
}

impl QkNorm {
    /// Every extent.
    pub const ALL: [QkNorm; 2] = [QkNorm::AcrossHeads, QkNorm::PerHead];

    /// The name in `config.json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            QkNorm::AcrossHeads => "rms_norm_across_heads",
            QkNorm::PerHead => "rms_norm_per_head",
        }
    }
}

/// The numbers that layers of one model share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dims {
    /// Attention heads A.
    pub heads: usize,
    /// Width of a head, d.
    pub head_dim: usize,
    /// Patch (frames, rows, columns); the first is 1.
    pub patch_size: [usize; 3],
    /// Channels of the velocity.
    pub out_channels: usize,
    /// Width of the sinusoidal time embedding, even.
    pub freq_dim: usize,
    /// Base of the RoPE frequencies.
    pub rope_theta: f64,
    /// Extent of the RMS norm of queries and keys.
    pub qk_norm: QkNorm,
    /// The ε of every norm.
    pub eps: f64,
}

impl Dims {
    /// Hidden width D.
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Head width given to (frames, rows, columns) by RoPE.
    pub fn rope_split(&self) -> [usize; 3] {
        let space = 2 * (self.head_dim / 6);
        [self.head_dim - 2 * space, space, space]
    }

    /// Values of one output patch.
    pub fn patch_values(&self) -> usize {
        self.out_channels * self.patch_size.iter().product::<usize>()
    }

    /// Width of the gains of the query and key norms.
    pub fn qk_norm_width(&self) -> usize {
        match self.qk_norm {
            QkNorm::AcrossHeads => self.width(),
            QkNorm::PerHead => self.head_dim,
        }
    }
}

/// A function of layers that is being built.
pub(crate) struct Layers<'a> {
    /// Numbers that the layers share.
    pub dims: Dims,
    /// Weights by name.
    pub weights: &'a dyn WeightSource,
    /// The function.
    pub b: Builder<'a>,
}

/// The step of a video transformer as one function `main`: `latent [1,C,F,H,W]`, `timestep [1]`, `text [1,L,text_dim]` to
/// `velocity [1,C,F,H,W]`. `forward` gets the three inputs. It names the output of block `i` `block{i}`, of module path `blocks.{i}`, for as many
/// blocks as there are.
pub(crate) fn step(
    dims: Dims,
    weights: &dyn WeightSource,
    [latent, text]: [&[usize]; 2],
    blocks: usize,
    forward: impl FnOnce(&mut Layers<'_>, [ValueId; 3]) -> Built,
) -> Result<Module, BuildError> {
    let mut f = Function::new("main");
    let mut input = |name: &str, shape: &[usize]| f.add_param(name, TensorType::new(DType::F32, shape));
    let inputs = [input("latent", latent), input("timestep", &[1]), input("text", text)];
    let mut layers = Layers { dims, weights, b: Builder::new(&mut f) };
    let velocity = forward(&mut layers, inputs)?;
    f.set_name(velocity, "velocity");
    f.results.push(("velocity".into(), velocity));
    f.remove_dead();
    let role = |name: &str, role| Input { name: name.into(), role };
    let interface = Interface {
        inputs: vec![
            role("latent", InputRole::Latent),
            role("timestep", InputRole::Time { low: 0.0, high: 1000.0 }),
            role("text", InputRole::Text),
        ],
        outputs: vec![Output { name: "velocity".into(), role: OutputRole::Velocity }],
        milestones: (0..blocks).map(|i| Milestone { value: format!("block{i}"), scope: format!("blocks.{i}") }).collect(),
    };
    Ok(Module { interface, ..Module::single(f) })
}

impl Layers<'_> {
    /// Runs `body` with `name` appended to the provenance path.
    pub(crate) fn within<T>(
        &mut self,
        name: &str,
        body: impl FnOnce(&mut Self) -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        self.b.enter(name);
        let out = body(self);
        self.b.leave();
        out
    }

    /// The checkpoint tensor `name` of the current module, in f32.
    pub(crate) fn param(&mut self, name: &str) -> Built {
        let scope = self.b.scope();
        let full = if scope.is_empty() { name.to_string() } else { format!("{scope}.{name}") };
        let ty = self.weights.ty(&full).ok_or(BuildError::MissingTensor(full.clone()))?;
        let stored = self.b.load(&full, &ty)?;
        Ok(self.b.cast(stored, DType::F32)?)
    }

    /// The linear layer `name` of the current module.
    pub(crate) fn linear(&mut self, name: &str, x: ValueId) -> Built {
        self.within(name, |m| {
            let (w, b) = (m.param("weight")?, m.param("bias")?);
            Ok(m.b.linear(x, w, Some(b))?)
        })
    }

    /// LayerNorm over the last axis, without affine parameters.
    pub(crate) fn layer_norm(&mut self, x: ValueId) -> Built {
        let axis = self.b.shape(x).len() - 1;
        Ok(self.b.layer_norm(x, &[axis], self.dims.eps, None)?)
    }

    /// `LN(x)·(1 + scale) + shift`
    pub(crate) fn modulated_norm(&mut self, x: ValueId, shift: ValueId, scale: ValueId) -> Built {
        let norm = self.layer_norm(x)?;
        let scale = self.b.add_scalar(scale, 1.0)?;
        let scaled = self.b.mul(norm, scale)?;
        Ok(self.b.add(scaled, shift)?)
    }
}
