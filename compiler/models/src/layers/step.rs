//! One step of a video transformer as a function with its interface.

use s2dit_ir::interface::{Input, InputRole, Interface, Milestone, Output, OutputRole};
use s2dit_ir::{Builder, DType, Function, Module, TensorType, ValueId, WeightSource};

use super::builder::{BuildError, Built, Layers};
use super::dims::Dims;
use super::text::TEXT_MASK;
use crate::size::{Grid, StepSize};

/// What a step takes beside a latent, one timestep and a text.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extras {
    /// A timestep for each token, `[1, N]`, in the place of one, `[1]`.
    pub time_per_token: bool,
    /// Tokens and width of the embeddings of an image, `[B, tokens, width]`.
    pub image: Option<[usize; 2]>,
    /// Width of one embedding of the whole text, `[B, width]`.
    pub pooled: Option<usize>,
    /// The strength of distilled guidance, `[1]`.
    pub guidance: bool,
}

/// The inputs of a step.
#[derive(Clone, Copy)]
pub(crate) struct Inputs {
    /// The noisy latent `[B, C, F, H, W]`.
    pub latent: ValueId,
    /// The timestep `[1]`, or one for each token, `[1, N]`.
    pub time: ValueId,
    /// Text embeddings `[B, L, text_dim]`.
    pub text: ValueId,
    /// Embeddings of an image `[B, tokens, width]`.
    pub image: Option<ValueId>,
    /// One embedding of the whole text `[B, width]`.
    pub pooled: Option<ValueId>,
    /// The strength of distilled guidance `[1]`.
    pub guidance: Option<ValueId>,
}

/// A list of blocks of a step.
#[derive(Clone, Copy)]
pub(crate) struct Blocks {
    /// Module path of the list that they are in, such as `blocks`.
    pub path: &'static str,
    /// Number of blocks.
    pub count: usize,
}

impl Layers<'_> {
    /// A further input of the step, `text_mask [B, L]` of the `text [B, L, text_dim]`: 1 where a text token counts, 0 where it is padding.
    pub(crate) fn text_mask(&mut self, text: ValueId) -> ValueId {
        let ty = TensorType::new(DType::F32, &self.b.shape(text)[..2]);
        self.b.f.add_param(TEXT_MASK, ty)
    }
}

/// The step of a video transformer as one function `main`: `latent [B,C,F,H,W]`, `timestep [1]`, `text [B,L,text_dim]`, the `extras` and, where
/// the model asks for it, `text_mask [B,L]` to `velocity [B,C,F,H,W]`. What follows from the timestep alone is computed once for all clips of the batch. `forward` gets the inputs and the token grid. It names the output of each
/// block by [`Layers::end_block`]; blocks are counted through all lists.
pub(crate) fn step(
    dims: Dims,
    weights: &dyn WeightSource,
    size: StepSize,
    blocks: &[Blocks],
    extras: Extras,
    forward: impl FnOnce(&mut Layers<'_>, Inputs, Grid) -> Built,
) -> Result<Module, BuildError> {
    let StepSize { latent, batch } = size;
    let grid = dims.grid(latent)?;
    let mut f = Function::new("main");
    let mut roles = Vec::new();
    let mut input = |name: &str, role: InputRole, shape: &[usize]| {
        roles.push(Input { name: name.into(), role });
        f.add_param(name, TensorType::new(DType::F32, shape))
    };
    let shape = [batch, dims.in_channels, latent.frames, latent.rows, latent.cols];
    let times: &[usize] = if extras.time_per_token { &[1, grid.tokens()] } else { &[1] };
    let inputs = Inputs {
        latent: input("latent", InputRole::Latent, &shape),
        time: input("timestep", InputRole::Time { low: 0.0, high: 1000.0 }, times),
        text: input("text", InputRole::Text, &[batch, dims.text_len, dims.text_dim]),
        image: extras.image.map(|[tokens, width]| input("image", InputRole::Image, &[batch, tokens, width])),
        pooled: extras.pooled.map(|width| input("pooled", InputRole::Pooled, &[batch, width])),
        guidance: extras.guidance.then(|| input("guidance", InputRole::Guidance, &[1])),
    };
    let mut layers = Layers { dims, weights, b: Builder::new(&mut f) };
    let velocity = forward(&mut layers, inputs, grid)?;
    f.set_name(velocity, "velocity");
    f.results.push(("velocity".into(), velocity));
    f.remove_dead();
    roles.extend(f.by_name(TEXT_MASK).map(|_| Input { name: TEXT_MASK.into(), role: InputRole::TextMask }));
    let scopes = blocks.iter().flat_map(|list| (0..list.count).map(|i| format!("{}.{i}", list.path)));
    let interface = Interface {
        inputs: roles,
        outputs: vec![Output { name: "velocity".into(), role: OutputRole::Velocity }],
        milestones: scopes.enumerate().map(|(i, scope)| Milestone { value: format!("block{i}"), scope }).collect(),
    };
    Ok(Module { interface, ..Module::single(f) })
}
