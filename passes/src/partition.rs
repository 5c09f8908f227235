//! A function becomes several that run one after the other, cut between blocks.
//!
//! ```text
//! @main(x) { block0, block1, block2, block3 }  →  @main(x) { block0, block1 } → block1, part0_1
//!                                                 @main(block1, part0_1) { block2, block3 }
//! ```
//! What one part computes and a later one reads becomes an output and an input of the same name; constants are repeated where they are
//! read. A value belongs to the block that its scope lies in, by the milestones of the interface, and never before its operands.

use std::collections::{BTreeMap, HashMap, HashSet};

use s2dit_ir::ops::{Compress, OpError};
use s2dit_ir::weights::ExpressionId;
use s2dit_ir::{DType, Function, Interface, Node, Op, ValueId};

/// What is stored of a constant that is the cast of fp16 numbers to fp32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Casts {
    /// The fp32 numbers.
    AreStored,
    /// The fp16 numbers: the cast is an op.
    AreComputed,
}

/// Bytes of weights of each block of functions that share them: what comes before the first block counts there, what comes after the
/// last one there.
#[must_use]
pub fn block_bytes(functions: &[&Function], interface: &Interface, casts: Casts) -> Vec<u64> {
    let mut bytes: BTreeMap<usize, u64> = BTreeMap::new();
    let mut seen: HashSet<ExpressionId> = HashSet::new();
    for f in functions {
        let places = blocks(f, interface);
        for v in f.order() {
            if f.is_const(v) {
                continue;
            }
            let at = bytes.entry(places[&v]).or_default();
            for o in f.operands(v).into_iter().filter(|&o| f.is_const(o)) {
                if seen.insert(ExpressionId::of(f, o)) {
                    *at += stored_bytes(f, o, casts);
                }
            }
        }
    }
    let last = bytes.keys().next_back().map_or(0, |b| b + 1);
    (0..last).map(|b| bytes.get(&b).copied().unwrap_or(0)).collect()
}

fn stored_bytes(f: &Function, v: ValueId, casts: Casts) -> u64 {
    let of = |v: ValueId| f.ty(v).bytes() as u64;
    match (f.op(v), f.operands(v).first()) {
        (Op::Compress(Compress { scheme }), _) => scheme.bytes(f.shape(v)).map_or(of(v), |bytes| bytes as u64),
        (Op::Cast(_), Some(&half))
            if casts == Casts::AreComputed && f.dtype(half) == DType::F16 && !matches!(f.op(half), Op::Load(_)) =>
        {
            of(half)
        }
        _ => of(v),
    }
}

/// The first block of each of `parts` parts, the largest of which is as small as it can be.
#[must_use]
pub fn cuts(bytes: &[u64], parts: usize) -> Vec<usize> {
    let parts = parts.clamp(1, bytes.len().max(1));
    let (mut low, mut high) = (bytes.iter().copied().max().unwrap_or(0), bytes.iter().sum());
    while low < high {
        let limit = low + (high - low) / 2;
        if filled(bytes, limit).len() <= parts { high = limit } else { low = limit + 1 }
    }
    let mut starts = filled(bytes, low);
    // As many as were asked for: the largest part that has two blocks is halved.
    while starts.len() < parts {
        let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
        let ranges = starts.iter().copied().zip(ends).filter(|(start, end)| end - start > 1);
        let Some((start, end)) = ranges.max_by_key(|&(start, end)| bytes[start..end].iter().sum::<u64>()) else {
            break;
        };
        starts.push(start + (end - start) / 2);
        starts.sort_unstable();
    }
    starts
}

/// The fewest parts of at most `limit` bytes; a block that is larger has a part of its own.
#[must_use]
pub fn filled(bytes: &[u64], limit: u64) -> Vec<usize> {
    let (mut starts, mut sum) = (vec![0], 0);
    for (block, &size) in bytes.iter().enumerate() {
        if sum > 0 && sum + size > limit {
            starts.push(block);
            sum = 0;
        }
        sum += size;
    }
    starts
}

