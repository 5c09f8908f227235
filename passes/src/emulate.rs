//! The fp16 of an engine, in fp32: a graph with fp16 values becomes one with fp32 values on the fp16 grid.
//!
//! The Neural Engine computes wider than fp16 and stores each result in fp16. To run such a graph where fp16 ops would be slow, or would round
//! differently, every op computes in fp32 and a pair of casts puts its result on the grid:
//!
//! ```text
//! %y = exp(%x) : f16[4]       →       %1 = cast(%x) {dtype = "f16"} : f16[4]      what comes in is fp16
//!                                     %2 = cast(%1) {dtype = "f32"} : f32[4]
//!                                     %3 = exp(%2) : f32[4]
//!                                     %4 = cast(%3) {dtype = "f16"} : f16[4]      and so is each result
//!                                     %y = cast(%4) {dtype = "f32"} : f32[4]
//! ```
//! With [`Arithmetic::Fp32`] only what comes in and what a state keeps is put on the grid. Weights stay what they are, and are cast where they are
//! used. Inputs, results and states are declared fp32.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use s2dit_ir::ops::{Binary, Cast, Dequantize, OpError, Quantize, ReduceKind, ScatterMode, Unary};
use s2dit_ir::{DType, Function, Module, Node, Op, TensorType, ValueId};

use crate::Property;
use crate::pass::{PassKind, Run};

/// How fp16 values of a graph are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// As the graph says: fp16 ops are fp16 ops of the engine that runs it.
    AsTyped,
    /// In fp32; only weights, inputs and states are fp16 numbers.
    Fp32,
    /// In fp32, the result of every fp16 op put on the fp16 grid: how the Neural Engine stores values.
    RoundedFp16,
}

/// The pass that puts every result on the grid.
pub static ROUNDED: PassKind = PassKind {
    name: "emulate-fp16",
    doc: "every value is fp32, and every one that was fp16 is on the fp16 grid",
    needs: &[Property::TensorOps],
    establishes: &[Property::Fp32],
    destroys: &[Property::Fp16, Property::Fp16ButPhases],
    run: Run::Plain(|m| run(m, Arithmetic::RoundedFp16)),
    ..PassKind::PLAIN
};

/// The pass that computes in fp32.
pub static WIDE: PassKind = PassKind {
    name: "emulate-fp32",
    doc: "every value is fp32; what was an fp16 input or state is on the fp16 grid",
    run: Run::Plain(|m| run(m, Arithmetic::Fp32)),
    ..ROUNDED
};

fn run(module: &mut Module, how: Arithmetic) -> Result<usize, OpError> {
    let mut changes = 0;
    for f in &mut module.functions {
        changes += f.order().into_iter().filter(|&v| f.dtype(v) == DType::F16 && !f.is_const(v)).count();
        *f = emulated(f, how)?.into_owned();
    }
    for state in module.states.iter_mut().filter(|state| state.ty.dtype == DType::F16) {
        state.ty = state.ty.with_dtype(DType::F32);
    }
    Ok(changes)
}

/// The function with its fp16 computed this way.
///
/// # Errors
/// An op that cannot take fp32.
pub fn emulated(f: &Function, how: Arithmetic) -> Result<Cow<'_, Function>, OpError> {
    if how == Arithmetic::AsTyped {
        return Ok(Cow::Borrowed(f));
    }
    let mut e = Emulation {
        f,
        how,
        g: Function::new(f.name.clone()),
        constant: f.constants(),
        kept: kept(f),
        new: HashMap::new(),
        wide: HashMap::new(),
    };
    for v in f.order() {
        let made = e.value(v)?;
        e.new.insert(v, made);
    }
    let results =
        f.results.iter().map(|(name, v)| Ok((name.clone(), e.operand(*v)?))).collect::<Result<_, OpError>>()?;
    let updates =
        f.updates.iter().map(|(name, v)| Ok((name.clone(), e.operand(*v)?))).collect::<Result<_, OpError>>()?;
    e.g.results = results;
    e.g.updates = updates;
    Ok(Cow::Owned(e.g))
}

struct Emulation<'a> {
    f: &'a Function,
    how: Arithmetic,
    g: Function,
    /// Values that depend on no input and no state. They keep their dtype.
    constant: HashSet<ValueId>,
    /// Values that a state keeps: every reader sees them as fp16 numbers.
    kept: HashSet<ValueId>,
    /// The new value of each.
    new: HashMap<ValueId, ValueId>,
    /// fp32 copies of fp16 constants.
    wide: HashMap<ValueId, ValueId>,
}

