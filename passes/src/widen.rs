//! Every float value becomes fp32 and casts between floats go: the mathematics of a graph that was lowered to fp16.
//!
//! For recognising what a finished package computes; its numbers are not kept.
//!
//! ```text
//! %a = cast(%x) {dtype = "f32"} : f32[4]
//! %b = exp(%a) : f32[4]                   →  %y = exp(%x) : f32[4]
//! %y = cast(%b) {dtype = "f16"} : f16[4]
//! ```

use std::collections::HashMap;

use s2dit_ir::ops::{Cast, Dequantize, OpError};
use s2dit_ir::{DType, Function, Module, Node, Op, TensorType, ValueId};

use crate::Property;
use crate::pass::{PassKind, Run};

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "widen",
    doc: "every float is fp32: what an fp16 graph means",
    establishes: &[Property::Fp32],
    destroys: &[Property::Fp16, Property::Fp16ButPhases],
    run: Run::Plain(run),
    ..PassKind::PLAIN
};

/// Runs on every function and state; returns the number of values that were not fp32.
///
/// # Errors
/// An op that cannot take fp32.
pub fn run(module: &mut Module) -> Result<usize, OpError> {
    let mut changes = 0;
    for state in &mut module.states {
        state.ty = wide(&state.ty);
    }
    for f in &mut module.functions {
        changes += f.order().into_iter().filter(|&v| wide(f.ty(v)) != *f.ty(v)).count();
        *f = widened(f)?;
    }
    Ok(changes)
}

fn wide(ty: &TensorType) -> TensorType {
    if ty.dtype.is_float() { ty.with_dtype(DType::F32) } else { ty.clone() }
}

fn widened(f: &Function) -> Result<Function, OpError> {
    let mut g = Function::new(f.name.clone());
    let mut new: HashMap<ValueId, ValueId> = HashMap::new();
    for v in f.order() {
        let node = f.node(v);
        let operands: Vec<ValueId> = f.operands(v).iter().map(|o| new[o]).collect();
        let made = match &node.op {
            Op::Input(_) => g.add_param(node.name.as_deref().unwrap_or_default(), wide(&node.ty)),
            Op::Cast(_) if node.ty.dtype.is_float() && g.ty(operands[0]).dtype == DType::F32 => operands[0],
            Op::Cast(_) => g.add(Cast { dtype: wide(&node.ty).dtype }.into(), &operands, &node.scope)?,
            Op::Dequantize(d) => {
                let dtype = wide(&node.ty).dtype;
                g.add(Dequantize { dtype, ..d.clone() }.into(), &operands, &node.scope)?
            }
            // The stored type of a tensor stays.
            Op::Load(_) => {
                let stored = g.push(Node { name: None, ..node.clone() }, &[]);
                let ty = wide(&node.ty);
                if ty == node.ty { stored } else { g.add(Cast { dtype: ty.dtype }.into(), &[stored], &node.scope)? }
            }
            op if operands.is_empty() => g.add_leaf(op.clone(), &wide(&node.ty), &node.scope)?,
            op => g.add(op.clone(), &operands, &node.scope)?,
        };
        if let (Some(name), None) = (&node.name, &g.node(made).name) {
            g.set_name(made, name);
        }
        new.insert(v, made);
    }
    let through = |list: &[(String, ValueId)]| list.iter().map(|(name, v)| (name.clone(), new[v])).collect();
    g.results = through(&f.results);
    g.updates = through(&f.updates);
    Ok(g)
}