/// Cuts `f` where the blocks `starts` begin, the first of which is 0. Every part has the name of `f`; a part that computes nothing that is
/// needed is left out; the others come with their index in `starts`.
///
/// # Errors
/// A function that updates states: they must be inputs and outputs.
pub fn partition(f: &Function, interface: &Interface, starts: &[usize]) -> Result<Vec<(usize, Function)>, OpError> {
    if !f.updates.is_empty() {
        return Err(OpError::new(format!("function `{}` updates states, which parts cannot share", f.name)));
    }
    let order = f.order();
    let places = blocks(f, interface);
    let part_of = |v: ValueId| starts.partition_point(|&s| s <= places[&v]).saturating_sub(1);
    let computed = |v: ValueId| !f.is_const(v) && !matches!(f.op(v), Op::Input(_));

    // What later parts read of each value's part.
    let mut crossing: HashMap<ValueId, String> = HashMap::new();
    for &v in order.iter().filter(|&&v| computed(v)) {
        for o in f.operands(v).into_iter().filter(|&o| computed(o) && part_of(o) < part_of(v)) {
            let count = crossing.len();
            let name = f.node(o).name.as_deref().map_or_else(|| format!("part{}_{count}", part_of(o)), str::to_string);
            crossing.entry(o).or_insert(name);
        }
    }
    // A result that is read on keeps its one name.
    for (name, v) in &f.results {
        if let Some(known) = crossing.get_mut(v) {
            known.clone_from(name);
        }
    }

    let mut parts = Vec::new();
    for part in 0..starts.len() {
        let mut g = Function::new(f.name.clone());
        let mut new: HashMap<ValueId, ValueId> = HashMap::new();
        for &v in order.iter().filter(|&&v| computed(v) && part_of(v) == part) {
            let operands: Vec<ValueId> =
                f.operands(v).into_iter().map(|o| copied(f, &mut g, &mut new, &crossing, o)).collect();
            let made = g.push(f.node(v).clone(), &operands);
            new.insert(v, made);
        }
        for &v in order.iter().filter(|&&v| computed(v) && part_of(v) == part) {
            if let Some(name) = crossing.get(&v) {
                g.results.push((name.clone(), new[&v]));
            }
        }
        let last = part + 1 == starts.len();
        for (name, v) in &f.results {
            let here = if computed(*v) { part_of(*v) == part } else { last };
            if here && crossing.get(v) != Some(name) {
                let made = copied(f, &mut g, &mut new, &crossing, *v);
                g.results.push((name.clone(), made));
            }
        }
        // Each name is defined once, and an input keeps its own.
        for (name, v) in g.results.clone() {
            if g.by_name(&name).is_none() && !matches!(g.op(v), Op::Input(_)) {
                g.set_name(v, &name);
            }
        }
        if !g.results.is_empty() {
            parts.push((part, g));
        }
    }
    Ok(parts)
}

/// A value that a part reads but does not compute: a constant, an input, or what an earlier part returns.
fn copied(
    f: &Function,
    g: &mut Function,
    new: &mut HashMap<ValueId, ValueId>,
    crossing: &HashMap<ValueId, String>,
    v: ValueId,
) -> ValueId {
    if let Some(&made) = new.get(&v) {
        return made;
    }
    let node = f.node(v);
    let made = if f.is_const(v) {
        let operands: Vec<ValueId> = f.operands(v).into_iter().map(|o| copied(f, g, new, crossing, o)).collect();
        g.push(Node { ..node.clone() }, &operands)
    } else {
        let name = crossing.get(&v).map(String::as_str).or(node.name.as_deref()).unwrap_or_default();
        g.add_param(name, node.ty.clone())
    };
    new.insert(v, made);
    made
}

