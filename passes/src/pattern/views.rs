//! `even`, `odd`, `interleave`: pairs of neighbours along the last axis, however they are sliced; `first`, `second`, `beside`: its two halves.

use s2dit_ir::ops::Slice;
use s2dit_ir::{Function, Op, ValueId};

/// A view that is no op of its own.
#[derive(Clone, Copy)]
pub(super) enum View {
    /// Every second element, from this one.
    Every2(usize),
    /// Elements of two tensors by turns.
    Interleave,
    /// One of two halves, the first (0) or the second (1).
    HalfOf(usize),
    /// Two tensors side by side.
    Beside,
}

impl View {
    pub(super) fn of(name: &str) -> Option<View> {
        match name {
            "even" => Some(View::Every2(0)),
            "odd" => Some(View::Every2(1)),
            "interleave" => Some(View::Interleave),
            "first" => Some(View::HalfOf(0)),
            "second" => Some(View::HalfOf(1)),
            "beside" => Some(View::Beside),
            _ => None,
        }
    }
}

/// How the axes of `from`, those of extent 1 left out, stand in `to`, which is `from` behind transposes and reshapes that only add or
/// drop axes of extent 1.
pub fn permutation(f: &Function, from: ValueId, to: ValueId) -> Option<Vec<usize>> {
    let wide = |v: ValueId| f.shape(v).iter().filter(|&&s| s != 1).count();
    if from == to {
        return Some((0..wide(from)).collect());
    }
    let inner = *f.operands(to).first()?;
    let below = permutation(f, from, inner)?;
    match f.op(to) {
        Op::Reshape(_) => {
            let extents = |v: ValueId| f.shape(v).iter().copied().filter(|&s| s != 1).collect::<Vec<_>>();
            (extents(inner) == extents(to)).then_some(below)
        }
        Op::Transpose(t) => {
            // The number of each axis among those that are wider than 1.
            let shape = f.shape(inner);
            let number = |axis: usize| shape[..axis].iter().filter(|&&s| s != 1).count();
            Some(t.perm.iter().filter(|&&p| shape[p] != 1).map(|&p| below[number(p)]).collect())
        }
        _ => None,
    }
}

/// Every second element of `of`, seen with `shape`.
pub(super) struct Half {
    pub of: ValueId,
    pub through: Vec<ValueId>,
    pub shape: Vec<usize>,
}

/// `reshape(slice(reshape(x, […, n, 2]), …, i:i+1), […, n])`, or without the outer reshape, as a column; or `x[…, i::2]`.
pub(super) fn every2(f: &Function, v: ValueId, first: usize) -> Option<Half> {
    let whole_but_last = |s: &Slice, shape: &[usize]| {
        (0..shape.len() - 1).all(|i| s.begin[i] == 0 && s.end[i] == shape[i] && s.stride[i] == 1)
    };
    // One of two columns of pairs, and the pairs' shape before they were taken apart.
    let column = |slice: ValueId| {
        let Op::Slice(s) = f.op(slice) else { return None };
        let pairs = f.operands(slice)[0];
        let [lead @ .., 2] = f.shape(pairs) else { return None };
        let last = lead.len();
        let one = s.begin[last] == first && s.end[last] == first + 1 && whole_but_last(s, f.shape(pairs));
        if !one || !matches!(f.op(pairs), Op::Reshape(_)) {
            return None;
        }
        let mut shape = lead.to_vec();
        *shape.last_mut()? *= 2;
        Some((pairs, shape))
    };
    match f.op(v) {
        Op::Slice(_) if f.shape(v).last() == Some(&1) && column(v).is_some() => {
            let (pairs, shape) = column(v)?;
            Some(Half { of: f.operands(pairs)[0], through: vec![pairs], shape })
        }
        Op::Slice(s) => {
            let x = f.operands(v)[0];
            let shape = f.shape(x);
            let last = shape.len().checked_sub(1)?;
            let halves = shape[last].is_multiple_of(2) && f.shape(v)[last] * 2 == shape[last];
            let found = halves && s.stride[last] == 2 && s.begin[last] == first && whole_but_last(s, shape);
            found.then(|| Half { of: x, through: Vec::new(), shape: shape.to_vec() })
        }
        Op::Reshape(r) => {
            let slice = f.operands(v)[0];
            let (pairs, shape) = column(slice)?;
            let [lead @ .., 2] = f.shape(pairs) else { return None };
            (r.shape == lead).then(|| Half { of: f.operands(pairs)[0], through: vec![slice, pairs], shape })
        }
        _ => None,
    }
}

/// `reshape(concat(reshape(a, […, n, 1]), reshape(b, […, n, 1])))`; a column that was no row before stays one.
pub(super) fn interleave(f: &Function, v: ValueId) -> Option<(ValueId, ValueId, Vec<ValueId>)> {
    let Op::Reshape(_) = f.op(v) else { return None };
    let concat = f.operands(v)[0];
    let Op::Concat(c) = f.op(concat) else { return None };
    let &[x, y] = &f.operands(concat)[..] else { return None };
    let mut through = vec![concat];
    let mut column = |v: ValueId| {
        let [lead @ .., 1] = f.shape(v) else { return None };
        if c.axis != lead.len() {
            return None;
        }
        match f.op(v) {
            Op::Reshape(_) if f.shape(f.operands(v)[0]) == lead => {
                through.push(v);
                Some(f.operands(v)[0])
            }
            _ => Some(v),
        }
    };
    let (x, y) = (column(x)?, column(y)?);
    Some((x, y, through))
}

/// The value whose first half along the last axis `v` is, or whose second.
pub(super) fn half_of(f: &Function, v: ValueId, half: usize) -> Option<ValueId> {
    let Op::Slice(s) = f.op(v) else { return None };
    let x = f.operands(v)[0];
    let (shape, width) = (f.shape(x), *f.shape(v).last()?);
    let last = shape.len() - 1;
    let whole = (0..last).all(|i| s.begin[i] == 0 && s.end[i] == shape[i]) && s.stride.iter().all(|&step| step == 1);
    (whole && 2 * width == shape[last] && s.begin[last] == half * width).then_some(x)
}

/// The two values that `v` is, side by side along the last axis.
pub(super) fn beside(f: &Function, v: ValueId) -> Option<[ValueId; 2]> {
    let Op::Concat(c) = f.op(v) else { return None };
    let &[x, y] = &f.operands(v)[..] else { return None };
    (c.axis + 1 == f.ty(v).rank()).then_some([x, y])
}
