//! MIL → IR: a program as it lies on disk, made into a graph that can be run.
//!
//! Written against the format and Apple's op definitions (iOS 18), not against this compiler's writer: a package that
//! coremltools made from PyTorch is raised by the same code. Each op's result is compared with the type that the program
//! declares for it.

mod activation;
mod args;
mod attention;
mod compressed;
mod constant;
mod elementwise;
mod norm;
mod product;
mod reduce;
mod select;
mod shape;
mod slice;

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result, bail};
use s2dit_ir::ops::State;
use s2dit_ir::{Builder, Function, Module, StateDecl, TensorType, ValueId};

use super::proto::{Operation, ValueType, value_type};
use super::read::Package;
use crate::{Error, UnsupportedOps};
use constant::{Constant, tensor_type};

/// Raises a function of a package, `None` for the default one. Weights are `load`s of the package.
///
/// # Errors
/// Ops that are not supported (all of them, together); an op that is malformed or whose result is not what the program
/// declares; a function that does not exist.
pub fn raise(package: &Package, function: Option<&str>) -> Result<Module, Error> {
    raised(package, function).map_err(Error::reading)
}

fn raised(package: &Package, function: Option<&str>) -> Result<Module> {
    let (name, program) = package.function(function)?;
    let block = package.block(&name, program)?;
    let unknown = unknown_ops(&block.operations);
    if !unknown.is_empty() {
        let ops = unknown.into_iter().map(|(op, n)| (op.to_string(), n)).collect();
        return Err(UnsupportedOps { package: package.path().display().to_string(), function: name, ops }.into());
    }
    let mut states = Vec::new();
    let mut f = Function::new(name.clone());
    let mut r = Raise {
        package,
        b: Builder::new(&mut f),
        values: HashMap::new(),
        constants: HashMap::new(),
        state_types: HashMap::new(),
        names: HashSet::new(),
        updates: Vec::new(),
    };
    for input in &program.inputs {
        r.claim(&input.name).with_context(|| format!("`{}`: an input", package.path().display()))?;
        match input.r#type.as_ref().and_then(|t| t.r#type.as_ref()) {
            Some(value_type::Type::StateType(state)) => {
                let ty = state.wrapped_type.as_deref().context("a state without a type").and_then(wrapped)?;
                states.push(StateDecl { name: input.name.clone(), ty: ty.clone() });
                r.state_types.insert(input.name.clone(), ty);
            }
            Some(value_type::Type::TensorType(t)) => {
                let ty = tensor_type(t).with_context(|| format!("input `{}`", input.name))?;
                let v = r.b.f.add_param(&input.name, ty);
                r.values.insert(input.name.clone(), v);
            }
            _ => bail!("input `{}`: expected a tensor or a state", input.name),
        }
    }
    for op in &block.operations {
        let shown = op.outputs.first().map_or(op.r#type.as_str(), |o| o.name.as_str());
        r.operation(op)
            .with_context(|| format!("`{}`, op `{}` of value `{shown}`", package.path().display(), op.r#type))?;
    }
    let results: Vec<(String, ValueId)> = block
        .outputs
        .iter()
        .map(|name| Ok((name.clone(), r.value(name).with_context(|| format!("output `{name}`"))?)))
        .collect::<Result<_>>()?;
    let updates = std::mem::take(&mut r.updates);
    f.results = results;
    f.updates = updates;
    Ok(Module { states, ..Module::single(f) })
}

/// A function that raises one op and returns the op's results, in order.
type Handler = for<'a, 'p> fn(&mut Raise<'a, 'p>, &Operation) -> Result<Vec<ValueId>>;

/// Every op that can be raised.
fn handler(op: &str) -> Option<Handler> {
    elementwise::handler(op)
        .or_else(|| product::handler(op))
        .or_else(|| reduce::handler(op))
        .or_else(|| norm::handler(op))
        .or_else(|| shape::handler(op))
        .or_else(|| slice::handler(op))
        .or_else(|| select::handler(op))
        .or_else(|| attention::handler(op))
        .or_else(|| compressed::handler(op))
        .or_else(|| activation::handler(op))
}

fn unknown_ops(operations: &[Operation]) -> BTreeMap<&str, usize> {
    let mut unknown = BTreeMap::new();
    for op in operations {
        if !matches!(op.r#type.as_str(), "const" | "read_state" | "write_state") && handler(&op.r#type).is_none() {
            *unknown.entry(op.r#type.as_str()).or_default() += 1;
        }
    }
    unknown
}

fn wrapped(ty: &ValueType) -> Result<TensorType> {
    match ty.r#type.as_ref() {
        Some(value_type::Type::TensorType(t)) => tensor_type(t),
        _ => bail!("expected a tensor type"),
    }
}

/// A function being raised.
struct Raise<'a, 'p> {
    package: &'p Package,
    b: Builder<'a>,
    /// IR values by MIL name.
    values: HashMap<String, ValueId>,
    /// MIL constants by name; they become IR values when an op uses them as a tensor.
    constants: HashMap<String, Constant>,
    state_types: HashMap<String, TensorType>,
    names: HashSet<String>,
    updates: Vec<(String, ValueId)>,
}

impl Raise<'_, '_> {
    fn operation(&mut self, op: &Operation) -> Result<()> {
        match op.r#type.as_str() {
            "const" => return self.constant(op),
            "read_state" => return self.read_state(op),
            "write_state" => return self.write_state(op),
            _ => {}
        }
        let handler = handler(&op.r#type).context("this op cannot be run here")?;
        if !op.blocks.is_empty() {
            bail!("nested blocks cannot be run here");
        }
        let name = op.attributes.get("name").and_then(Constant::immediate_text).unwrap_or_default();
        self.b.enter(&name);
        let results = handler(self, op);
        self.b.leave();
        let results = results?;
        if results.len() != op.outputs.len() {
            bail!("expected {} result(s), the program declares {}", results.len(), op.outputs.len());
        }
        for (v, declared) in results.into_iter().zip(&op.outputs) {
            self.define(&declared.name, v, declared.r#type.as_ref())?;
        }
        Ok(())
    }

    /// Binds a MIL name to a value of the declared type.
    fn define(&mut self, name: &str, v: ValueId, declared: Option<&ValueType>) -> Result<()> {
        let declared = declared.context("a result without a type").and_then(wrapped)?;
        let found = self.b.f.ty(v);
        if *found != declared {
            bail!("the program declares `{name}` as {declared}, the op gives {found}");
        }
        if self.b.f.node(v).name.is_none() {
            self.b.f.set_name(v, name);
        }
        self.claim(name)?;
        self.values.insert(name.to_string(), v);
        Ok(())
    }

    /// The type that the program declares for an op's only result.
    fn declared(&self, op: &Operation) -> Result<TensorType> {
        let [output] = &op.outputs[..] else { bail!("expected one result, the program declares {}", op.outputs.len()) };
        output.r#type.as_ref().context("a result without a type").and_then(wrapped)
    }

    /// Names are unique in a function, whatever they name.
    fn claim(&mut self, name: &str) -> Result<()> {
        if name.is_empty() || !self.names.insert(name.to_string()) {
            bail!("the name `{name}` is {}", if name.is_empty() { "empty" } else { "defined twice" });
        }
        Ok(())
    }

    fn read_state(&mut self, op: &Operation) -> Result<()> {
        let state = self.name_of(op, "input")?.to_string();
        let ty = self.state_types.get(&state).cloned().with_context(|| format!("`{state}` is not a state"))?;
        // After a write in the same call, the new value is read.
        let v = match self.updates.iter().find(|(s, _)| *s == state) {
            Some((_, v)) => *v,
            None => self.b.f.add_leaf(State { state }.into(), &ty, "")?,
        };
        let output = op.outputs.first().context("read_state without a result")?;
        self.define(&output.name, v, output.r#type.as_ref())
    }

    fn write_state(&mut self, op: &Operation) -> Result<()> {
        let state = self.name_of(op, "input")?.to_string();
        let v = self.operand(op, "data")?;
        let ty = self.state_types.get(&state).with_context(|| format!("`{state}` is not a state"))?;
        if self.b.f.ty(v) != ty {
            bail!("state `{state}` is {ty}, written with {}", self.b.f.ty(v));
        }
        self.updates.retain(|(s, _)| *s != state);
        self.updates.push((state, v));
        Ok(())
    }
}
