//! Tokens are padded to whole lines of the Neural Engine: the last axis of its layout is a multiple of 64 bytes.
//!
//! ```text
//! %y = linear(%x, %w) : f32[1, 12, 48]          %x' = pad(%x)                  : f32[1, 32, 48]
//! %s = sdpa(%q, %k, %v)                     →   %y  = linear(%x', %w)          : f32[1, 32, 48]
//!                                               %s  = sdpa(%q, %k, %v, %mask), %mask −10000 where there is no key
//! %g = reshape(%y) : f32[3, 2, 2, 48]           %g  = reshape(slice(%y))
//! ```
//! Padding starts where values become tokens and ends where they become something else. Its contents are finite and have no meaning: a mask hides them
//! from softmax attention, a zero from linear attention; all else is a token's own. A window of keys grows at its old end, whose
//! slots the host's mask never opens.
//!
//! The pass comes after `fuse` and before [`crate::channels_first`].

mod attention;

use std::collections::HashMap;

use s2dit_ir::ops::{Binary, Concat, OpError, Pad, Reshape, Slice, Transpose};
use s2dit_ir::{Function, Module, Op, ValueId};

use crate::Property;
use crate::pass::{PassKind, Run};

/// fp16 elements of 64 bytes.
pub const LINE: usize = 32;

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "pad-tokens",
    doc: "tokens are whole lines of the Neural Engine, padding is masked",
    needs: &[Property::Fused, Property::TokensFirst],
    run: Run::Plain(run),
    ..PassKind::PLAIN
};

/// Runs on every function and state; returns the number of values that are padded.
///
/// # Errors
/// None in practice: the new ops have the old ones' elements.
pub fn run(module: &mut Module) -> Result<usize, OpError> {
    let windows = windows(module);
    let mut changes = 0;
    for f in &mut module.functions {
        let mut padder = Padder { old: f, g: Function::new(f.name.clone()), windows: &windows, made: HashMap::new() };
        padder.run()?;
        changes += padder.made.values().filter(|m| m.padding.is_some()).count();
        *f = padder.g;
        f.remove_dead();
    }
    for state in &mut module.states {
        if let Some(padding) = windows.get(&state.name) {
            state.ty.shape[padding.axis] += padding.before;
        }
    }
    Ok(changes)
}

/// Padding elements of an axis, before and after those that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Padding {
    axis: usize,
    before: usize,
    own: usize,
    after: usize,
}

impl Padding {
    fn extent(self) -> usize {
        self.before + self.own + self.after
    }
}

/// States `[1, A, W, d]` that keys or values of the chunk are appended to, and the slots that they get.
fn windows(module: &Module) -> HashMap<String, Padding> {
    let mut found = HashMap::new();
    for f in &module.functions {
        for v in f.order() {
            let (Op::State(state), &[1, _, own, _]) = (f.op(v), f.shape(v)) else { continue };
            let appended = |(u, at): &(ValueId, usize)| *at == 0 && matches!(f.op(*u), Op::Concat(Concat { axis: 2 }));
            if !own.is_multiple_of(LINE) && !f.users(v).is_empty() && f.users(v).iter().all(appended) {
                let before = own.next_multiple_of(LINE) - own;
                found.insert(state.state.clone(), Padding { axis: 2, before, own, after: 0 });
            }
        }
    }
    found
}

#[derive(Clone, Copy, Debug)]
struct Made {
    value: ValueId,
    padding: Option<Padding>,
}

struct Padder<'a> {
    old: &'a Function,
    g: Function,
    windows: &'a HashMap<String, Padding>,
    made: HashMap<ValueId, Made>,
}

