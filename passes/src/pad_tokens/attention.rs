//! Masks that keep attention away from padding.

use s2dit_ir::ops::OpError;
use s2dit_ir::{Builder, DType, TensorType, ValueId};

use super::{Made, Padder, Padding};
use crate::split::EMPTY;

impl Padder<'_> {
    pub(super) fn sdpa(&mut self, v: ValueId, operands: &[ValueId]) -> Result<Option<Made>, OpError> {
        let f = self.old;
        let [query, key, value] = [0, 1, 2].map(|i| self.made[&operands[i]]);
        let rank = f.ty(v).rank();
        let tokens = |p: Option<Padding>| p.is_none_or(|p| p.axis + 2 == rank);
        let mask_fits = operands.get(3).is_none_or(|m| {
            let shape = f.shape(*m);
            shape.len() == rank && shape[rank - 2] == 1 && self.made[m].padding.is_none()
        });
        if key.padding != value.padding || ![query, key].iter().all(|m| tokens(m.padding)) || !mask_fits || rank != 4 {
            return Ok(None);
        }
        let mut values = vec![query.value, key.value, value.value];
        match (key.padding, operands.get(3)) {
            (None, None) => {}
            (None, Some(mask)) => values.push(self.made[mask].value),
            (Some(p), None) => {
                let hidden = |i: usize| if (p.before..p.before + p.own).contains(&i) { 0.0 } else { EMPTY };
                let scope = f.node(v).scope.clone();
                let ty = TensorType::new(DType::F32, [1, 1, 1, p.extent()]);
                let mask = (0..p.extent()).map(hidden).collect();
                let mut b = Builder::new(&mut self.g);
                b.enter(&scope);
                values.push(b.literal(&ty, mask)?);
            }
            (Some(p), Some(&mask)) => {
                let value = self.made[&mask].value;
                values.push(self.pad(mask, value, Padding { axis: 3, ..p }, EMPTY)?);
            }
        }
        let op = f.op(v).clone();
        let value = self.add(v, op, &values)?;
        Ok(Some(Made { value, padding: query.padding }))
    }

    pub(super) fn linear_attention(&mut self, v: ValueId, operands: &[ValueId]) -> Result<Option<Made>, OpError> {
        let [query, key] = [0, 1].map(|i| self.made[&operands[i]].padding);
        let alike = |i: usize| match i {
            0 | 3 => query,
            _ => key,
        };
        let fits = operands.iter().enumerate().all(|(i, o)| self.made[o].padding == alike(i));
        let rank = self.old.ty(v).rank();
        let tokens = |p: Option<Padding>| p.is_none_or(|p| p.axis + 2 == rank);
        if !fits || !tokens(query) || !tokens(key) {
            return Ok(None);
        }
        let mut values = Vec::with_capacity(operands.len());
        for (i, &o) in operands.iter().enumerate() {
            values.push(if [1, 4].contains(&i) && key.is_some() { self.masked(o, 1.0)? } else { self.made[&o].value });
        }
        let op = self.old.op(v).clone();
        let value = self.add(v, op, &values)?;
        Ok(Some(Made { value, padding: query }))
    }

    /// Keys `[…, N, d]` times `factor`, those of the padding times zero.
    pub(super) fn masked(&mut self, keys: ValueId, factor: f64) -> Result<ValueId, OpError> {
        let Made { value, padding: Some(p) } = self.made[&keys] else { return Ok(self.made[&keys].value) };
        let own = p.before..p.before + p.own;
        let mask = (0..p.extent()).map(|i| if own.contains(&i) { factor } else { 0.0 }).collect();
        let mut shape = vec![1; self.g.ty(value).rank()];
        shape[p.axis] = p.extent();
        let ty = TensorType::new(DType::F32, shape);
        let scope = self.old.node(keys).scope.clone();
        let mut b = Builder::new(&mut self.g);
        b.enter(&scope);
        let mask = b.literal(&ty, mask)?;
        b.mul(value, mask)
    }
}
