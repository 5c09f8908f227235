//! Program of the dialect `aicode` → IR: a graph as it lies on disk, made into one that can be run.
//!
//! Written against the docstrings of Apple's op definitions, and sharing nothing with the writer but names and encodings: it judges what the writer lowered. The
//! regions of ops that are no primitives are not looked at. Parameters must be constants, and shapes static.

mod ops;

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result, bail, ensure};
use s2dit_ir::ops::State;
use s2dit_ir::{Builder, DType, Function, Module, StateDecl, TensorType, ValueId};

use super::op;
use super::program::{Attribute, Element, Operation, Property, Type, Value};
use super::read::{Asset, Graph};
use super::stored;
use crate::{Error, UnsupportedOps};

/// Raises a function of an asset, `None` for the default one. Weights are `load`s of the asset.
///
/// # Errors
/// A function that does not exist; ops that are not known here (all of them, together); an op that is malformed or whose result is not what the
/// program declares.
pub fn raise(asset: &Asset, function: Option<&str>) -> Result<Module, Error> {
    raised(asset, function).map_err(Error::reading)
}

fn raised(asset: &Asset, function: Option<&str>) -> Result<Module> {
    let (name, shown) = (function.unwrap_or(asset.main()), asset.path().display());
    let graph = asset.graph(name).with_context(|| {
        let there: Vec<&str> = asset.functions().collect();
        format!("`{shown}`: no function `{name}`, expected one of {}", there.join(", "))
    })?;
    let mut unknown: BTreeMap<String, usize> = BTreeMap::new();
    let calls = graph.region.operations.iter().filter_map(Operation::callee).filter_map(|name| asset.called(name));
    let called = calls.flat_map(|graph| &graph.region.operations);
    for operation in graph.region.operations.iter().chain(called) {
        if !ops::is_known(&operation.name) {
            *unknown.entry(operation.name.to_string()).or_default() += 1;
        }
    }
    if !unknown.is_empty() {
        let ops = unknown.into_iter().collect();
        return Err(UnsupportedOps { package: shown.to_string(), function: name.into(), ops }.into());
    }
    let mut f = Function::new(name);
    let mut raise = Raise {
        asset,
        b: Builder::new(&mut f),
        values: HashMap::new(),
        constants: HashMap::new(),
        handles: HashMap::new(),
        names: asset.value_names(name)?.into_iter().map(|(name, value)| (value, name)).collect(),
        next: 0,
    };
    raise.graph(&graph).with_context(|| format!("`{shown}`, function `{name}`"))?;
    let mut states: Vec<(Value, StateDecl)> = raise.handles.into_iter().collect();
    states.sort_by_key(|(argument, _)| *argument);
    Ok(Module { states: states.into_iter().map(|(_, state)| state).collect(), ..Module::single(f) })
}

/// A constant of the program. It becomes a value of the IR when an op uses it as a tensor.
#[derive(Clone)]
struct Constant {
    shape: Vec<usize>,
    element: Element,
    value: Attribute,
}

struct Raise<'f> {
    asset: &'f Asset,
    b: Builder<'f>,
    values: HashMap<Value, ValueId>,
    constants: HashMap<Value, Constant>,
    /// States, by the arguments that they are.
    handles: HashMap<Value, StateDecl>,
    /// Names of values that end blocks.
    names: HashMap<Value, String>,
    /// The number of the next value.
    next: Value,
}

