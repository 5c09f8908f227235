//! States as handles: tensors that outlive calls, read and written in the order that tokens say.

use anyhow::{Context, Result, ensure};
use s2dit_ir::ops::Op;
use s2dit_ir::{Function, StateDecl};

use super::super::op;
use super::super::program::{Argument, Type, UNKNOWN, Value};
use super::{Lowering, type_of};

/// A state of a graph.
pub(super) struct Handle<'a> {
    state: &'a StateDecl,
    /// The graph's argument.
    argument: Value,
    /// What was read, and the token that came with it.
    read: Option<(Value, Value)>,
}

impl Handle<'_> {
    /// The state's name.
    pub(super) fn name(&self) -> &str {
        &self.state.name
    }
}

/// The states that a function reads or writes, in the order of declaration; each becomes an argument. (Apple's runtime refuses a handle that nothing
/// is done with.)
pub(super) fn handles<'a>(
    f: &Function,
    declared: &'a [StateDecl],
    arguments: &mut Vec<Argument>,
) -> Result<Vec<Handle<'a>>> {
    let read = f.values().into_iter().filter_map(|v| match f.op(v) {
        Op::State(state) => Some(state.state.as_str()),
        _ => None,
    });
    let touched: Vec<&str> = read.chain(f.updates.iter().map(|(name, _)| name.as_str())).collect();
    let lacks = touched.iter().find(|name| !declared.iter().any(|state| state.name == **name));
    ensure!(lacks.is_none(), "function `{}`: a state `{}` that is not declared", f.name, lacks.unwrap_or(&""));
    let mut handles = Vec::new();
    for state in declared.iter().filter(|state| touched.contains(&state.name.as_str())) {
        let of = || format!("the state `{}` of function `{}`", state.name, f.name);
        let Type::Tensor { shape, element } = type_of(&state.ty).with_context(of)? else { continue };
        handles.push(Handle { state, argument: arguments.len(), read: None });
        arguments.push(Argument { ty: Type::Handle { shape, element }, file: UNKNOWN.into() });
    }
    Ok(handles)
}

impl Lowering<'_> {
    /// What a state was when the graph was called.
    pub(super) fn read_state(&mut self, name: &str) -> Result<Value> {
        let at = self.states.iter().position(|handle| handle.name() == name).context("a state that is not declared")?;
        if let Some((value, _)) = self.states[at].read {
            return Ok(value);
        }
        let ty = type_of(&self.states[at].state.ty)?;
        let token = self.emit(op::CREATE_TOKEN, &[], Type::Token);
        let read = self.block.pair(op::READ_HANDLE, &[self.states[at].argument, token], &[ty, Type::Token]);
        self.states[at].read = Some(read);
        Ok(read.0)
    }

    /// Writes the states, and gives the last token of each: results of the graph.
    pub(super) fn write_states(&mut self) -> Result<Vec<Value>> {
        let mut tokens = Vec::new();
        for at in 0..self.states.len() {
            let Handle { state, argument, read } = self.states[at];
            let token = match read {
                Some((_, token)) => token,
                None => self.emit(op::CREATE_TOKEN, &[], Type::Token),
            };
            tokens.push(match self.f.updates.iter().find(|(name, _)| *name == state.name) {
                Some((_, v)) => {
                    let value = self.value_as(*v, &state.ty.shape)?;
                    self.emit(op::WRITE_HANDLE, &[argument, value, token], Type::Token)
                }
                None => token,
            });
        }
        Ok(tokens)
    }
}
