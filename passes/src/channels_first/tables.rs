//! Modulation: a table for each block is added to the same vectors.
//!
//! All tables are added at once, and one split gives every block its rows:
//!
//! ```text
//! %a = add(%table0, %t)                    %all = add([%table0 %table1 …], %t)    : f32[n, 6, D, 1]
//! %b = add(%table1, %t), …              →  %a   = %all[0..6], %b = %all[6..12], …
//! ```

use s2dit_ir::ops::{Binary, OpError};
use s2dit_ir::{Op, ValueId};

use super::form::natural;
use super::{Rewriter, Stored};

impl Rewriter<'_> {
    /// The sums of `v`'s vectors with every table, if there are several.
    pub(super) fn modulation(&mut self, v: ValueId, operands: &[ValueId]) -> Result<Option<Stored>, OpError> {
        let Some((_, vectors)) = self.table_and_vectors(v, operands) else { return Ok(None) };
        let mut sums = Vec::new();
        for (user, _) in self.old.users(vectors) {
            let operands = self.old.operands(user);
            if let Some((table, same)) = self.table_and_vectors(user, &operands)
                && same == vectors
                && self.dims(user) == self.dims(v)
                && !sums.iter().any(|(u, _)| *u == user)
            {
                sums.push((user, table));
            }
        }
        if sums.len() < 2 {
            return Ok(None);
        }
        let &[_, rows, width] = self.dims(v) else { return Ok(None) };
        let count = sums.len();
        let mut tables = Vec::with_capacity(count);
        for &(user, table) in &sums {
            let table = self.plain(table)?;
            let ones = self.ones(user)?;
            tables.push(self.at(user, |b| {
                let table = b.reshape(table, &[1, rows, width, 1])?;
                if let Some(ones) = ones { b.add(table, ones) } else { Ok(table) }
            })?);
        }
        let vectors = self.ordered(vectors, &natural(3), &[1, rows, width, 1])?;
        let scope = self.projections_scope(v);
        let all = self.at(scope, |b| {
            let tables = b.concat(&tables, 0)?;
            let all = b.add(tables, vectors)?;
            b.reshape(all, &[count * rows, width, 1, 1])
        })?;
        for (i, &(user, _)) in sums.iter().enumerate() {
            let value = self.at(scope, |b| b.slice(all, 0, i * rows, (i + 1) * rows))?;
            self.keep(user, Stored { value, order: natural(3) });
        }
        Ok(self.stored.get(&v).cloned())
    }

    /// The scope of the op that computed the vectors: the sums belong to no block.
    fn projections_scope(&self, v: ValueId) -> ValueId {
        let operands = self.old.operands(v);
        self.table_and_vectors(v, &operands).map_or(v, |(_, vectors)| vectors)
    }

    /// A constant table `[1, rows, D]` and vectors of that shape.
    fn table_and_vectors(&self, v: ValueId, operands: &[ValueId]) -> Option<(ValueId, ValueId)> {
        let Op::Binary(Binary::Add) = self.old.op(v) else { return None };
        let &[a, b] = operands else { return None };
        let (table, vectors) = if self.is_const(a) { (a, b) } else { (b, a) };
        let [1, rows, _] = *self.dims(v) else { return None };
        let fits = self.is_const(table) && self.is_stored(vectors) && rows > 1;
        (fits && self.dims(table) == self.dims(v) && self.dims(vectors) == self.dims(v)).then_some((table, vectors))
    }
}