impl Raise<'_> {
    fn graph(&mut self, graph: &Graph<'_>) -> Result<()> {
        let mut taken = HashSet::new();
        for name in graph.input_names().into_iter().chain(graph.output_names()) {
            ensure!(taken.insert(name.clone()), "found `{name}` twice, expected a name for each input and result");
        }
        // What ends a block has no name of its own where it is an input or a result.
        self.names.retain(|_, name| !taken.contains(name));
        for (name, argument) in graph.input_names().iter().zip(&graph.region.arguments) {
            let of = || format!("input `{name}`");
            if let Type::Handle { shape, element } = &argument.ty {
                let ty = ir_type(&Type::Tensor { shape: shape.clone(), element: *element }).with_context(of)?;
                self.handles.insert(self.next, StateDecl { name: name.clone(), ty });
            } else {
                let v = self.b.f.add_param(name, ir_type(&argument.ty).with_context(of)?);
                self.values.insert(self.next, v);
            }
            self.next += 1;
        }
        ensure!(self.next == graph.region.arguments.len(), "{} names for the arguments", self.next);
        for operation in &graph.region.operations {
            match &*operation.name {
                op::CONSTANT => self.constant(operation)?,
                op::OUTPUT => {
                    let names = graph.output_names();
                    ensure!(names.len() == operation.operands.len(), "{} names for the results", names.len());
                    let tokens = graph.region.arguments.iter().filter(|a| matches!(a.ty, Type::Handle { .. })).count();
                    let values = operation.operands.len().saturating_sub(tokens);
                    for (name, &value) in names.iter().zip(&operation.operands[..values]) {
                        let mut v = self.tensor(value)?;
                        // A name is one value's: what is returned twice, or only handed on, is a value of its own.
                        if self.b.f.node(v).name.is_some() {
                            v = self.b.unary(s2dit_ir::ops::Unary::Identity, v)?;
                        }
                        self.b.f.set_name(v, name);
                        self.b.f.results.push((name.clone(), v));
                    }
                }
                op::CREATE_TOKEN | op::READ_HANDLE | op::WRITE_HANDLE => {
                    self.of_state(operation).with_context(|| format!("op `{}`", operation.name))?;
                    self.next += operation.results.len();
                }
                name => self.operation(operation).with_context(|| format!("op `{name}` of `{}`", operation.file))?,
            }
        }
        Ok(())
    }

    /// What a called graph gives for some operands.
    fn called(&mut self, operation: &Operation) -> Result<ValueId> {
        let name = operation.callee().context("a call without the name of a graph")?;
        let asset = self.asset;
        let graph = asset.called(name).with_context(|| format!("no graph `{name}`"))?;
        let arguments = &graph.region.arguments;
        ensure!(
            arguments.len() == operation.operands.len(),
            "graph `{name}` takes {} operands, found {}",
            arguments.len(),
            operation.operands.len()
        );
        let mut given = HashMap::new();
        for (at, (argument, operand)) in arguments.iter().zip(&operation.operands).enumerate() {
            let (v, wanted) = (self.tensor(*operand)?, ir_type(&argument.ty)?);
            ensure!(*self.b.f.ty(v) == wanted, "graph `{name}` takes {wanted}, found {}", self.b.f.ty(v));
            given.insert(at, v);
        }
        // Values of the graph have numbers of their own, and none of the names.
        let outside = (
            std::mem::replace(&mut self.values, given),
            std::mem::take(&mut self.constants),
            std::mem::take(&mut self.names),
            std::mem::replace(&mut self.next, arguments.len()),
        );
        let result = self.inside(&graph);
        (self.values, self.constants, self.names, self.next) = outside;
        result.with_context(|| format!("graph `{name}`"))
    }

    fn inside(&mut self, graph: &Graph<'_>) -> Result<ValueId> {
        for operation in &graph.region.operations {
            match &*operation.name {
                op::CONSTANT => self.constant(operation)?,
                op::OUTPUT => {
                    let [result] = operation.operands[..] else {
                        bail!("found {} results, expected 1", operation.operands.len())
                    };
                    return self.tensor(result);
                }
                op::INVOKE | op::CREATE_TOKEN | op::READ_HANDLE | op::WRITE_HANDLE => {
                    bail!("op `{}` in a graph that is called", operation.name)
                }
                name => self.operation(operation).with_context(|| format!("op `{name}` of `{}`", operation.file))?,
            }
        }
        bail!("no results")
    }

    fn constant(&mut self, operation: &Operation) -> Result<()> {
        let ([Property::Required(value)], [ty]) = (&operation.properties[..], &operation.results[..]) else {
            bail!("a constant without its value");
        };
        let (shape, element) = static_type(ty)?;
        self.constants.insert(self.next, Constant { shape, element, value: value.clone() });
        self.next += 1;
        Ok(())
    }

    fn operation(&mut self, operation: &Operation) -> Result<()> {
        let [declared] = &operation.results[..] else { bail!("found {} results, expected 1", operation.results.len()) };
        let declared = ir_type(declared)?;
        let scope = if &*operation.file == super::program::UNKNOWN { "" } else { &*operation.file };
        self.b.enter(scope);
        let v = if operation.name == op::INVOKE { self.called(operation) } else { self.op(operation, &declared) };
        self.b.leave();
        let v = v?;
        let found = self.b.f.ty(v);
        ensure!(*found == declared, "the program declares {declared}, the op gives {found}");
        if let Some(name) = self.names.get(&self.next).filter(|_| self.b.f.node(v).name.is_none()) {
            self.b.f.set_name(v, name);
        }
        self.values.insert(self.next, v);
        self.next += 1;
        Ok(())
    }

    /// What is done with a state. A graph reads a state before it writes it, as tokens say.
    fn of_state(&mut self, operation: &Operation) -> Result<()> {
        if operation.name == op::CREATE_TOKEN {
            return Ok(());
        }
        let argument = operation.operands.first().context("no state")?;
        let StateDecl { name, ty } = self.handles.get(argument).cloned().context("found what is no state")?;
        let written = self.b.f.updates.iter().position(|(state, _)| *state == name);
        if operation.name == op::WRITE_HANDLE {
            let v = self.tensor(*operation.operands.get(1).context("nothing to write")?)?;
            ensure!(*self.b.f.ty(v) == ty, "state `{name}` is {ty}, written with {}", self.b.f.ty(v));
            match written {
                Some(at) => self.b.f.updates[at].1 = v,
                None => self.b.f.updates.push((name, v)),
            }
            return Ok(());
        }
        let v = match written {
            Some(at) => self.b.f.updates[at].1,
            None => self.b.f.add_leaf(State { state: name }.into(), &ty, "")?,
        };
        self.values.insert(self.next, v);
        Ok(())
    }

    /// A value as a tensor of the IR.
    fn tensor(&mut self, value: Value) -> Result<ValueId> {
        if let Some(&v) = self.values.get(&value) {
            return Ok(v);
        }
        let constant = self.constants.get(&value).cloned().with_context(|| format!("value {value} is not there"))?;
        let ty = ir_type(&super::block::tensor(&constant.shape, constant.element))?;
        let v = match &constant.value {
            Attribute::Resource(number) => {
                let flat = TensorType::new(ty.dtype, [ty.elements()]);
                let found = self.asset.resource(*number).map_or(0, <[u8]>::len);
                ensure!(found == ty.bytes(), "found {found} bytes of a weight, expected the {} of {ty}", ty.bytes());
                let v = self.b.load(&stored::plain(*number), &flat)?;
                self.b.reshape(v, &ty.shape)?
            }
            _ => {
                let mut values = constant.numbers()?;
                if values.len() != 1 {
                    ensure!(values.len() == ty.elements(), "a constant of {} elements for {ty}", values.len());
                } else if values[0].is_infinite() {
                    // A literal is finite: the largest number does as well where only sizes are compared.
                    values[0] = values[0].signum() * f64::from(f32::MAX);
                }
                self.b.literal(&ty, values)?
            }
        };
        self.values.insert(value, v);
        Ok(v)
    }

    /// The parameter of an op, whole numbers in a row.
    fn integers(&self, value: Value) -> Result<Vec<i64>> {
        let constant = self.constants.get(&value).context("a parameter that is no constant")?;
        let elements = constant.shape.iter().product::<usize>();
        ensure!(
            elements <= MOST_PARAMETERS,
            "found a parameter of {elements} numbers, expected at most {MOST_PARAMETERS}"
        );
        let numbers = constant.numbers()?;
        let numbers = if numbers.len() == 1 { vec![numbers[0]; elements] } else { numbers };
        Ok(numbers.into_iter().map(|x| x as i64).collect())
    }

    /// The parameter of an op, counts in a row.
    fn counts(&self, value: Value) -> Result<Vec<usize>> {
        let count = |n: i64| {
            let count = usize::try_from(n).ok().filter(|n| *n <= MOST_EXTENT);
            count.with_context(|| format!("found {n}, expected a count of at most {MOST_EXTENT}"))
        };
        self.integers(value)?.into_iter().map(count).collect()
    }

    /// The parameter of an op, one number or many that are equal.
    fn number(&self, value: Value) -> Result<f64> {
        let constant = self.constants.get(&value).context("a parameter that is no constant")?;
        let numbers = constant.numbers()?;
        ensure!(numbers.len() == 1, "found {} numbers, expected 1", numbers.len());
        Ok(numbers[0])
    }

    /// The parameter of an op, an axis of a tensor of this rank.
    fn axis(&self, value: Value, rank: usize) -> Result<usize> {
        let axis = self.number(value)? as i64;
        place(axis, rank)
    }

    /// The parameter of an op, axes of a tensor of this rank in ascending order.
    fn axes(&self, value: Value, rank: usize) -> Result<Vec<usize>> {
        let mut axes: Vec<usize> =
            self.integers(value)?.into_iter().map(|axis| place(axis, rank)).collect::<Result<_>>()?;
        axes.sort_unstable();
        Ok(axes)
    }
}

