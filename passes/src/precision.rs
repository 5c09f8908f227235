//! The change from fp32 to fp16, with fp32 islands where fp16 would lose the answer.
//!
//! An island is found from the graph's meaning, not from names:
//! - **phases**: what feeds a `sin` or `cos` (a timestep of 1000 has an ulp of 0.5 in fp16);
//! - **kernel sums**: from the positive feature map (`softplus`, `exp`) to the division that makes the sums a ratio
//!   again: sums over thousands of tokens leave fp16's range, their ratio does not; from a `relu` only where there is such a division, since
//!   elsewhere it is an ordinary activation; and from a deliberate widening (`cast` of fp16 to fp32), such as a sum that is stored in two halves;
//! - **sums of squares** ([`Fp16Extent::Fp16Norms32`]): from `square` to `rsqrt` or `sqrt` (an fp16 square overflows at 256).
//!
//! Constants are cast once, from fp32, to what their user wants; a bound from below that would become zero becomes the smallest normal
//! number, so that what it guards from division by zero stays guarded. Parameters, states and results become fp16 unless they
//! lie in an island; a parameter that only islands use stays fp32. Integer values are left alone.
//!
//! ```text
//! %a = cos(%t) : f32[1, 4]          %a  = cos(%t) : f32[1, 4]
//! %y = linear(%a, %w) : f32[1, 8]   %a' = cast(%a) {dtype = "f16"} : f16[1, 4]
//!                              →    %w' = cast(%w) {dtype = "f16"} : f16[8, 4]
//!                                   %y  = linear(%a', %w') : f16[1, 8]
//! ```

use std::collections::{HashMap, HashSet};

use s2dit_ir::ops::{Binary, Cast, Dequantize, Literal, OpError, ReduceKind, Unary};
use s2dit_ir::{DType, Function, MASKED, Module, Node, Op, Use, ValueId};

use crate::Property;
use crate::pass::{PassKind, Run};

/// The pass for engines whose norms are wider inside.
pub static FP16: PassKind = PassKind {
    name: "precision-fp16",
    doc: "fp16 everywhere but in fp32 islands that need the range or the phase",
    needs: &[Property::TensorOps, Property::Fp32, Property::Uncompressed],
    establishes: &[Property::Fp16],
    destroys: &[Property::Fp32],
    run: Run::Plain(|m| run(m, Fp16Extent::Fp16)),
    ..PassKind::PLAIN
};

/// The pass for the Neural Engine.
pub static FP16_ONLY: PassKind = PassKind {
    name: "precision-fp16-only",
    doc: "fp16 everywhere but in the phases of sinusoids",
    needs: &[Property::TensorOps, Property::Fp32, Property::ChannelsFirst, Property::Uncompressed],
    establishes: &[Property::Fp16, Property::Fp16ButPhases],
    destroys: &[Property::Fp32],
    run: Run::Plain(|m| run(m, Fp16Extent::Fp16Only)),
    ..PassKind::PLAIN
};

/// The pass for ONNX Runtime.
pub static FP16_NORMS32: PassKind = PassKind {
    name: "precision-fp16-norms32",
    doc: "as precision-fp16, with the sums of squares in norms in fp32 too",
    needs: &[Property::TensorOps, Property::Fp32, Property::Uncompressed],
    establishes: &[Property::Fp16],
    destroys: &[Property::Fp32],
    run: Run::Plain(|m| run(m, Fp16Extent::Fp16Norms32)),
    ..PassKind::PLAIN
};

/// The pass for Core AI, whose formulas are wider inside where they need it.
pub static FP16_FORMULAS: PassKind = PassKind {
    name: "precision-fp16-formulas",
    doc: "as precision-fp16-norms32, of a graph in which attention, norms and rotations are composites: they are fp16 outside",
    needs: &[Property::Fp32, Property::Uncompressed],
    establishes: &[Property::Fp16],
    destroys: &[Property::Fp32],
    run: Run::Plain(|m| run(m, Fp16Extent::Fp16Norms32)),
    ..PassKind::PLAIN
};

/// The extent of fp16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fp16Extent {
    /// Phases and kernel sums stay fp32.
    Fp16,
    /// Sums of squares stay fp32 as well.
    Fp16Norms32,
    /// Only phases stay fp32: sums were scaled to fit (see [`crate::channels_first`]).
    Fp16Only,
}

/// Runs on every function and state of an f32 module; returns the number of values that became fp16.
///
/// # Errors
/// An op that cannot take the new dtype.
pub fn run(module: &mut Module, precision: Fp16Extent) -> Result<usize, OpError> {
    let mut changes = 0;
    for state in &mut module.states {
        if state.ty.dtype == DType::F32 {
            state.ty.dtype = DType::F16;
        }
    }
    for f in &mut module.functions {
        let (new, n) = lower_function(f, precision)?;
        *f = new;
        changes += n;
    }
    Ok(changes)
}

