//! Composite ops become the tensor ops that they stand for.
//!
//! ```text
//! %y = modulate(%x, %a, %b)  →  %0 = literal {values = [1.0]}
//!                               %1 = add(%a, %0)
//!                               %2 = mul(%x, %1)
//!                               %y = add(%2, %b)
//! ```
//! Afterwards no live op is a composite.

use s2dit_ir::ops::OpError;
use s2dit_ir::{Builder, Function, Module, Op, ValueId};

use crate::Property;
use crate::pass::{PassKind, Run};

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "decompose",
    doc: "no composite op: tensor ops only",
    establishes: &[Property::TensorOps],
    destroys: &[Property::Fused],
    run: Run::Plain(run),
    ..PassKind::PLAIN
};

/// The pass for ONNX, opset 21.
pub static FOR_ONNX21: PassKind = PassKind {
    name: "decompose-for-onnx21",
    doc: "no composite op but those that ONNX has, or ONNX Runtime makes of their parts",
    destroys: &[Property::Fused],
    run: Run::Plain(|m| run_except(m, onnx21_has)),
    ..PassKind::PLAIN
};

/// The pass for ONNX, opset 23.
pub static FOR_ONNX23: PassKind = PassKind {
    name: "decompose-for-onnx23",
    doc: "the same with the ops of opset 23",
    destroys: &[Property::Fused],
    run: Run::Plain(|m| run_except(m, onnx23_has)),
    ..PassKind::PLAIN
};

/// The pass for Core AI.
pub static FOR_COREAI: PassKind = PassKind {
    name: "decompose-for-coreai",
    doc: "no composite op but those that Core AI's devices know by name: attention, root mean square norms, rotations",
    destroys: &[Property::Fused],
    run: Run::Plain(|m| run_except(m, coreai_has)),
    ..PassKind::PLAIN
};

/// Runs on every function; returns the number of composites replaced.
///
/// # Errors
/// None in practice: a decomposition has its op's type.
pub fn run(module: &mut Module) -> Result<usize, OpError> {
    run_except(module, |_, _| false)
}

/// Whether a composite has an ONNX op, or ops that ONNX Runtime takes for one, in opset 21.
#[must_use]
pub fn onnx21_has(f: &Function, v: ValueId) -> bool {
    match f.op(v) {
        Op::RmsNorm(n) => n.axis + 1 == f.ty(v).rank(),
        Op::Modulate(_) => true,
        _ => false,
    }
}

/// The same in opset 23.
#[must_use]
pub fn onnx23_has(f: &Function, v: ValueId) -> bool {
    match f.op(v) {
        // RotaryEmbedding takes [B, A, N, d] with tables that all heads share.
        Op::Rope(r) => r.axis == 3 && f.ty(v).rank() == 4 && f.ty(f.operands(v)[1]).rank() == 2,
        // Attention takes [B, A, N, d], the same A for all.
        Op::Sdpa(_) => {
            let operands = f.operands(v);
            let same = |o: &ValueId| f.ty(*o).rank() == 4 && f.shape(*o)[..2] == f.shape(v)[..2];
            operands.len() == 3 && f.ty(v).rank() == 4 && operands.iter().all(same)
        }
        _ => onnx21_has(f, v),
    }
}

/// Whether Core AI has a name for a composite: of heads `[B, A, N, d]` and rows, with the extents that its declarations speak of.
#[must_use]
pub fn coreai_has(f: &Function, v: ValueId) -> bool {
    let operands = f.operands(v);
    let rank = f.ty(v).rank();
    match f.op(v) {
        Op::RmsNorm(n) => n.axis + 1 == rank,
        Op::Rope(r) => r.axis + 1 == rank,
        Op::Sdpa(_) => {
            let same = |o: &ValueId| f.ty(*o).rank() == 4 && f.shape(*o)[..2] == f.shape(v)[..2];
            rank == 4 && operands[..3].iter().all(same)
        }
        _ => false,
    }
}

/// [`run`], but composites that `keep` says stay.
///
/// # Errors
/// None in practice: a decomposition has its op's type.
pub fn run_except(module: &mut Module, keep: impl Fn(&Function, ValueId) -> bool) -> Result<usize, OpError> {
    let mut changes = 0;
    for f in &mut module.functions {
        for v in f.order() {
            if keep(f, v) {
                continue;
            }
            let (op, operands, scope) = (f.op(v).clone(), f.operands(v), f.node(v).scope.clone());
            let mut b = Builder::new(f);
            b.enter(&scope);
            if let Some(y) = op.decompose(&mut b, &operands) {
                let y = y?;
                f.replace_uses(v, y);
                changes += 1;
            }
        }
        f.remove_dead();
    }
    Ok(changes)
}
