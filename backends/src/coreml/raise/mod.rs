//! MIL → IR: a program as it lies on disk, made into a graph that can be run.
//!
//! Written against the format and Apple's op definitions, not against this compiler's writer: a package that coremltools made from
//! PyTorch is raised by the same code. Each op's result is compared with the type that the program declares for it.
//!
//! The IR has static shapes and no control flow, and every parameter of an op is a number. A program may be freer than that: shapes that
//! follow from its inputs, branches, loops, lists, ops whose results have as many elements as there are. Such a program is raised for one call
//! ([`raise_for`]): shapes are those of the call's inputs, and a number that decides what comes next is computed at once, from the caller's
//! values. What is left is a graph.

mod activation;
mod args;
mod attention;
mod block;
mod compressed;
mod constant;
mod elementwise;
mod fill;
mod index;
mod integer;
mod known;
mod lists;
mod norm;
mod product;
mod random;
mod recurrent;
mod reduce;
mod resize;
mod sample;
mod select;
mod shape;
mod slice;
mod sort;
mod suppression;
mod types;
mod window;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result, bail};
use s2dit_ir::ops::State;
use s2dit_ir::{Builder, Function, Module, StateDecl, Tensor, TensorType, ValueId};

use super::proto::{Operation, ValueType, value_type};
use super::read::{Package, is_compressed};
use crate::{Error, UnsupportedOps};
use constant::Constant;
pub use known::{Caller, CallerError};
use lists::List;
use types::Declared;

/// A program raised for one call.
#[derive(Debug)]
pub struct Raised {
    /// The function, with a parameter for each input and for each of `given`.
    pub module: Module,
    /// Values that were computed while the program was raised, by the parameter that takes them.
    pub given: BTreeMap<String, Tensor>,
    /// Whether the graph depends on the values of inputs or states, so that another call has another graph. Otherwise it depends on their shapes.
    pub for_one_call: bool,
}

/// Raises a function of a package, `None` for the default one. Weights are `load`s of the package.
///
/// # Errors
/// Ops that are not supported (all of them, together); an op that is malformed or whose result is not what the program
/// declares; a shape, branch or loop that depends on the inputs; a function that does not exist.
pub fn raise(package: &Package, function: Option<&str>) -> Result<Module, Error> {
    raised(package, function, None).map(|raised| raised.module).map_err(Error::reading)
}

/// Raises a function of a package for a call: as [`raise`], but shapes, branches and loops may depend on the inputs.
///
/// # Errors
/// As [`raise`]; values that the caller does not have.
pub fn raise_for(package: &Package, function: Option<&str>, caller: &dyn Caller) -> Result<Raised, Error> {
    raised(package, function, Some(caller)).map_err(Error::reading)
}

fn raised(package: &Package, function: Option<&str>, caller: Option<&dyn Caller>) -> Result<Raised> {
    let (name, program) = package.function(function)?;
    let block = package.block(&name, program)?;
    let mut unknown = BTreeMap::new();
    unknown_ops(&block.operations, &mut unknown);
    if !unknown.is_empty() {
        let ops = unknown.into_iter().map(|(op, n)| (op.to_string(), n)).collect();
        return Err(UnsupportedOps { package: package.path().display().to_string(), function: name, ops }.into());
    }
    let mut states = Vec::new();
    let mut f = Function::new(name.clone());
    let mut r = Raise {
        package,
        caller,
        opset: program.opset.clone(),
        b: Builder::new(&mut f),
        values: HashMap::new(),
        lists: HashMap::new(),
        constants: HashMap::new(),
        state_types: HashMap::new(),
        names: HashSet::new(),
        updates: Vec::new(),
        known: RefCell::default(),
        given: BTreeMap::new(),
        for_one_call: Cell::new(false),
        depth: 0,
    };
    for input in &program.inputs {
        r.claim(&input.name).with_context(|| format!("`{}`: an input", package.path().display()))?;
        match input.r#type.as_ref().and_then(|t| t.r#type.as_ref()) {
            Some(value_type::Type::StateType(state)) => {
                let ty = state.wrapped_type.as_deref().context("a state without a type").and_then(Declared::of)?;
                let ty = ty.fixed().with_context(|| format!("state `{}`", input.name))?;
                states.push(StateDecl { name: input.name.clone(), ty: ty.clone() });
                r.state_types.insert(input.name.clone(), ty);
            }
            Some(value_type::Type::TensorType(t)) => {
                let ty = r.input_type(&input.name, &Declared::tensor(t)?);
                let ty = ty.with_context(|| format!("`{}`: input `{}`", package.path().display(), input.name))?;
                let v = r.b.f.add_param(&input.name, ty);
                r.values.insert(input.name.clone(), v);
            }
            _ => bail!("input `{}`: expected a tensor or a state", input.name),
        }
    }
    for op in &block.operations {
        r.shown(op).with_context(|| format!("`{}`", package.path().display()))?;
    }
    let results: Vec<(String, ValueId)> = block
        .outputs
        .iter()
        .map(|name| Ok((name.clone(), r.value(name).with_context(|| format!("output `{name}`"))?)))
        .collect::<Result<_>>()?;
    let (updates, given) = (std::mem::take(&mut r.updates), std::mem::take(&mut r.given));
    let for_one_call = r.for_one_call.get();
    f.results = results;
    f.updates = updates;
    // What was only needed to decide is not a parameter of the graph.
    let inputs: Vec<&str> = program.inputs.iter().map(|input| input.name.as_str()).collect();
    f.remove_unused_params(&inputs);
    let left: HashSet<&str> = f.params().iter().filter_map(|&p| f.node(p).name.as_deref()).collect();
    let given = given.into_iter().filter(|(name, _)| left.contains(name.as_str())).collect();
    Ok(Raised { module: Module { states, ..Module::single(f) }, given, for_one_call })
}

