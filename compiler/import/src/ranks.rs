//! Tensors of more than five axes, which Core ML does not have: each op on them is written on a view with fewer.
//!
//! An op treats runs of neighbouring axes alike: a slice takes the whole of some, a sum is over some, a broadcast repeats some. Each run
//! becomes one axis. Between such ops only reshapes are left, which cancel. A transpose whose axes do not merge enough becomes several
//! exchanges of neighbouring runs, each of rank 4:
//!
//! ```text
//! [F, h, w, ph, pw, C] → [C, F, h, ph, w, pw] = [F·h, w, ph, pw·C] → [F·h, ph, w, pw·C], then [F·h·ph·w·pw, C] → [C, …]
//! ```

use std::collections::{HashMap, VecDeque};

use s2dit_ir::ops::{BroadcastTo, Concat, Matmul, OpError, Pad, Reduce, Reshape, Slice, Softmax, Transpose};
use s2dit_ir::{Function, Op, ValueId};

/// The largest rank of every target.
const MOST: usize = 5;

/// Rewrites a function.
///
/// # Errors
/// None in practice: the rewrites keep types.
pub(crate) fn lower(f: &mut Function) -> Result<(), OpError> {
    for v in f.order() {
        let operands = f.operands(v);
        if f.shape(v).len().max(operands.iter().map(|&o| f.shape(o).len()).max().unwrap_or(0)) <= MOST {
            continue;
        }
        let scope = f.node(v).scope.clone();
        let flat = match f.op(v).clone() {
            Op::Transpose(transpose) => transposed(f, operands[0], &transpose.perm, &scope)?,
            op => narrow(f, v, &op, &operands, &scope)?,
        };
        if let Some(flat) = flat {
            let shape = f.shape(v).to_vec();
            let whole = f.add(Reshape { shape }.into(), &[flat], &scope)?;
            f.replace_uses(v, whole);
        }
    }
    f.remove_dead();
    Ok(())
}

/// Runs of neighbouring axes with the same mark.
fn runs<T: PartialEq>(marks: &[T]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for i in 0..marks.len() {
        match runs.last_mut() {
            Some(run) if marks[run.start] == marks[i] => run.end = i + 1,
            _ => runs.push(i..i + 1),
        }
    }
    runs
}

fn merged(shape: &[usize], runs: &[std::ops::Range<usize>]) -> Vec<usize> {
    runs.iter().map(|run| shape[run.clone()].iter().product()).collect()
}

fn reshaped(f: &mut Function, v: ValueId, shape: &[usize], scope: &str) -> Result<ValueId, OpError> {
    match f.shape(v) == shape {
        true => Ok(v),
        false => f.add(Reshape { shape: shape.to_vec() }.into(), &[v], scope),
    }
}

