//! Ops of the IR that are one op of MIL together.
//!
//! - slices that tile an axis: `split`;
//! - an epsilon before a square root: the epsilon of `rsqrt`.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use s2dit_ir::ops::{Binary, Literal, Op, Unary};
use s2dit_ir::{Function, ValueId};

use super::{Lowering, NamedValueType, named, operation};

/// Values that are emitted together with another op.
#[derive(Debug, Default)]
pub(super) struct Together {
    /// Slices by the first of them: axis and all, from the axis' begin to its end.
    splits: HashMap<ValueId, (usize, Vec<ValueId>)>,
    /// Values that need no op of their own.
    taken: HashSet<ValueId>,
    /// Square roots that add a number first: what they add it to.
    epsilons: HashMap<ValueId, (ValueId, f64)>,
}

impl Together {
    pub(super) fn of(f: &Function, order: &[ValueId], constant: &HashSet<ValueId>) -> Self {
        let place: HashMap<ValueId, usize> = order.iter().enumerate().map(|(i, v)| (*v, i)).collect();
        let mut together = Together::default();
        for &v in order {
            if constant.contains(&v) {
                continue;
            }
            if let Some((axis, mut parts)) = tiles(f, v, &place) {
                let ordered = parts.clone();
                parts.sort_by_key(|p| place[p]);
                together.taken.extend(&parts[1..]);
                together.splits.insert(parts[0], (axis, ordered));
            }
            if let Some((x, sum, epsilon)) = epsilon(f, v)
                && !constant.contains(&x)
            {
                together.taken.insert(sum);
                together.epsilons.insert(v, (x, epsilon));
            }
        }
        together
    }

    pub(super) fn takes(&self, v: ValueId) -> bool {
        self.taken.contains(&v)
    }
}

/// The slices of `x`, if they tile one axis and nothing else is cut.
fn tiles(f: &Function, x: ValueId, place: &HashMap<ValueId, usize>) -> Option<(usize, Vec<ValueId>)> {
    let shape = f.shape(x);
    let mut found: Option<usize> = None;
    let mut parts: Vec<(usize, usize, ValueId)> = Vec::new();
    for (user, _) in f.users(x) {
        let Op::Slice(slice) = f.op(user) else { continue };
        if !place.contains_key(&user) {
            continue;
        }
        let cut = |a: &usize| (slice.begin[*a], slice.end[*a], slice.stride[*a]) != (0, shape[*a], 1);
        let mut axes = (0..shape.len()).filter(cut);
        let (Some(axis), None) = (axes.next(), axes.next()) else { continue };
        if slice.stride[axis] != 1 || found.is_some_and(|a| a != axis) {
            return None;
        }
        found = Some(axis);
        parts.push((slice.begin[axis], slice.end[axis], user));
    }
    let axis = found?;
    parts.sort_unstable();
    let mut at = 0;
    for &(begin, end, _) in &parts {
        if begin != at {
            return None;
        }
        at = end;
    }
    (at == shape[axis] && parts.len() > 1).then(|| (axis, parts.into_iter().map(|(_, _, v)| v).collect()))
}

/// `rsqrt(x + ε)`: x, the sum and ε.
fn epsilon(f: &Function, v: ValueId) -> Option<(ValueId, ValueId, f64)> {
    let Op::Unary(Unary::Rsqrt) = f.op(v) else { return None };
    let sum = f.operands(v)[0];
    let (Op::Binary(Binary::Add), Some(_)) = (f.op(sum), f.only_use(sum)) else { return None };
    let [x, number] = f.operands(sum)[..] else { return None };
    let mut literal = number;
    while let Op::Cast(_) = f.op(literal) {
        literal = f.operands(literal)[0];
    }
    match f.op(literal) {
        Op::Literal(Literal { values }) if f.shape(x) == f.shape(sum) && f.ty(number).elements() == 1 => {
            values.first().filter(|e| **e > 0.0).map(|e| (x, sum, *e))
        }
        _ => None,
    }
}

impl Lowering<'_> {
    /// Emits `v` with what belongs to it; `false` if it stands alone.
    pub(super) fn together(&mut self, v: ValueId) -> Result<bool> {
        if let Some((x, epsilon)) = self.together.epsilons.get(&v).copied() {
            let x = self.value(x)?;
            let inputs = vec![("x", named(&x)), ("epsilon", self.epsilon(v, epsilon)?)];
            self.emit(v, "rsqrt", inputs)?;
            return Ok(true);
        }
        let Some((axis, parts)) = self.together.splits.get(&v).cloned() else { return Ok(false) };
        let f = self.f;
        let x = self.operands(v)?.remove(0);
        let sizes: Vec<usize> = parts.iter().map(|&p| f.shape(p)[axis]).collect();
        let inputs = vec![
            ("x", named(&x)),
            ("split_sizes", self.ints(v, "split_sizes", &sizes)?),
            ("axis", self.int(v, "axis", axis)?),
        ];
        let mut outputs = Vec::with_capacity(parts.len());
        for &part in &parts {
            let name = self.name_of(part);
            outputs.push(NamedValueType { name: name.clone(), r#type: Some(self.value_type(f.ty(part))?) });
            self.values.insert(part, name);
        }
        let name = self.names.unique(&format!("{}_split", outputs[0].name));
        self.out.ops += 1;
        self.operations.push(super::proto::Operation { outputs, ..operation("split", &name, inputs, None, None) });
        Ok(true)
    }
}
