//! Common subexpressions: ops with equal attributes and operands become one. Weight expressions count as well, so equal
//! constants are one value and are stored once.
//!
//! Two values that both have names stay apart.

use std::collections::HashMap;

use s2dit_ir::ops::OpError;
use s2dit_ir::{Module, Op, ValueId};

use crate::pass::{PassKind, Run};

/// The pass.
pub static PASS: PassKind =
    PassKind { name: "cse", doc: "no two live ops that compute the same", run: Run::Plain(run), ..PassKind::PLAIN };

/// Runs on every function; returns the number of ops removed.
///
/// # Errors
/// None.
pub fn run(module: &mut Module) -> Result<usize, OpError> {
    let mut changes = 0;
    for f in &mut module.functions {
        let mut seen: HashMap<Vec<u8>, ValueId> = HashMap::new();
        for v in f.order() {
            let node = f.node(v);
            if matches!(node.op, Op::Input(_)) {
                continue;
            }
            let mut key = Vec::new();
            node.op.write_key(&mut key);
            key.extend(format!("\0{}\0", node.ty).as_bytes());
            f.operands(v).iter().for_each(|o| key.extend(o.index().to_le_bytes()));
            match seen.get(&key) {
                Some(&first) if f.node(v).name.is_none() || f.node(first).name.is_none() => {
                    f.replace_uses(v, first);
                    changes += 1;
                }
                Some(_) => {}
                None => {
                    seen.insert(key, v);
                }
            }
        }
        f.remove_dead();
    }
    Ok(changes)
}
