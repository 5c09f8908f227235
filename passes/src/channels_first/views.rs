//! Ops that only move or name elements.

use std::collections::HashMap;

use s2dit_ir::ops::{Concat, OpError, Pad, Reshape, Slice, Transpose};
use s2dit_ir::{Function, Module, Op, TensorType, ValueId};

use super::form::{Form, natural, same_order};
use super::{HEADS, Rewriter, Stored};

/// States whose layout changes: windows of heads keep their tokens on the last axis, tails of frames their planes.
pub(super) fn state_forms(module: &Module) -> HashMap<String, Form> {
    let joined = |name: &str, axis: usize| {
        module.functions.iter().any(|f| {
            let reads = f.order().into_iter().filter(|&v| matches!(f.op(v), Op::State(s) if s.state == name));
            reads.into_iter().any(|v| {
                f.users(v).iter().any(|(u, _)| matches!(f.op(*u), Op::Concat(Concat { axis: a }) if *a == axis))
            })
        })
    };
    let mut forms = HashMap::new();
    for state in &module.states {
        let dims = &state.ty.shape;
        let order = match dims.len() {
            4 if joined(&state.name, 2) => HEADS.to_vec(),
            5 if joined(&state.name, 2) => natural(5),
            _ => continue,
        };
        forms.insert(state.name.clone(), Form::of(dims, &order));
    }
    forms
}

/// Whether a value is a table or mask that the caller gives, with padding around.
pub(super) fn of_caller(f: &Function, v: ValueId) -> bool {
    let padded = |v: ValueId| matches!(f.op(v), Op::Pad(_)) && matches!(f.op(f.operands(v)[0]), Op::Input(_));
    f.ty(v).rank() != 3 && padded(v)
}

/// The order in which functions of one module exchange a value.
pub(super) fn internal_order(dims: &[usize]) -> Option<Vec<usize>> {
    (dims.len() == 4).then(|| HEADS.to_vec())
}

impl Rewriter<'_> {
    pub(super) fn param(&mut self, v: ValueId) {
        let node = self.old.node(v);
        let name = node.name.as_deref().unwrap_or_default();
        match internal_order(&node.ty.shape).filter(|_| self.options.internal.contains(name)) {
            Some(order) => {
                let shape = Form::of(&node.ty.shape, &order).shape;
                let value = self.g.add_param(name, TensorType::new(node.ty.dtype, shape));
                self.stored.insert(v, Stored { value, order });
            }
            None => {
                let value = self.g.add_param(name, node.ty.clone());
                self.plain.insert(v, value);
            }
        }
    }

    pub(super) fn state(&mut self, v: ValueId) {
        let mut node = self.old.node(v).clone();
        let Op::State(state) = &node.op else { return };
        match self.states.get(&state.state) {
            Some(form) => {
                node.ty.shape.clone_from(&form.shape);
                let order = form.order.clone();
                let value = self.g.push(node, &[]);
                self.stored.insert(v, Stored { value, order });
            }
            None => {
                let value = self.g.push(node, &[]);
                self.plain.insert(v, value);
            }
        }
    }

    /// A reshape or transpose that only renames axes of what is stored.
    pub(super) fn relabelled(&mut self, v: ValueId, x: ValueId) -> Option<Stored> {
        let stored = self.stored.get(&x)?;
        let order = relabel(self.old, v, &stored.order)?;
        Some(Stored { value: stored.value, order })
    }

    pub(super) fn slice(&mut self, v: ValueId, x: ValueId, slice: &Slice) -> Result<Option<Stored>, OpError> {
        let Some(stored) = self.stored.get(&x) else { return Ok(None) };
        let (dims, order) = (self.dims(x), stored.order.clone());
        let form = Form::of(dims, &order);
        let (mut begin, mut end, mut stride) =
            (vec![0; form.shape.len()], form.shape.clone(), vec![1; form.shape.len()]);
        for (axis, &extent) in dims.iter().enumerate() {
            if (slice.begin[axis], slice.end[axis], slice.stride[axis]) == (0, extent, 1) {
                continue;
            }
            let Some(at) = form.axis[axis] else { return Ok(None) };
            (begin[at], end[at], stride[at]) = (slice.begin[axis], slice.end[axis], slice.stride[axis]);
        }
        let value = self.in_form(x, &order)?;
        let value = self.at(v, |b| b.op(Slice { begin, end, stride }, &[value]))?;
        Ok(Some(Stored { value, order }))
    }

    pub(super) fn pad(&mut self, v: ValueId, x: ValueId, pad: &Pad) -> Result<Option<Stored>, OpError> {
        let Some(stored) = self.stored.get(&x) else { return Ok(None) };
        let order = stored.order.clone();
        let form = Form::of(self.dims(x), &order);
        let (mut before, mut after) = (vec![0; form.shape.len()], vec![0; form.shape.len()]);
        for axis in (0..order.len()).filter(|&a| pad.before[a] + pad.after[a] > 0) {
            let Some(at) = form.axis[axis] else { return Ok(None) };
            (before[at], after[at]) = (pad.before[axis], pad.after[axis]);
        }
        let value = self.in_form(x, &order)?;
        let value = self.at(v, |b| b.pad(value, &before, &after, pad.value))?;
        Ok(Some(Stored { value, order }))
    }

    pub(super) fn concat(&mut self, v: ValueId, operands: &[ValueId], axis: usize) -> Result<Option<Stored>, OpError> {
        let Some(stored) = operands.iter().find_map(|o| self.stored.get(o)) else { return Ok(None) };
        let order = stored.order.clone();
        let form = Form::of(self.dims(v), &order);
        let Some(at) = form.axis[axis] else { return Ok(None) };
        let values = operands.iter().map(|&o| self.in_form(o, &order)).collect::<Result<Vec<_>, _>>()?;
        let value = self.at(v, |b| b.concat(&values, at))?;
        Ok(Some(Stored { value, order }))
    }
}