/// A function that raises one op and returns the op's results, in order.
type Handler = for<'a, 'p> fn(&mut Raise<'a, 'p>, &Operation) -> Result<Vec<ValueId>>;

/// Every op that gives tensors and can be raised.
fn handler(op: &str) -> Option<Handler> {
    elementwise::handler(op)
        .or_else(|| activation::handler(op))
        .or_else(|| product::handler(op))
        .or_else(|| window::handler(op))
        .or_else(|| recurrent::handler(op))
        .or_else(|| reduce::handler(op))
        .or_else(|| sort::handler(op))
        .or_else(|| norm::handler(op))
        .or_else(|| shape::handler(op))
        .or_else(|| slice::handler(op))
        .or_else(|| fill::handler(op))
        .or_else(|| select::handler(op))
        .or_else(|| index::handler(op))
        .or_else(|| resize::handler(op))
        .or_else(|| sample::handler(op))
        .or_else(|| attention::handler(op))
        .or_else(|| integer::handler(op))
        .or_else(|| random::handler(op))
        .or_else(|| suppression::handler(op))
}

/// Ops that are not functions from tensors to tensors.
const STRUCTURE: [&str; 5] = ["const", "read_state", "write_state", "cond", "while_loop"];

fn unknown_ops<'o>(operations: &'o [Operation], unknown: &mut BTreeMap<&'o str, usize>) {
    for op in operations {
        let name = op.r#type.as_str();
        if !STRUCTURE.contains(&name) && !lists::takes(name) && !is_compressed(name) && handler(name).is_none() {
            *unknown.entry(name).or_default() += 1;
        }
        op.blocks.iter().for_each(|block| unknown_ops(&block.operations, unknown));
    }
}

/// A function being raised.
struct Raise<'a, 'p> {
    package: &'p Package,
    /// Who has the values of inputs and states, if the program is raised for a call.
    caller: Option<&'p dyn Caller>,
    /// The op set of the function: `CoreML5` to `CoreML9`.
    opset: String,
    b: Builder<'a>,
    /// IR values by MIL name.
    values: HashMap<String, ValueId>,
    lists: HashMap<String, List>,
    /// MIL constants by name; they become IR values when an op uses them as a tensor.
    constants: HashMap<String, Constant>,
    state_types: HashMap<String, TensorType>,
    names: HashSet<String>,
    updates: Vec<(String, ValueId)>,
    /// Values that were computed.
    known: RefCell<HashMap<ValueId, Tensor>>,
    given: BTreeMap<String, Tensor>,
    for_one_call: Cell<bool>,
    /// Blocks around the op. What is in a block may be raised several times, so its names are not unique.
    depth: usize,
}

impl Raise<'_, '_> {
    /// [`Raise::operation`], whose errors say which op it was.
    fn shown(&mut self, op: &Operation) -> Result<()> {
        let shown = op.outputs.first().map_or(op.r#type.as_str(), |o| o.name.as_str());
        self.operation(op).with_context(|| format!("op `{}` of value `{shown}`", op.r#type))
    }

    fn operation(&mut self, op: &Operation) -> Result<()> {
        match op.r#type.as_str() {
            "const" => return self.constant(op),
            "read_state" => return self.read_state(op),
            "write_state" => return self.write_state(op),
            "cond" => return self.branch(op),
            "while_loop" => return self.repeat(op),
            name if lists::takes(name) => return self.list_op(op),
            name if is_compressed(name) => return self.compressed_op(op),
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
        let declared = declared.context("a result without a type").and_then(Declared::of)?;
        let found = self.b.f.ty(v);
        if !declared.takes(found) {
            bail!("the program declares `{name}` as {declared}, the op gives {found}");
        }
        self.claim(name)?;
        if self.b.f.node(v).name.is_none() && self.depth == 0 {
            self.b.f.set_name(v, name);
        }
        self.values.insert(name.to_string(), v);
        Ok(())
    }

    /// The type that the program declares for an op's only result.
    fn declared(&self, op: &Operation) -> Result<Declared> {
        let [output] = &op.outputs[..] else { bail!("expected one result, the program declares {}", op.outputs.len()) };
        output.r#type.as_ref().context("a result without a type").and_then(Declared::of)
    }

    /// Names are unique in a function, whatever they name.
    fn claim(&mut self, name: &str) -> Result<()> {
        let new = self.names.insert(name.to_string());
        if name.is_empty() || !new && self.depth == 0 {
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