fn lower_function(f: &Function, precision: Fp16Extent) -> Result<(Function, usize), OpError> {
    let order = f.order();
    let keep = islands(f, &order, precision);
    let mut g = Function::new(f.name.clone());
    let mut new: HashMap<ValueId, ValueId> = HashMap::new();
    let mut casts: HashMap<(ValueId, DType), ValueId> = HashMap::new();
    let mut changes = 0;
    for v in order {
        let node = f.node(v);
        let lowered = node.ty.dtype == DType::F32 && !keep.contains(&v) && !f.is_const(v);
        let want = if lowered { DType::F16 } else { node.ty.dtype };
        changes += usize::from(lowered);
        let ty = node.ty.with_dtype(want);
        let made = match &node.op {
            Op::Input(_) => g.add_param(node.name.as_deref().unwrap_or_default(), ty),
            op if f.is_const(v) || matches!(op, Op::State(_)) => {
                let operands: Vec<ValueId> = f.operands(v).iter().map(|o| new[o]).collect();
                g.push(Node { ty, ..node.clone() }, &operands)
            }
            op => {
                let mut operands = Vec::new();
                let bounds = matches!(op, Op::Binary(Binary::Maximum)) && want == DType::F16;
                for o in f.operands(v) {
                    operands.push(if let Some(hidden) = hiding(f, o).filter(|_| want == DType::F16) {
                        let hidden = g.add_leaf(hidden.into(), f.ty(o), &node.scope)?;
                        cast_to(&mut g, &mut casts, hidden, want)?
                    } else if let Some(bound) = raised_bound(f, o).filter(|_| bounds) {
                        let bound = g.add_leaf(bound.into(), f.ty(o), &node.scope)?;
                        cast_to(&mut g, &mut casts, bound, want)?
                    } else if f.dtype(o) == DType::F32 {
                        cast_to(&mut g, &mut casts, new[&o], want)?
                    } else {
                        new[&o]
                    });
                }
                let op = match op {
                    Op::Cast(_) => Op::Cast(Cast { dtype: want }),
                    Op::Dequantize(d) => Op::Dequantize(Dequantize { dtype: want, ..d.clone() }),
                    op => op.clone(),
                };
                let made = g.add(op, &operands, &node.scope)?;
                if let Some(name) = &node.name {
                    g.set_name(made, name);
                }
                made
            }
        };
        new.insert(v, made);
    }
    for (state, v) in &f.updates {
        let value = if f.dtype(*v) == DType::F32 { cast_to(&mut g, &mut casts, new[v], DType::F16)? } else { new[v] };
        g.updates.push((state.clone(), value));
    }
    g.results = f.results.iter().map(|(name, v)| (name.clone(), new[v])).collect();
    Ok((g, changes))
}

/// The smallest normal number of fp16.
const LEAST_NORMAL: f64 = 6.103_515_625e-5;

/// A bound from below that fp16 would round to zero, such as the 1e-12 that keeps a division by a norm from failing, as one that it holds.
fn raised_bound(f: &Function, v: ValueId) -> Option<Literal> {
    let Op::Literal(Literal { values }) = f.op(v) else { return None };
    let tiny = |x: &f64| (0.0..LEAST_NORMAL).contains(x) && *x > 0.0;
    (f.dtype(v) == DType::F32 && values.iter().all(tiny)).then(|| Literal { values: vec![LEAST_NORMAL; values.len()] })
}

/// The least finite number of fp16.
const LEAST: f64 = -65_504.0;

/// A constant that says what must never be chosen, such as the -1e9 of a mask, as one that fp16 holds.
fn hiding(f: &Function, v: ValueId) -> Option<Literal> {
    let Op::Literal(Literal { values }) = f.op(v) else { return None };
    let is_beyond = |x: &f64| *x < LEAST;
    if f.dtype(v) != DType::F32 || !values.iter().any(is_beyond) {
        return None;
    }
    Some(Literal { values: values.iter().map(|x| if is_beyond(x) { MASKED } else { *x }).collect() })
}

fn cast_to(
    g: &mut Function,
    casts: &mut HashMap<(ValueId, DType), ValueId>,
    v: ValueId,
    dtype: DType,
) -> Result<ValueId, OpError> {
    if g.dtype(v) == dtype {
        return Ok(v);
    }
    if let Some(&c) = casts.get(&(v, dtype)) {
        return Ok(c);
    }
    let scope = g.node(v).scope.clone();
    let c = g.add(Cast { dtype }.into(), &[v], &scope)?;
    casts.insert((v, dtype), c);
    Ok(c)
}