/// Far above the axes of any tensor.
const MOST_PARAMETERS: usize = 1 << 10;

/// An axis that may count from the end.
fn place(axis: i64, rank: usize) -> Result<usize> {
    let at = if axis < 0 { axis + rank as i64 } else { axis };
    let at = usize::try_from(at).ok().filter(|at| *at < rank);
    at.with_context(|| format!("axis {axis} of a tensor with {rank} axes"))
}

impl Constant {
    /// The elements; one if all are equal.
    fn numbers(&self) -> Result<Vec<f64>> {
        let Attribute::Dense { splat, bytes } = &self.value else { bail!("a parameter that is a weight") };
        let numbers = numbers(bytes, self.element)?;
        let expected = if *splat { 1 } else { self.shape.iter().product() };
        ensure!(numbers.len() == expected, "found {} elements, expected {expected}", numbers.len());
        Ok(numbers)
    }
}

/// The numbers that little-endian bytes hold.
fn numbers(bytes: &[u8], element: Element) -> Result<Vec<f64>> {
    fn each<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.chunks_exact(N).filter_map(|b| b.try_into().ok()).map(read).collect()
    }
    Ok(match element {
        Element::Bool => each(bytes, |b: [u8; 1]| f64::from(u8::from(b[0] != 0))),
        Element::F64 => each(bytes, f64::from_le_bytes),
        Element::F32 => each(bytes, |b| f64::from(f32::from_le_bytes(b))),
        Element::F16 => each(bytes, |b| half::f16::from_le_bytes(b).to_f64()),
        Element::BF16 => each(bytes, |b| half::bf16::from_le_bytes(b).to_f64()),
        Element::Si64 => each(bytes, |b| i64::from_le_bytes(b) as f64),
        Element::Si32 => each(bytes, |b| f64::from(i32::from_le_bytes(b))),
        Element::Si16 => each(bytes, |b| f64::from(i16::from_le_bytes(b))),
        Element::Si8 => each(bytes, |b| f64::from(i8::from_le_bytes(b))),
        Element::Ui64 => each(bytes, |b| u64::from_le_bytes(b) as f64),
        Element::Ui32 => each(bytes, |b| f64::from(u32::from_le_bytes(b))),
        Element::Ui16 => each(bytes, |b| f64::from(u16::from_le_bytes(b))),
        Element::Ui8 => each(bytes, |b: [u8; 1]| f64::from(b[0])),
        other if bytes.iter().all(|b| *b == 0) => {
            ensure!(bytes.len() == 1, "elements of the type {} within the program", other.name());
            vec![0.0]
        }
        other => bail!("elements of the type {} within the program", other.name()),
    })
}