/// The op on operands whose runs of axes are merged; `None` for an op that stays as it is.
fn narrow(
    f: &mut Function,
    v: ValueId,
    op: &Op,
    operands: &[ValueId],
    scope: &str,
) -> Result<Option<ValueId>, OpError> {
    let shape = f.shape(v).to_vec();
    let of = |f: &Function, i: usize| f.shape(operands[i]).to_vec();
    let one = |f: &mut Function, runs: &[std::ops::Range<usize>], op: Op| {
        let x = f.shape(operands[0]).to_vec();
        let x = reshaped(f, operands[0], &merged(&x, runs), scope)?;
        f.add(op, &[x], scope).map(Some)
    };
    // A mark for each axis: its place for those that the op is about, none for the others.
    let about =
        |rank: usize, axes: &[usize]| runs(&(0..rank).map(|i| axes.contains(&i).then_some(i)).collect::<Vec<_>>());
    let place =
        |runs: &[std::ops::Range<usize>], axis: usize| runs.iter().position(|run| run.contains(&axis)).unwrap_or(0);
    match op {
        Op::Unary(_) | Op::Cast(_) => one(f, std::slice::from_ref(&(0..shape.len())), op.clone()),
        Op::Softmax(softmax) => {
            let runs = about(shape.len(), &[softmax.axis]);
            let axis = place(&runs, softmax.axis);
            one(f, &runs, Softmax { axis }.into())
        }
        Op::Slice(slice) => {
            let x = of(f, 0);
            let cut: Vec<usize> =
                (0..x.len()).filter(|&i| slice.begin[i] != 0 || slice.end[i] != x[i] || slice.stride[i] != 1).collect();
            let runs = about(x.len(), &cut);
            let whole = merged(&x, &runs);
            let pick = |list: &[usize], whole: &dyn Fn(usize) -> usize| -> Vec<usize> {
                runs.iter()
                    .enumerate()
                    .map(|(i, run)| if cut.contains(&run.start) { list[run.start] } else { whole(i) })
                    .collect()
            };
            let op = Slice {
                begin: pick(&slice.begin, &|_| 0),
                end: pick(&slice.end, &|i| whole[i]),
                stride: pick(&slice.stride, &|_| 1),
            };
            one(f, &runs, op.into())
        }
        Op::Pad(pad) => {
            let x = of(f, 0);
            let cut: Vec<usize> = (0..x.len()).filter(|&i| pad.before[i] + pad.after[i] > 0).collect();
            let runs = about(x.len(), &cut);
            let pick = |list: &[usize]| -> Vec<usize> {
                runs.iter().map(|run| if cut.contains(&run.start) { list[run.start] } else { 0 }).collect()
            };
            one(f, &runs, Pad { before: pick(&pad.before), after: pick(&pad.after), value: pad.value }.into())
        }
        Op::Reduce(reduce) => {
            let x = of(f, 0);
            let runs = runs(&(0..x.len()).map(|i| reduce.axes.contains(&i)).collect::<Vec<_>>());
            let axes = (0..runs.len()).filter(|&i| reduce.axes.contains(&runs[i].start)).collect();
            one(f, &runs, Reduce { kind: reduce.kind, axes, keep_dims: true }.into())
        }
        Op::Concat(concat) => {
            let runs = about(shape.len(), &[concat.axis]);
            let mut parts = Vec::new();
            for &part in operands {
                let part_shape = f.shape(part).to_vec();
                parts.push(reshaped(f, part, &merged(&part_shape, &runs), scope)?);
            }
            f.add(Concat { axis: place(&runs, concat.axis) }.into(), &parts, scope).map(Some)
        }
        Op::BroadcastTo(_) => {
            let x = aligned(&of(f, 0), shape.len());
            let runs = runs(&marks(&[&x, &shape]));
            let narrow = reshaped(f, operands[0], &merged(&x, &runs), scope)?;
            f.add(BroadcastTo { shape: merged(&shape, &runs) }.into(), &[narrow], scope).map(Some)
        }
        Op::Binary(_) => {
            let (x, y) = (aligned(&of(f, 0), shape.len()), aligned(&of(f, 1), shape.len()));
            let runs = runs(&marks(&[&x, &y, &shape]));
            let x = reshaped(f, operands[0], &merged(&x, &runs), scope)?;
            let y = reshaped(f, operands[1], &merged(&y, &runs), scope)?;
            f.add(op.clone(), &[x, y], scope).map(Some)
        }
        Op::Matmul(Matmul { .. }) => {
            let lead = shape.len() - 2;
            let (x, y) = (aligned(&of(f, 0), shape.len()), aligned(&of(f, 1), shape.len()));
            let batch = runs(&marks(&[&x[..lead], &y[..lead], &shape[..lead]]));
            let with = |of: &[usize]| [merged(of, &batch), of[lead..].to_vec()].concat();
            let (a, b) = (with(&x), with(&y));
            let x = reshaped(f, operands[0], &a, scope)?;
            let y = reshaped(f, operands[1], &b, scope)?;
            f.add(op.clone(), &[x, y], scope).map(Some)
        }
        _ => Ok(None),
    }
}

/// A shape with leading axes of extent 1 up to a rank.
fn aligned(shape: &[usize], rank: usize) -> Vec<usize> {
    [&vec![1; rank.saturating_sub(shape.len())][..], shape].concat()
}

