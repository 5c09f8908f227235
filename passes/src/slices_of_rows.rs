//! No slice begins within the last axis: rows are sliced instead.
//!
//! ```text
//! %y = slice(%x) {begin = [0, 0, 0, 96], end = [1, 8, 1, 160], …}     %r = reshape(%x)                                         : f32[1, 8, 5, 32]
//!      : f32[1, 8, 1, 64] of f32[1, 8, 1, 160]                     →  %s = slice(%r) {begin = [0, 0, 3, 0], end = [1, 8, 5, 32]}
//!                                                                     %y = reshape(%s)                                         : f32[1, 8, 1, 64]
//! ```
//! Engines of the classes of M1 and M2 (A13 to A15) cut within the last axis through a path of fixed point that clamps magnitudes above 4,094 (ANEForge, arXiv 2606.17090). Rows are as
//! long as begin, end and extent allow: the greatest common divisor of the three.

use s2dit_ir::ops::{OpError, Slice};
use s2dit_ir::{Builder, Function, Module, Op, ValueId};

use crate::Property;
use crate::pass::{PassKind, Run};

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "slices-of-rows",
    doc: "no slice of floats that begins within the last axis",
    needs: &[Property::TensorOps],
    run: Run::Plain(run),
    ..PassKind::PLAIN
};

/// Runs on every function; returns the number of slices that were of the last axis.
///
/// # Errors
/// None in practice: rows side by side are what was sliced.
pub fn run(module: &mut Module) -> Result<usize, OpError> {
    let mut changes = 0;
    for f in &mut module.functions {
        for v in f.order() {
            let Some(rows) = rows(f, v) else { continue };
            let y = rows.sliced(f, v)?;
            f.replace_uses(v, y);
            changes += 1;
        }
        f.remove_dead();
    }
    Ok(changes)
}

/// A slice of the last axis as one of rows.
struct Rows {
    slice: Slice,
    /// Elements of a row.
    length: usize,
}

fn rows(f: &Function, v: ValueId) -> Option<Rows> {
    let Op::Slice(slice) = f.op(v) else { return None };
    if f.is_const(v) || !f.dtype(v).is_float() {
        return None;
    }
    let x = f.shape(f.operands(v)[0]);
    let last = x.len().checked_sub(1)?;
    let (begin, end) = (slice.begin[last], slice.end[last]);
    let plain = slice.stride[last] == 1 && begin > 0;
    plain.then(|| Rows { slice: slice.clone(), length: divisor(divisor(begin, end), x[last]) })
}

/// The greatest common divisor (Euclid).
fn divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { divisor(b, a % b) }
}

impl Rows {
    fn sliced(&self, f: &mut Function, v: ValueId) -> Result<ValueId, OpError> {
        let (x, node, shape) = (f.operands(v)[0], f.node(v).clone(), f.shape(v).to_vec());
        let mut dims = f.shape(x).to_vec();
        let Slice { mut begin, mut end, mut stride } = self.slice.clone();
        let last = dims.len() - 1;
        // Axes before the last that are not cut are one, so that the rank stays below five.
        let whole = (0..last).all(|a| (begin[a], end[a], stride[a]) == (0, dims[a], 1));
        if whole {
            let before = dims[1..last.max(1)].iter().product();
            dims = if last == 0 { vec![dims[0]] } else { vec![dims[0], before, dims[last]] };
            let inner = (begin[last], end[last]);
            begin = if last == 0 { vec![inner.0] } else { vec![0, 0, inner.0] };
            end = if last == 0 { vec![inner.1] } else { vec![dims[0], before, inner.1] };
            stride = vec![1; dims.len()];
        }
        let last = dims.len() - 1;
        for bound in [&mut dims, &mut begin, &mut end] {
            bound[last] /= self.length;
        }
        dims.push(self.length);
        begin.push(0);
        end.push(self.length);
        stride.push(1);
        let mut b = Builder::new(f);
        b.enter(&node.scope);
        let of_rows = b.reshape(x, &dims)?;
        let some = b.op(Slice { begin, end, stride }, &[of_rows])?;
        b.reshape(some, &shape)
    }
}
