//! A component of a pipeline that is no step of diffusion, as a function with its interface: a text encoder, a decoder.

use s2dit_ir::interface::{Input, InputRole, Interface, Milestone, Output, OutputRole};
use s2dit_ir::{Builder, Function, Module, TensorType, ValueId, WeightSource};

use super::builder::{BuildError, Layers};
use super::step::Blocks;

/// A result of a component: its name, what it is, and its value.
pub(crate) type Made = (&'static str, OutputRole, ValueId);

/// A component as one function `main`. `forward` gets the values of the `inputs`, each a name, what is passed in it and its type, and makes
/// the results, the one that a proof judges by first. It names the output of each block by [`Layers::end_block`]; blocks are counted through
/// all lists.
pub(crate) fn component<const N: usize>(
    weights: &dyn WeightSource,
    inputs: [(&str, InputRole, TensorType); N],
    blocks: &[Blocks],
    forward: impl FnOnce(&mut Layers<'_, ()>, [ValueId; N]) -> Result<Vec<Made>, BuildError>,
) -> Result<Module, BuildError> {
    let mut f = Function::new("main");
    let mut roles = Vec::new();
    let values = inputs.map(|(name, role, ty)| {
        roles.push(Input { name: name.into(), role });
        f.add_param(name, ty)
    });
    let mut layers = Layers { dims: (), weights, b: Builder::new(&mut f) };
    let made = forward(&mut layers, values)?;
    for &(name, _, value) in &made {
        f.set_name(value, name);
        f.results.push((name.into(), value));
    }
    f.remove_dead();
    let outputs = made.iter().map(|(name, role, _)| Output { name: (*name).into(), role: *role });
    let scopes = blocks.iter().flat_map(|list| (0..list.count).map(|i| format!("{}.{i}", list.path)));
    let interface = Interface {
        inputs: roles,
        outputs: outputs.collect(),
        milestones: scopes.enumerate().map(|(i, scope)| Milestone { value: format!("block{i}"), scope }).collect(),
    };
    Ok(Module { interface, ..Module::single(f) })
}