impl Padder<'_> {
    fn run(&mut self) -> Result<(), OpError> {
        for v in self.old.order() {
            let made = self.make(v)?;
            if let (Some(name), false) = (&self.old.node(v).name, matches!(self.old.op(v), Op::Input(_))) {
                self.g.set_name(made.value, name);
            }
            let made = if self.starts(v, made) { self.padded(v, made)? } else { made };
            self.made.insert(v, made);
        }
        for (name, v) in &self.old.results {
            let value = self.plain(*v)?;
            if value != self.made[v].value && self.g.node(value).name.is_none() {
                // The name is the result's.
                if let Some(own) = self.g.node_mut(self.made[v].value).name.take() {
                    self.g.set_name(value, &own);
                }
            }
            self.g.results.push((name.clone(), value));
        }
        for (state, v) in &self.old.updates {
            let value = match self.windows.get(state) {
                Some(padding) if self.made[v].padding == Some(*padding) => self.made[v].value,
                Some(padding) => {
                    let value = self.plain(*v)?;
                    self.pad(*v, value, *padding, 0.0)?
                }
                None => self.plain(*v)?,
            };
            self.g.updates.push((state.clone(), value));
        }
        Ok(())
    }

    /// Whether tokens `[1, N, D]` begin here, N no whole number of lines.
    fn starts(&self, v: ValueId, made: Made) -> bool {
        let f = self.old;
        let &[_, tokens, _] = f.shape(v) else { return false };
        let view = matches!(f.op(v), Op::Input(_) | Op::Reshape(_) | Op::Transpose(_));
        let used = |(u, at): &(ValueId, usize)| *at == 0 && matches!(f.op(*u), Op::Linear(_) | Op::LayerNorm(_));
        view && made.padding.is_none() && !tokens.is_multiple_of(LINE) && f.users(v).iter().any(used) && !f.is_const(v)
    }

    fn padded(&mut self, v: ValueId, made: Made) -> Result<Made, OpError> {
        let own = self.old.shape(v)[1];
        let padding = Padding { axis: 1, before: 0, own, after: own.next_multiple_of(LINE) - own };
        Ok(Made { value: self.pad(v, made.value, padding, 0.0)?, padding: Some(padding) })
    }

    fn make(&mut self, v: ValueId) -> Result<Made, OpError> {
        let node = self.old.node(v);
        let operands = self.old.operands(v);
        if let Op::Input(_) = node.op {
            let value = self.g.add_param(node.name.as_deref().unwrap_or_default(), node.ty.clone());
            return Ok(Made { value, padding: None });
        }
        if let Op::State(state) = &node.op {
            let padding = self.windows.get(&state.state).copied();
            let mut node = node.clone();
            if let Some(padding) = padding {
                node.ty.shape[padding.axis] = padding.extent();
            }
            return Ok(Made { value: self.g.push(node, &[]), padding });
        }
        let first = operands.iter().find_map(|o| self.made[o].padding);
        if let Some(padding) = first
            && let Some(made) = self.with_padding(v, &operands, padding)?
        {
            return Ok(made);
        }
        let operands = operands.iter().map(|&o| self.plain(o)).collect::<Result<Vec<_>, _>>()?;
        let node = s2dit_ir::Node { name: None, ..node.clone() };
        Ok(Made { value: self.g.push(node, &operands), padding: None })
    }

    /// The op on padded operands; `None` if it needs them as they were.
    fn with_padding(&mut self, v: ValueId, operands: &[ValueId], padding: Padding) -> Result<Option<Made>, OpError> {
        let f = self.old;
        let lead = self.made[&operands[0]].padding;
        let rank = f.ty(v).rank();
        match f.op(v).clone() {
            Op::Linear(_)
                if lead.is_some_and(|p| p.axis + 1 < rank) && operands[1..].iter().all(|o| f.is_const(*o)) =>
            {
                self.same(v, operands, lead)
            }
            Op::LayerNorm(n) if lead.is_some_and(|p| !n.axes.contains(&p.axis)) => self.same(v, operands, lead),
            Op::RmsNorm(n) if lead.is_some_and(|p| p.axis != n.axis) => self.same(v, operands, lead),
            Op::Unary(_) | Op::Cast(_) => self.same(v, operands, lead),
            Op::FeatureMap(_) if lead.is_some_and(|p| p.axis + 2 == rank) => self.same(v, operands, lead),
            Op::Binary(_) | Op::Modulate(_) => self.elementwise(v, operands, padding),
            Op::Reduce(r) if !r.axes.contains(&padding.axis) => {
                let gone = if r.keep_dims { 0 } else { r.axes.iter().filter(|&&axis| axis < padding.axis).count() };
                self.same(v, operands, Some(Padding { axis: padding.axis - gone, ..padding }))
            }
            Op::Reshape(r) => self.reshape(v, operands[0], padding, &r),
            Op::Transpose(t) => {
                let axis = t.perm.iter().position(|&p| p == padding.axis).unwrap_or_default();
                let value = self.add(v, Transpose { perm: t.perm }.into(), &[self.made[&operands[0]].value])?;
                Ok(Some(Made { value, padding: Some(Padding { axis, ..padding }) }))
            }
            Op::Rope(r) if lead.is_some_and(|p| p.axis + 2 == rank) && r.axis + 1 == rank => {
                let mut values = vec![self.made[&operands[0]].value];
                for &table in &operands[1..] {
                    if f.ty(table).rank() != 2 || padding.before > 0 {
                        return Ok(None);
                    }
                    let value = self.made[&table].value;
                    values.push(self.pad(table, value, Padding { axis: 0, ..padding }, 0.0)?);
                }
                let value = self.add(v, r.into(), &values)?;
                Ok(Some(Made { value, padding: lead }))
            }
            Op::Concat(c) if c.axis == padding.axis => self.append(v, operands, c.axis),
            Op::Slice(s) => self.slice(v, operands[0], padding, &s),
            Op::Sdpa(_) => self.sdpa(v, operands),
            Op::LinearAttention(_) => self.linear_attention(v, operands),
            Op::LinearAttentionStep(_) if lead.is_some() => {
                let queries: Vec<_> = [operands[0]].into_iter().chain(operands.get(4).copied()).collect();
                if queries.iter().any(|q| self.made[q].padding != lead) {
                    return Ok(None);
                }
                self.same(v, operands, lead)
            }
            Op::RunningMean(_) if lead.is_some() => {
                let tokens = operands.len() - 3;
                if operands[..tokens].iter().any(|o| self.made[o].padding != lead) {
                    return Ok(None);
                }
                let mut values: Vec<ValueId> = operands.iter().map(|o| self.made[o].value).collect();
                // The mean is over all slots: what is there counts for what is not.
                let share = lead.map_or(1.0, |p| p.extent() as f64 / p.own as f64);
                values[0] = self.masked(operands[0], share)?;
                let op = f.op(v).clone();
                let value = self.add(v, op, &values)?;
                Ok(Some(Made { value, padding: None }))
            }
            _ => Ok(None),
        }
    }

    fn add(&mut self, v: ValueId, op: Op, operands: &[ValueId]) -> Result<ValueId, OpError> {
        let scope = self.old.node(v).scope.clone();
        self.g.add(op, operands, &scope)
    }

    /// The op as it was, whose result is padded as its first operand.
    fn same(&mut self, v: ValueId, operands: &[ValueId], padding: Option<Padding>) -> Result<Option<Made>, OpError> {
        let values: Vec<ValueId> = operands.iter().map(|o| self.made[o].value).collect();
        let op = self.old.op(v).clone();
        let value = self.add(v, op, &values)?;
        Ok(Some(Made { value, padding }))
    }

    fn elementwise(&mut self, v: ValueId, operands: &[ValueId], first: Padding) -> Result<Option<Made>, OpError> {
        let f = self.old;
        let rank = f.ty(v).rank();
        let owner = operands.iter().find(|o| self.made[o].padding.is_some());
        let lead = |o: &ValueId| rank - f.ty(*o).rank();
        let padding = Padding { axis: first.axis + owner.map_or(0, lead), ..first };
        let mut values = Vec::with_capacity(operands.len());
        for (i, &o) in operands.iter().enumerate() {
            // What divides is not zero.
            let filler = if i == 1 && matches!(f.op(v), Op::Binary(Binary::Div)) { 1.0 } else { 0.0 };
            let Made { value, padding: own } = self.made[&o];
            let own = own.map(|p| Padding { axis: p.axis + lead(&o), ..p });
            values.push(match own {
                Some(own) if own == padding => value,
                Some(_) => return Ok(None),
                // One for all tokens, or one for each.
                None => match padding.axis.checked_sub(lead(&o)).map(|axis| (axis, f.shape(o)[axis])) {
                    None | Some((_, 1)) => value,
                    Some((axis, extent)) if extent == padding.own => {
                        self.pad(o, value, Padding { axis, ..padding }, filler)?
                    }
                    // One token for many, which the op repeats.
                    Some(_) => return Ok(None),
                },
            });
        }
        let op = f.op(v).clone();
        let value = self.add(v, op, &values)?;
        Ok(Some(Made { value, padding: Some(padding) }))
    }

    /// A reshape that leaves the tokens an axis of their own.
    fn reshape(&mut self, v: ValueId, x: ValueId, padding: Padding, r: &Reshape) -> Result<Option<Made>, OpError> {
        let dims = self.old.shape(x);
        let before: usize = dims[..padding.axis].iter().product();
        let mut passed = 1;
        let axis = r.shape.iter().position(|&extent| {
            let here = passed == before && extent == padding.own;
            passed *= extent;
            here
        });
        let Some(axis) = axis else { return Ok(None) };
        let mut shape = r.shape.clone();
        shape[axis] = padding.extent();
        let value = self.add(v, Reshape { shape }.into(), &[self.made[&x].value])?;
        Ok(Some(Made { value, padding: Some(Padding { axis, ..padding }) }))
    }

    /// Padding before all, and after all.
    fn append(&mut self, v: ValueId, operands: &[ValueId], axis: usize) -> Result<Option<Made>, OpError> {
        let last = operands.len() - 1;
        let mut whole = Padding { axis, before: 0, own: self.old.shape(v)[axis], after: 0 };
        let mut values = Vec::with_capacity(operands.len());
        for (i, &o) in operands.iter().enumerate() {
            let Made { value, padding } = self.made[&o];
            if let Some(p) = padding {
                if p.axis != axis || (p.before > 0 && i > 0) || (p.after > 0 && i < last) {
                    return Ok(None);
                }
                whole.before += p.before;
                whole.after += p.after;
            }
            values.push(value);
        }
        let value = self.add(v, Concat { axis }.into(), &values)?;
        Ok(Some(Made { value, padding: Some(whole) }))
    }

    /// A slice of tokens keeps what lies before them, as long as that is padding or tokens that no result depends on.
    fn slice(&mut self, v: ValueId, x: ValueId, padding: Padding, s: &Slice) -> Result<Option<Made>, OpError> {
        let (from, to, axis) = (s.begin[padding.axis], s.end[padding.axis], padding.axis);
        let mut slice = s.clone();
        let kept = if (from, to, s.stride[axis]) == (0, padding.own, 1) {
            slice.end[axis] = padding.extent();
            padding
        } else if s.stride[axis] == 1 && padding.before > 0 {
            slice.end[axis] = padding.before + to;
            Padding { own: to - from, after: 0, ..padding }
        } else {
            return Ok(None);
        };
        let value = self.add(v, slice.into(), &[self.made[&x].value])?;
        Ok(Some(Made { value, padding: Some(kept) }))
    }

    fn pad(&mut self, v: ValueId, x: ValueId, padding: Padding, value: f64) -> Result<ValueId, OpError> {
        let rank = self.g.ty(x).rank();
        let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
        (before[padding.axis], after[padding.axis]) = (padding.before, padding.after);
        self.add(v, Pad { before, after, value }.into(), &[x])
    }

    /// A value without padding.
    fn plain(&mut self, v: ValueId) -> Result<ValueId, OpError> {
        let Made { value, padding } = self.made[&v];
        let Some(p) = padding else { return Ok(value) };
        let slice = Slice::axis(self.g.shape(value), p.axis, p.before, p.before + p.own);
        self.add(v, slice.into(), &[value])
    }
}
