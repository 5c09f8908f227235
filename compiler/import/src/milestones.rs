//! Milestones of an imported graph: the values that leave its blocks, by the module paths of its ops.
//!
//! Blocks are the entries of the longest list of modules at the outermost level: `blocks.0`, `blocks.1`, … A block has a milestone if
//! one value of it is used outside, which is what it hands on.

use std::collections::{BTreeMap, HashSet};

use s2dit_ir::interface::Milestone;
use s2dit_ir::{Function, Module, ValueId};

/// Adds milestones to a module of one function that has none.
pub(crate) fn complete(module: &mut Module) {
    let Module { functions, interface, .. } = module;
    let [f] = functions.as_mut_slice() else { return };
    if !interface.milestones.is_empty() {
        return;
    }
    let Some((list, blocks)) = blocks(f) else { return };
    for (index, value) in blocks {
        let scope = format!("{list}.{index}");
        let name = match f.node(value).name.as_deref() {
            Some(name) => name.to_owned(),
            None => {
                let free = format!("block{index}");
                if f.by_name(&free).is_some() {
                    continue;
                }
                f.set_name(value, &free);
                free
            }
        };
        interface.milestones.push(Milestone { value: name, scope });
    }
}

/// The path of the list of blocks, and the value that leaves each, in order; `None` unless there are at least two.
fn blocks(f: &Function) -> Option<(String, Vec<(usize, ValueId)>)> {
    let order = f.order();
    let computed: Vec<ValueId> = non_constant(f, &order);
    let mut lists: BTreeMap<&str, BTreeMap<usize, Vec<ValueId>>> = BTreeMap::new();
    for &v in &computed {
        if let Some((list, index)) = outermost(&f.node(v).scope) {
            lists.entry(list).or_default().entry(index).or_default().push(v);
        }
    }
    // Of lists of one length the first: reversed, since `max_by_key` gives the last.
    let (list, entries) = lists.into_iter().rev().max_by_key(|(_, entries)| entries.len())?;
    let results: HashSet<ValueId> = f.results.iter().map(|(_, v)| *v).collect();
    let mut found = Vec::new();
    for (index, values) in &entries {
        let inside: HashSet<ValueId> = values.iter().copied().collect();
        let leaves = |v: &&ValueId| results.contains(v) || f.users(**v).iter().any(|(user, _)| !inside.contains(user));
        let mut leaving = values.iter().filter(leaves);
        if let (Some(only), None) = (leaving.next(), leaving.next()) {
            found.push((*index, *only));
        }
    }
    (found.len() >= 2 && found.len() == entries.len()).then(|| (list.to_owned(), found))
}

/// Values that depend on a parameter or state, in order.
fn non_constant(f: &Function, order: &[ValueId]) -> Vec<ValueId> {
    let mut computed: HashSet<ValueId> = f.params().iter().copied().collect();
    let mut list = Vec::new();
    for &v in order {
        let is_state = matches!(f.op(v), s2dit_ir::Op::State(_));
        if is_state || f.operands(v).iter().any(|operand| computed.contains(operand)) {
            computed.insert(v);
            list.push(v);
        }
    }
    list
}

/// `blocks.3.attn1` → (`blocks`, 3)
fn outermost(scope: &str) -> Option<(&str, usize)> {
    let mut start = 0;
    for part in scope.split('.') {
        if let (Ok(index), true) = (part.parse(), start > 0) {
            return Some((&scope[..start - 1], index));
        }
        start += part.len() + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use s2dit_ir::text::{parse, print};

    #[test]
    fn the_longest_outermost_list_has_the_blocks() {
        let mut module = parse(
            r#"module { func @main(%x: f32[4]) {
                %0 = exp(%x) : f32[4] @ "layers.0.ff.0"
                %1 = abs(%0) : f32[4] @ "layers.0.ff.1"
                %2 = abs(%1) : f32[4] @ "stages.0"
                %3 = exp(%2) : f32[4] @ "layers.1"
                %y = add(%3, %1) : f32[4]
                return y = %y
            } }"#,
        )
        .unwrap();
        complete(&mut module);
        let scopes: Vec<&str> = module.interface.milestones.iter().map(|m| m.scope.as_str()).collect();
        assert_eq!(scopes, ["layers.0", "layers.1"]);
        assert!(print(&module).contains("%block0 = abs("), "{}", print(&module));
    }

    #[test]
    fn a_block_that_hands_on_two_values_has_no_milestone() {
        let mut module = parse(
            r#"module { func @main(%x: f32[4]) {
                %0 = exp(%x) : f32[4] @ "layers.0"
                %1 = abs(%x) : f32[4] @ "layers.0"
                %2 = add(%0, %1) : f32[4] @ "layers.1"
                return y = %2
            } }"#,
        )
        .unwrap();
        complete(&mut module);
        assert!(module.interface.milestones.is_empty());
    }
}
