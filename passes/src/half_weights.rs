//! Weights are stored as fp16 numbers, and computed with in fp32.
//!
//! What depends on a tensor of the checkpoint is rounded; tables that are computed from nothing, such as frequencies, are not.
//!
//! ```text
//! %w = load {tensor = "w"} : f32[8, 4]        %w = load {tensor = "w"} : f32[8, 4]
//! %y = linear(%x, %w) : f32[1, 8]        →    %a = cast(%w) {dtype = "f16"} : f16[8, 4]
//!                                             %b = cast(%a) {dtype = "f32"} : f32[8, 4]
//!                                             %y = linear(%x, %b) : f32[1, 8]
//! ```

use std::collections::HashSet;

use s2dit_ir::ops::{Cast, OpError};
use s2dit_ir::{DType, Function, Module, Op, ValueId};

use crate::Property;
use crate::pass::{PassKind, Run};

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "half-weights",
    doc: "weights are fp16 numbers that are computed with in fp32",
    needs: &[Property::Fp32, Property::Uncompressed],
    run: Run::Plain(run),
    ..PassKind::PLAIN
};

/// Runs on every function; returns the number of weights.
///
/// # Errors
/// None in practice: types are kept.
pub fn run(module: &mut Module) -> Result<usize, OpError> {
    module.functions.iter_mut().map(halve).sum()
}

fn halve(f: &mut Function) -> Result<usize, OpError> {
    let constants = f.constants();
    let mut stored: HashSet<ValueId> = HashSet::new();
    for v in f.order() {
        if constants.contains(&v)
            && (matches!(f.op(v), Op::Load(_)) || f.operands(v).iter().any(|operand| stored.contains(operand)))
        {
            stored.insert(v);
        }
    }
    let mut changes = 0;
    for v in f.order().into_iter().filter(|v| stored.contains(v) && f.dtype(*v) == DType::F32).collect::<Vec<_>>() {
        let users: Vec<(ValueId, usize)> =
            f.users(v).into_iter().filter(|(user, _)| !constants.contains(user)).collect();
        if users.is_empty() {
            continue;
        }
        let scope = f.node(v).scope.clone();
        let half = f.add(Cast { dtype: DType::F16 }.into(), &[v], &scope)?;
        let single = f.add(Cast { dtype: DType::F32 }.into(), &[half], &scope)?;
        for (user, position) in users {
            f.set_operand(user, position, single);
        }
        changes += 1;
    }
    Ok(changes)
}