/// The largest extent of an axis.
const MOST_EXTENT: usize = i32::MAX as usize;

/// Shape and element type of a tensor whose axes are all known, and whose bytes can be counted.
pub(super) fn static_type(ty: &Type) -> Result<(Vec<usize>, Element)> {
    let Type::Tensor { shape: extents, element } = ty else { bail!("found what is no tensor") };
    let extent = |d: &i64| usize::try_from(*d).context("found an open shape, expected a static one");
    let shape: Vec<usize> = extents.iter().map(extent).collect::<Result<_>>()?;
    let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d).filter(|_| *d <= MOST_EXTENT));
    ensure!(
        elements.is_some_and(|n| n.checked_mul(8).is_some()),
        "found a shape of {shape:?}, expected extents of at most {MOST_EXTENT} and fewer than 2^61 elements"
    );
    Ok((shape, *element))
}

/// The type of the IR.
fn ir_type(ty: &Type) -> Result<TensorType> {
    let (shape, element) = static_type(ty)?;
    let dtype = dtype_of(element).with_context(|| format!("a tensor of {}", element.name()))?;
    Ok(TensorType::new(dtype, shape))
}

/// The IR's type of an element.
pub(super) fn dtype_of(element: Element) -> Option<DType> {
    Some(match element {
        Element::Bool => DType::Bool,
        Element::F64 => DType::F64,
        Element::F32 => DType::F32,
        Element::F16 => DType::F16,
        Element::BF16 => DType::BF16,
        Element::Si64 => DType::I64,
        Element::Si32 => DType::I32,
        Element::Si16 => DType::I16,
        Element::Si8 => DType::I8,
        Element::Ui32 => DType::U32,
        Element::Ui16 => DType::U16,
        Element::Ui8 => DType::U8,
        _ => return None,
    })
}