/// The block of every value: its scope's, and no earlier one than its operands'.
fn blocks(f: &Function, interface: &Interface) -> HashMap<ValueId, usize> {
    let mut places: HashMap<ValueId, usize> = HashMap::new();
    let blocks = interface.blocks();
    for v in f.order() {
        let after = f.operands(v).into_iter().filter(|&o| !f.is_const(o)).map(|o| places[&o]).max().unwrap_or(0);
        places.insert(v, after.max(blocks.of(&f.node(v).scope).unwrap_or(0)));
    }
    places
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use s2dit_ir::interp::{self, Bindings};
    use s2dit_ir::text::parse;
    use s2dit_ir::verify::verify;
    use s2dit_ir::weights::NoWeights;
    use s2dit_ir::{Module, Tensor, TensorType};

    use super::*;

    const GRAPH: &str = r#"module {
  milestone "block0" @ "blocks.0"
  milestone "b" @ "blocks.1"
  milestone "d" @ "blocks.2"
  func @main(%x: f32[4], %t: f32[4]) {
    %c = literal {values = [2.0]} : f32[1] @ "condition"
    %s = mul(%t, %c) : f32[4] @ "condition"
    %a = add(%x, %s) : f32[4] @ "blocks.0"
    %block0 = mul(%a, %c) : f32[4] @ "blocks.0.ffn"
    %b = add(%block0, %s) : f32[4] @ "blocks.1"
    %skip = add(%b, %a) : f32[4] @ "stages.0.up"
    %d = mul(%skip, %b) : f32[4] @ "blocks.2"
    %y = add(%d, %s) : f32[4] @ "proj_out"
    return y = %y, early = %block0
  }
}"#;

    fn run_chain(parts: &[Function], inputs: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
        let mut values = inputs.clone();
        for part in parts {
            let mut bindings = Bindings::default();
            for &p in part.params() {
                let name = part.node(p).name.as_deref().unwrap();
                bindings.params.insert(name.into(), values[name].clone());
            }
            let results = interp::run(part, &NoWeights, &bindings).unwrap();
            values.extend(part.results.iter().map(|(name, _)| name.clone()).zip(results));
        }
        values
    }

    #[test]
    fn parts_are_filled_to_the_limit() {
        assert_eq!(filled(&[2, 2, 2, 5, 0, 1], 4), [0, 2, 3, 4]);
        assert_eq!(filled(&[9, 1], 4), [0, 1]);
        assert_eq!(filled(&[], 4), [0]);
    }

    #[test]
    fn weights_count_once_in_the_block_that_reads_them_first() {
        let text = r#"module {
  milestone "a" @ "blocks.0"
  milestone "b" @ "blocks.1"
  milestone "c" @ "blocks.2"
  func @main(%x: f32[1, 4]) {
    %w = load {tensor = "w"} : f32[4, 4]
    %v = load {tensor = "v"} : f32[8, 4]
    %a = linear(%x, %w) : f32[1, 4] @ "blocks.0"
    %b = linear(%a, %w) : f32[1, 4] @ "blocks.1"
    %c = linear(%b, %v) : f32[1, 8] @ "blocks.2"
    return y = %c
  }
}"#;
        let module = parse(text).unwrap();
        let f = &module.functions[0];
        let bytes = |functions: &[&Function]| block_bytes(functions, &module.interface, Casts::AreStored);
        assert_eq!(bytes(&[f]), [64, 0, 128]);
        assert_eq!(bytes(&[f, f]), [64, 0, 128]);
        assert_eq!(bytes(&[]), [0; 0]);
    }

    #[test]
    fn casts_count_as_what_is_stored() {
        let text = r#"module {
  milestone "a" @ "blocks.0"
  func @main(%x: f32[1, 4]) {
    %w = load {tensor = "w"} : f32[4, 4]
    %h = cast(%w) {dtype = "f16"} : f16[4, 4]
    %s = cast(%h) {dtype = "f32"} : f32[4, 4]
    %a = linear(%x, %s) : f32[1, 4] @ "blocks.0"
    return y = %a
  }
}"#;
        let module = parse(text).unwrap();
        let bytes = |casts| block_bytes(&[&module.functions[0]], &module.interface, casts);
        assert_eq!((bytes(Casts::AreStored), bytes(Casts::AreComputed)), (vec![64], vec![32]));
    }

    proptest! {
        /// Any cut computes the same.
        #[test]
        fn parts_compute_what_the_whole_does(starts in prop::sample::subsequence(vec![1, 2, 3], 0..=3)) {
            let mut module = parse(GRAPH).unwrap();
            verify(&module).unwrap();
            let f = module.functions.remove(0);
            let tensor = |k: f64| Tensor::from_values(&TensorType::new(DType::F32, [4]), vec![k, 1.0, -2.0, 0.5]).unwrap();
            let inputs = BTreeMap::from([("x".to_string(), tensor(3.0)), ("t".to_string(), tensor(0.25))]);
            let starts: Vec<usize> = [0].into_iter().chain(starts).collect();
            let parts: Vec<Function> = partition(&f, &module.interface, &starts).unwrap().into_iter().map(|(_, part)| part).collect();
            for part in &parts {
                verify(&Module::single(part.clone())).unwrap();
            }
            let (whole, chain) = (run_chain(&[f], &inputs), run_chain(&parts, &inputs));
            for name in ["y", "early"] {
                prop_assert_eq!(&whole[name].data, &chain[name].data);
            }
        }

        /// No split into as many parts has a smaller largest one.
        #[test]
        fn cuts_are_the_most_even(bytes in prop::collection::vec(1u64..50, 1..9), parts in 1usize..5) {
            let largest = |starts: &[usize]| {
                let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
                starts.iter().copied().zip(ends).map(|(s, e)| bytes[s..e].iter().sum::<u64>()).max().unwrap()
            };
            let found = cuts(&bytes, parts);
            prop_assert_eq!(found.len(), parts.min(bytes.len()));
            for mask in 0u32..1 << (bytes.len() - 1) {
                let starts: Vec<usize> = [0].into_iter().chain((1..bytes.len()).filter(|b| mask >> (b - 1) & 1 == 1)).collect();
                if starts.len() == found.len() {
                    prop_assert!(largest(&found) <= largest(&starts));
                }
            }
        }
    }
}