/// The order of a view's axes, given that of its operand's.
pub(super) fn relabel(f: &Function, v: ValueId, order: &[usize]) -> Option<Vec<usize>> {
    match f.op(v) {
        Op::Transpose(t) => Some(transposed(order, t)),
        Op::Reshape(r) => reshaped(f.shape(f.operands(v)[0]), order, r),
        _ => None,
    }
}

fn transposed(order: &[usize], t: &Transpose) -> Vec<usize> {
    order.iter().map(|axis| t.perm.iter().position(|p| p == axis).unwrap_or_default()).collect()
}

/// Splits and joins axes of `dims` that lie in `order`; `None` if axes are joined that do not follow each other.
fn reshaped(dims: &[usize], order: &[usize], r: &Reshape) -> Option<Vec<usize>> {
    let mut result: Vec<usize> = Vec::new();
    let segments = segments(dims, &r.shape)?;
    let long: Vec<usize> = order.iter().copied().filter(|&a| dims[a] != 1).collect();
    let mut at = 0;
    while at < long.len() {
        let (from, to) = segments.iter().find(|(from, _)| from.contains(&long[at]))?;
        let wanted: Vec<usize> = from.clone().filter(|&a| dims[a] != 1).collect();
        if long.get(at..at + wanted.len())? != wanted {
            return None;
        }
        at += wanted.len();
        result.extend(to.clone().filter(|&a| r.shape[a] != 1));
    }
    // Axes of one go first.
    let mut all: Vec<usize> = (0..r.shape.len()).filter(|a| !result.contains(a)).collect();
    all.extend(result);
    // As near to the old order as axes of one allow, so that equal layouts look equal.
    let natural = natural(r.shape.len());
    Some(if same_order(&r.shape, &all, &natural) { natural } else { all })
}

type Range = std::ops::Range<usize>;

/// The smallest runs of axes with equal products.
fn segments(from: &[usize], to: &[usize]) -> Option<Vec<(Range, Range)>> {
    let mut segments = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < from.len() || j < to.len() {
        let (start, begin) = (i, j);
        let (mut a, mut b) = (1, 1);
        loop {
            if a == b && (i > start || j > begin) {
                break;
            }
            if a <= b && i < from.len() {
                a *= from[i];
                i += 1;
            } else if j < to.len() {
                b *= to[j];
                j += 1;
            } else if i < from.len() {
                a *= from[i];
                i += 1;
            } else {
                return None;
            }
        }
        segments.push((start..i, begin..j));
    }
    Some(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_split_and_joined_without_a_move() {
        let split = Reshape { shape: vec![1, 6, 2, 8] };
        let order = reshaped(&[1, 6, 16], &[0, 2, 1], &split).unwrap();
        assert_eq!(order, [0, 2, 3, 1]);
        let join = Reshape { shape: vec![1, 6, 16] };
        assert_eq!(reshaped(&[1, 6, 2, 8], &order, &join).unwrap(), [0, 2, 1]);
        // Tokens and channels mixed.
        assert_eq!(reshaped(&[1, 6, 16], &[0, 2, 1], &Reshape { shape: vec![96] }), None);
    }

    #[test]
    fn segments_are_as_small_as_can_be() {
        assert_eq!(segments(&[1, 6, 16], &[3, 2, 16]).unwrap(), [(0..1, 0..0), (1..2, 0..2), (2..3, 2..3)]);
        assert_eq!(segments(&[6], &[6, 1]).unwrap(), [(0..1, 0..1), (1..1, 1..2)]);
        assert_eq!(segments(&[6, 1], &[6]).unwrap(), [(0..1, 0..1), (1..2, 1..1)]);
        assert_eq!(segments(&[6], &[4]), None);
        assert_eq!(segments(&[6, 2], &[4]), None);
    }
}