/// Values that stay fp32.
fn islands(f: &Function, order: &[ValueId], precision: Fp16Extent) -> HashSet<ValueId> {
    let mut keep = HashSet::new();
    for &v in order {
        if matches!(f.op(v), Op::Unary(Unary::Sin | Unary::Cos)) {
            keep_with_ancestors(f, v, &mut keep);
        }
    }
    // Forward from each source, operands before users: a value joins if an operand is in and the op carries sums on.
    let mut sums: HashSet<ValueId> = HashSet::new();
    let mut squares: HashSet<ValueId> = HashSet::new();
    let mut positive: HashSet<ValueId> = HashSet::new();
    for &v in order {
        let operands = f.operands(v);
        let carried = |set: &HashSet<ValueId>| operands.iter().any(|o| set.contains(o));
        match f.op(v) {
            _ if precision == Fp16Extent::Fp16Only => {}
            Op::Unary(Unary::Softplus | Unary::Exp) => {
                sums.insert(v);
            }
            // Widened on purpose, such as the two halves of a stored sum.
            Op::Cast(c) if c.dtype == DType::F32 && f.dtype(operands[0]) == DType::F16 && !f.is_const(v) => {
                sums.insert(v);
            }
            // The ratio: computed in fp32, its result is an ordinary value again.
            Op::Binary(Binary::Div) if operands.iter().all(|o| sums.contains(o)) => {
                keep.insert(v);
            }
            Op::Binary(Binary::Div) if operands.iter().all(|o| positive.contains(o)) => {
                keep.insert(v);
                keep_sums_of(f, v, &positive, &mut keep);
            }
            op if carried(&sums) && carries_sums(op) => {
                sums.insert(v);
            }
            Op::Unary(Unary::Relu) => {
                positive.insert(v);
            }
            op if carried(&positive) && carries_sums(op) => {
                positive.insert(v);
            }
            Op::Unary(Unary::Square) => {
                squares.insert(v);
            }
            Op::Unary(Unary::Rsqrt | Unary::Sqrt) if carried(&squares) => {
                squares.insert(v);
            }
            Op::Reduce(r) if carried(&squares) && matches!(r.kind, ReduceKind::Mean | ReduceKind::Sum) => {
                squares.insert(v);
            }
            Op::Binary(Binary::Add) if carried(&squares) && operands.iter().any(|&o| f.is_const(o)) => {
                squares.insert(v);
            }
            _ => {}
        }
    }
    keep.extend(sums);
    if precision == Fp16Extent::Fp16Norms32 {
        keep.extend(squares);
    }
    // Users before operands: parameters, and what is made of parameters alone, stay fp32 if only islands use them.
    for &v in order.iter().rev() {
        let uses = f.uses(v);
        let in_island = |u: &Use| matches!(u, Use::Operand { user, .. } if keep.contains(user));
        let only_islands = !uses.is_empty() && uses.iter().all(in_island);
        let from_params = |o: &ValueId| f.is_const(*o) || matches!(f.op(*o), Op::Input(_));
        let host = match f.op(v) {
            Op::Input(_) => true,
            // States are fp16 whoever reads them.
            Op::State(_) => false,
            _ => !f.is_const(v) && f.operands(v).iter().all(from_params),
        };
        if only_islands && host && f.dtype(v) == DType::F32 {
            keep.insert(v);
        }
    }
    keep
}

/// Keeps the values of `positive` that a ratio is made of.
fn keep_sums_of(f: &Function, ratio: ValueId, positive: &HashSet<ValueId>, keep: &mut HashSet<ValueId>) {
    let mut stack = vec![ratio];
    while let Some(v) = stack.pop() {
        stack.extend(f.operands(v).into_iter().filter(|&o| positive.contains(&o) && keep.insert(o)));
    }
}

/// Ops through which an unnormalised sum stays one.
fn carries_sums(op: &Op) -> bool {
    match op {
        Op::Matmul(_) | Op::Reshape(_) | Op::Transpose(_) | Op::Slice(_) | Op::Concat(_) | Op::Pad(_) => true,
        Op::Binary(b) => matches!(b, Binary::Add | Binary::Sub | Binary::Mul),
        Op::Reduce(r) => r.kind == ReduceKind::Sum,
        Op::Unary(u) => matches!(u, Unary::Neg | Unary::Identity),
        _ => false,
    }
}

fn keep_with_ancestors(f: &Function, v: ValueId, keep: &mut HashSet<ValueId>) {
    let mut stack = vec![v];
    while let Some(v) = stack.pop() {
        if keep.insert(v) {
            stack.extend(f.operands(v));
        }
    }
}
