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
use s2dit_ir::{Builder, Module};

/// Runs on every function; returns the number of composites replaced.
///
/// # Errors
/// None in practice: a decomposition has its op's type.
pub fn run(module: &mut Module) -> Result<usize, OpError> {
    let mut changes = 0;
    for f in &mut module.functions {
        for v in f.order() {
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