impl Emulation<'_> {
    fn value(&mut self, v: ValueId) -> Result<ValueId, OpError> {
        let node = self.f.node(v);
        if self.constant.contains(&v) {
            let operands: Vec<ValueId> = self.f.operands(v).iter().map(|o| self.new[o]).collect();
            return Ok(self.g.push(node.clone(), &operands));
        }
        let half = node.ty.dtype == DType::F16;
        let ty = wide(&node.ty);
        if let Op::Input(_) = node.op {
            let param = self.g.add_param(node.name.as_deref().unwrap_or_default(), ty);
            return if half { self.on_the_grid(param, node) } else { Ok(param) };
        }
        let operands = self.f.operands(v).into_iter().map(|o| self.operand(o)).collect::<Result<Vec<_>, _>>()?;
        let scale_of = |float: DType, scale: f64| if float == DType::F16 { DType::F16.round(scale) } else { scale };
        let op = match &node.op {
            Op::Cast(_) => Cast { dtype: ty.dtype }.into(),
            // The scale is a number of the type that it is applied in.
            Op::Quantize(q) => Quantize { scale: scale_of(self.f.dtype(self.f.operands(v)[0]), q.scale) }.into(),
            Op::Dequantize(d) => Dequantize { dtype: ty.dtype, scale: scale_of(node.ty.dtype, d.scale) }.into(),
            op => op.clone(),
        };
        let rounds = match self.how {
            Arithmetic::AsTyped => false,
            Arithmetic::Fp32 => self.kept.contains(&v) || matches!(node.op, Op::State(_)),
            Arithmetic::RoundedFp16 => computes(&node.op),
        };
        let rounds = half && rounds;
        let name = node.name.clone().filter(|_| !rounds);
        let exact = self.g.push(Node { op, ty, scope: node.scope.clone(), name }, &operands);
        if !rounds {
            return Ok(exact);
        }
        let rounded = self.on_the_grid(exact, node)?;
        if let Some(name) = &node.name {
            self.g.set_name(rounded, name);
        }
        Ok(rounded)
    }

    /// The new value in the type that is computed with.
    fn operand(&mut self, v: ValueId) -> Result<ValueId, OpError> {
        let new = self.new[&v];
        if !self.constant.contains(&v) || self.f.dtype(v) != DType::F16 {
            return Ok(new);
        }
        if let Some(&wide) = self.wide.get(&v) {
            return Ok(wide);
        }
        let node = self.f.node(v);
        // A computed constant is a number of fp16 where it is used, however exactly it was computed.
        let stored = match node.op {
            Op::Load(_) | Op::Literal(_) | Op::Compress(_) => new,
            _ => self.g.add(Cast { dtype: DType::F16 }.into(), &[new], &node.scope)?,
        };
        let wide = self.g.add(Cast { dtype: DType::F32 }.into(), &[stored], &node.scope)?;
        self.wide.insert(v, wide);
        Ok(wide)
    }

    fn on_the_grid(&mut self, v: ValueId, of: &Node) -> Result<ValueId, OpError> {
        let half = self.g.add(Cast { dtype: DType::F16 }.into(), &[v], &of.scope)?;
        self.g.add(Cast { dtype: DType::F32 }.into(), &[half], &of.scope)
    }
}

fn wide(ty: &TensorType) -> TensorType {
    if ty.dtype == DType::F16 { ty.with_dtype(DType::F32) } else { ty.clone() }
}

/// Values computed for states: updates, and results `X_out` beside a parameter `X`, without the ops that only move them.
fn kept(f: &Function) -> HashSet<ValueId> {
    let params: HashSet<&str> = f.params().iter().filter_map(|&p| f.node(p).name.as_deref()).collect();
    let state = |(name, _): &&(String, ValueId)| name.strip_suffix("_out").is_some_and(|name| params.contains(name));
    let mut ahead: Vec<ValueId> = f.updates.iter().chain(f.results.iter().filter(state)).map(|(_, v)| *v).collect();
    let mut kept = HashSet::new();
    while let Some(v) = ahead.pop() {
        match f.op(v) {
            Op::Reshape(_) | Op::Transpose(_) | Op::Concat(_) | Op::Slice(_) | Op::Pad(_) => {
                ahead.extend(f.operands(v));
            }
            Op::Input(_) | Op::State(_) => {}
            _ => drop(kept.insert(v)),
        }
    }
    kept
}

/// `false` for ops whose result consists of numbers that their operands hold: rounding them again changes nothing.
fn computes(op: &Op) -> bool {
    match op {
        Op::Unary(u) => {
            use Unary::{Abs, Ceil, Floor, Identity, LogicalNot, Neg, Relu, Round, Sign};
            !matches!(u, Abs | Ceil | Floor | Identity | LogicalNot | Neg | Relu | Round | Sign)
        }
        Op::Binary(b) => !matches!(b, Binary::Maximum | Binary::Minimum),
        Op::Reduce(r) => !matches!(r.kind, ReduceKind::Max | ReduceKind::Min),
        Op::ScatterAlongAxis(s) => matches!(s.mode, ScatterMode::Add | ScatterMode::Mul),
        Op::ScatterNd(s) => matches!(s.mode, ScatterMode::Add | ScatterMode::Mul),
        Op::Pool(p) => p.mean,
        Op::Reshape(_) | Op::Transpose(_) | Op::Concat(_) | Op::Slice(_) | Op::Gather(_) | Op::BroadcastTo(_) => false,
        Op::GatherAlongAxis(_) | Op::GatherNd(_) | Op::Select(_) => false,
        _ => true,
    }
}