/// For each axis which of the shapes repeat along it. An axis that no shape has goes with its neighbour.
fn marks(shapes: &[&[usize]]) -> Vec<Vec<bool>> {
    let rank = shapes.first().map_or(0, |shape| shape.len());
    let mut marks: Vec<Option<Vec<bool>>> = (0..rank)
        .map(|i| {
            let wide = shapes.iter().any(|shape| shape[i] != 1);
            wide.then(|| shapes.iter().map(|shape| shape[i] == 1).collect())
        })
        .collect();
    for i in 1..rank {
        if marks[i].is_none() {
            marks[i] = marks[i - 1].clone();
        }
    }
    for i in (0..rank.saturating_sub(1)).rev() {
        if marks[i].is_none() {
            marks[i] = marks[i + 1].clone();
        }
    }
    marks.into_iter().map(|mark| mark.unwrap_or_else(|| vec![false; shapes.len()])).collect()
}

/// A transpose as one or more of rank 4 or 5; the result has the elements in order, and another shape.
fn transposed(f: &mut Function, x: ValueId, perm: &[usize], scope: &str) -> Result<Option<ValueId>, OpError> {
    let shape = f.shape(x).to_vec();
    // Axes of extent 1 are nowhere.
    let wide: Vec<usize> = perm.iter().copied().filter(|&p| shape[p] != 1).collect();
    // Runs that stay together, in order of the result.
    let mut blocks: Vec<Vec<usize>> = Vec::new();
    let next = |axis: usize| (axis + 1..shape.len()).find(|&i| shape[i] != 1);
    for &axis in &wide {
        match blocks.last_mut() {
            Some(block) if block.last().and_then(|&last| next(last)) == Some(axis) => block.push(axis),
            _ => blocks.push(vec![axis]),
        }
    }
    let extent = |block: &[usize]| block.iter().map(|&axis| shape[axis]).product::<usize>();
    // The numbers of blocks in order of the operand.
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    order.sort_by_key(|&i| blocks[i][0]);
    let sizes: Vec<usize> = blocks.iter().map(|block| extent(block)).collect();
    if blocks.len() <= MOST {
        let narrow = reshaped(f, x, &order.iter().map(|&i| sizes[i]).collect::<Vec<_>>(), scope)?;
        let perm: Vec<usize> = (0..blocks.len()).filter_map(|i| order.iter().position(|o| *o == i)).collect();
        return f.add(Transpose { perm }.into(), &[narrow], scope).map(Some);
    }
    let Some(exchanges) = exchanges(&order) else { return Ok(None) };
    let mut value = x;
    for (a, b, c) in exchanges {
        let size = |range: std::ops::Range<usize>| order[range].iter().map(|&i| sizes[i]).product::<usize>();
        let view = [size(0..a), size(a..b), size(b..c), size(c..order.len())];
        value = reshaped(f, value, &view, scope)?;
        value = f.add(Transpose { perm: vec![0, 2, 1, 3] }.into(), &[value], scope)?;
        order[a..c].rotate_left(b - a);
    }
    Ok(Some(value))
}

/// Two neighbouring runs of axes that change places: where the first begins, where the second begins, and where it ends.
type Exchange = (usize, usize, usize);

