//! Memory of a function: weights as they are stored, and the activations that live at once.

use std::collections::HashMap;

use s2dit_ir::ops::Op;
use s2dit_ir::weights::ExpressionId;
use s2dit_ir::{Function, ValueId};

use crate::work::{constants, stored};

/// Bytes of different constants by what they are: equal ones are stored once.
pub type Stored = HashMap<ExpressionId, u64>;

/// The constants that the ops of a function read.
#[must_use]
pub fn weights(f: &Function) -> Stored {
    let order = f.order();
    let constant = constants(f, &order);
    let mut found = Stored::new();
    let users = order.iter().filter(|v| !constant.contains(v));
    for v in users.flat_map(|&v| f.operands(v)).filter(|v| constant.contains(v)) {
        found.insert(ExpressionId::of(f, v), stored(f, v).0);
    }
    found
}

/// Bytes of what a call is given: the latent, the text, and states that the host carries.
#[must_use]
pub fn inputs(f: &Function) -> u64 {
    f.params().iter().map(|&v| f.ty(v).bytes() as u64).sum()
}

/// The most bytes of values that are alive at once, results included and inputs not. A reshape has no bytes of its own.
#[must_use]
pub fn activations(f: &Function) -> u64 {
    let order = f.order();
    let constant = constants(f, &order);
    let mut root: HashMap<ValueId, ValueId> = HashMap::new();
    let mut last: HashMap<ValueId, usize> = HashMap::new();
    let alive: Vec<ValueId> = order.into_iter().filter(|v| !constant.contains(v)).collect();
    for (at, &v) in alive.iter().enumerate() {
        let operands = f.operands(v);
        let mine = match (f.op(v), operands.first().and_then(|o| root.get(o))) {
            (Op::Reshape(_) | Op::Dequantize(_), Some(&of)) => of,
            _ => v,
        };
        root.insert(v, mine);
        last.insert(mine, at);
        for of in operands.iter().filter_map(|o| root.get(o)) {
            last.insert(*of, at);
        }
    }
    let end = alive.len();
    let kept = f.results.iter().chain(&f.updates).filter_map(|(_, v)| root.get(v));
    for v in kept {
        last.insert(*v, end);
    }
    let mut dies: HashMap<usize, u64> = HashMap::new();
    let size = |v: ValueId| if f.params().contains(&v) { 0 } else { f.ty(v).bytes() as u64 };
    let (mut now, mut most) = (0, 0);
    for (at, &v) in alive.iter().enumerate() {
        if root[&v] == v {
            now += size(v);
            *dies.entry(last[&v]).or_default() += size(v);
        }
        most = most.max(now);
        now -= dies.remove(&at).unwrap_or_default();
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_no_more_is_freed_and_a_view_is_free() {
        let module = s2dit_ir::text::parse(
            r#"module { func @main(%x: f16[8]) {
                %w = load {tensor = "w"} : f16[8]
                %a = add(%x, %w) : f16[8]
                %v = reshape(%a) {shape = [2, 4]} : f16[2, 4]
                %b = exp(%v) : f16[2, 4]
                %c = exp(%b) : f16[2, 4]
                %y = add(%c, %c) : f16[2, 4]
                return y = %y
            } }"#,
        )
        .unwrap();
        let f = &module.functions[0];
        // At any time two of 16 bytes.
        assert_eq!((activations(f), inputs(f)), (2 * 16, 16));
        assert_eq!(weights(f).values().sum::<u64>(), 16);
    }
}
