//! One step of a video transformer as a function with its interface.

use s2dit_ir::interface::{Input, InputRole, Interface, Milestone, Output, OutputRole};
use s2dit_ir::{Builder, DType, Function, Module, TensorType, ValueId, WeightSource};

use super::builder::{BuildError, Built, Layers};
use super::dims::Dims;
use crate::size::{Grid, LatentSize};

/// The step of a video transformer as one function `main`: `latent [1,C,F,H,W]`, `timestep [1]`, `text [1,L,text_dim]` to
/// `velocity [1,C,F,H,W]`. `forward` gets the three inputs and the token grid. It names the output of block `i` `block{i}`, of module path `blocks.{i}`, for as many
/// blocks as there are.
pub(crate) fn step(
    dims: Dims,
    weights: &dyn WeightSource,
    latent: LatentSize,
    blocks: usize,
    forward: impl FnOnce(&mut Layers<'_>, [ValueId; 3], Grid) -> Built,
) -> Result<Module, BuildError> {
    let grid = dims.grid(latent)?;
    let shape = [1, dims.in_channels, latent.frames, latent.rows, latent.cols];
    let mut f = Function::new("main");
    let mut input = |name: &str, shape: &[usize]| f.add_param(name, TensorType::new(DType::F32, shape));
    let inputs = [input("latent", &shape), input("timestep", &[1]), input("text", &[1, dims.text_len, dims.text_dim])];
    let mut layers = Layers { dims, weights, b: Builder::new(&mut f) };
    let velocity = forward(&mut layers, inputs, grid)?;
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
        milestones: (0..blocks)
            .map(|i| Milestone { value: format!("block{i}"), scope: format!("blocks.{i}") })
            .collect(),
    };
    Ok(Module { interface, ..Module::single(f) })
}