/// The fewest exchanges of neighbouring runs `a..b` and `b..c` that sort a list; `None` for lists that are too long.
fn exchanges(order: &[usize]) -> Option<Vec<Exchange>> {
    const LONGEST: usize = 8;
    if order.len() > LONGEST {
        return None;
    }
    let mut from: HashMap<Vec<usize>, (Vec<usize>, Exchange)> = HashMap::new();
    let mut ahead = VecDeque::from([order.to_vec()]);
    while let Some(at) = ahead.pop_front() {
        if at.is_sorted() {
            let (mut steps, mut at) = (Vec::new(), at);
            while at != order {
                let (before, step) = from.remove(&at)?;
                steps.push(step);
                at = before;
            }
            steps.reverse();
            return Some(steps);
        }
        let n = at.len();
        for a in 0..n {
            for b in a + 1..n {
                for c in b + 1..=n {
                    let mut next = at.clone();
                    next[a..c].rotate_left(b - a);
                    if next != order && !from.contains_key(&next) {
                        from.insert(next.clone(), (at.clone(), (a, b, c)));
                        ahead.push_back(next);
                    }
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use s2dit_ir::interp::{Bindings, run};
    use s2dit_ir::text::parse;
    use s2dit_ir::verify::verify;
    use s2dit_ir::weights::NoWeights;
    use s2dit_ir::{Module, Tensor, TensorType};

    fn result(module: &Module) -> Vec<f64> {
        let f = &module.functions[0];
        let ty: &TensorType = f.ty(f.params()[0]);
        let x = Tensor::from_values(ty, (0..ty.elements()).map(|i| (i as f64 * 0.7).sin()).collect()).unwrap();
        let bindings = Bindings { params: [("x".to_owned(), x)].into(), ..Bindings::default() };
        run(f, &NoWeights, &bindings).unwrap()[0].data.iter().copied().collect()
    }

    #[test]
    fn no_op_keeps_more_than_five_axes_and_numbers_stay() {
        let mut module = parse(
            r#"module { func @main(%x: f32[360]) {
                %0 = reshape(%x) {shape = [1, 3, 2, 5, 2, 2, 3]} : f32[1, 3, 2, 5, 2, 2, 3]
                %1 = transpose(%0) {perm = [0, 6, 1, 2, 4, 3, 5]} : f32[1, 3, 3, 2, 2, 5, 2]
                %2 = slice(%1) {begin = [0, 0, 1, 0, 0, 0, 0], end = [1, 3, 3, 2, 2, 5, 2], stride = [1, 1, 1, 1, 1, 2, 1]} : f32[1, 3, 2, 2, 2, 3, 2]
                %3 = reduce_sum(%2) {axes = [1, 3], keep_dims = false} : f32[1, 2, 2, 3, 2]
                %4 = reshape(%3) {shape = [1, 1, 2, 1, 2, 3, 2]} : f32[1, 1, 2, 1, 2, 3, 2]
                %5 = mul(%2, %4) : f32[1, 3, 2, 2, 2, 3, 2]
                %6 = concat(%5, %2) {axis = 2} : f32[1, 3, 4, 2, 2, 3, 2]
                %7 = pad(%6) {before = [0, 0, 0, 1, 0, 0, 0], after = [0, 0, 0, 0, 0, 2, 0], value = 2.0} : f32[1, 3, 4, 3, 2, 5, 2]
                %8 = softmax(%7) {axis = 5} : f32[1, 3, 4, 3, 2, 5, 2]
                %9 = transpose(%8) {perm = [0, 1, 2, 3, 4, 6, 5]} : f32[1, 3, 4, 3, 2, 2, 5]
                %10 = matmul(%8, %9) {transpose_x = true, transpose_y = true} : f32[1, 3, 4, 3, 2, 2, 2]
                %11 = exp(%10) : f32[1, 3, 4, 3, 2, 2, 2]
                %y = reshape(%11) {shape = [288]} : f32[288]
                return y = %y
            } }"#,
        )
        .unwrap();
        let before = result(&module);
        lower(&mut module.functions[0]).unwrap();
        verify(&module).unwrap();
        let f = &module.functions[0];
        for v in f.order() {
            let narrow = matches!(f.op(v), Op::Reshape(_)) || f.shape(v).len() <= MOST;
            assert!(narrow, "{} {:?}", f.op(v).name(), f.shape(v));
        }
        for (a, b) in before.iter().zip(result(&module)) {
            assert!((a - b).abs() < 1e-12, "{a} {b}");
        }
    }

    #[test]
    fn unpatchify_takes_two_exchanges() {
        assert_eq!(exchanges(&[1, 2, 4, 3, 5, 0]).map(|steps| steps.len()), Some(2));
    }
}
