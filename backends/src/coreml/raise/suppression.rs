//! `non_maximum_suppression`: of boxes that overlap, the one with the highest score.

use anyhow::{Context, Result, bail};
use s2dit_ir::{DType, Tensor, TensorType, ValueId};

use super::select::elements;
use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    (op == "non_maximum_suppression").then_some(suppress as Handler)
}

/// Centre and size of a box.
type Frame = [f64; 4];

/// Area of the intersection over that of the union.
fn overlap(a: &Frame, b: &Frame) -> f64 {
    let side = |i: usize| {
        let ends = |f: &Frame| (f[i] - f[i + 2] / 2.0, f[i] + f[i + 2] / 2.0);
        let ((low, high), (other_low, other_high)) = (ends(a), ends(b));
        (high.min(other_high) - low.max(other_low)).max(0.0)
    };
    let common = side(0) * side(1);
    let union = a[2] * a[3] + b[2] * b[3] - common;
    if union > 0.0 { common / union } else { 0.0 }
}

/// Boxes and scores of the kept boxes in falling order of their best score, their numbers, and how many there are. Places that are left
/// have score and box 0 and number −1.
///
/// Until iOS 16 boxes are `[n, B, 4]` and scores below a threshold do not count; since then they are `[n, 4, B]`, and there is no threshold and
/// no count.
fn suppress(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let (boxes, scores) = (r.operand(op, "boxes")?, r.operand(op, "scores")?);
    let last = op.outputs.len() == 3;
    let limit = r.float(op, "iou_threshold", 0.0)?;
    let least = if r.has(op, "score_threshold") { r.float(op, "score_threshold", 0.0)? } else { f64::NEG_INFINITY };
    let places = usize::try_from(r.int(op, "max_boxes", None)?)?;
    let per_class = r.flag(op, "per_class_suppression", false)?;
    let turned = |r: &Raise, v: ValueId| -> Result<Tensor> {
        let mut known = r.known(v)?;
        if known.data.ndim() != 3 {
            bail!("{}: expected rank 3", r.b.f.ty(v));
        }
        if last {
            known.data = known.data.permuted_axes(vec![0, 2, 1]).as_standard_layout().into_owned();
        }
        Ok(known)
    };
    let (frames, grades) = (turned(r, boxes)?.data, turned(r, scores)?.data);
    let (&[n, count, four], &[m, graded, classes]) = (frames.shape(), grades.shape()) else { bail!("rank 3") };
    if four != 4 || n != m || count != graded || classes == 0 {
        bail!("boxes {} and scores {}", r.b.f.ty(boxes), r.b.f.ty(scores));
    }
    elements(&[n, places, classes.max(4)])?;
    let (mut out_boxes, mut out_scores) = (vec![0.0; n * places * 4], vec![0.0; n * places * classes]);
    let (mut numbers, mut counts) = (vec![-1.0; n * places], vec![0.0; n]);
    for image in 0..n {
        let frame = |b: usize| -> Frame { [0, 1, 2, 3].map(|k| frames[[image, b, k]]) };
        let best = |b: usize| -> (usize, f64) {
            (0..classes)
                .map(|k| (k, grades[[image, b, k]]))
                .fold((0, f64::NEG_INFINITY), |a, c| if c.1 > a.1 { c } else { a })
        };
        let mut order: Vec<usize> = (0..count).filter(|&b| best(b).1 >= least).collect();
        order.sort_by(|&a, &b| best(b).1.total_cmp(&best(a).1));
        let mut kept: Vec<usize> = Vec::new();
        for b in order {
            let rival = |&k: &usize| (!per_class || best(k).0 == best(b).0) && overlap(&frame(k), &frame(b)) > limit;
            if kept.len() < places && !kept.iter().any(rival) {
                kept.push(b);
            }
        }
        // Apple's reference returns the best box if no score reaches the threshold.
        if kept.is_empty() && count > 0 && places > 0 {
            let better = |a: usize, b: usize| if best(b).1 > best(a).1 { b } else { a };
            kept.push((0..count).reduce(better).unwrap_or_default());
        }
        counts[image] = kept.len() as f64;
        for (place, b) in kept.into_iter().enumerate() {
            let at = image * places + place;
            numbers[at] = b as f64;
            out_boxes[4 * at..4 * at + 4].copy_from_slice(&frame(b));
            (0..classes).for_each(|k| out_scores[classes * at + k] = grades[[image, b, k]]);
        }
    }
    let dtype = r.b.f.dtype(boxes);
    let from = [boxes, scores];
    let mut results = Vec::new();
    for (dtype, shape, values) in [
        (dtype, vec![n, places, 4], out_boxes),
        (dtype, vec![n, places, classes], out_scores),
        (DType::I32, vec![n, places], numbers),
        (DType::I32, vec![n], counts),
    ] {
        let ty = TensorType::new(dtype, shape);
        let mut value = Tensor::from_values(&ty, values).context("as many numbers as elements")?;
        if last && value.data.ndim() == 3 {
            value.data = value.data.permuted_axes(vec![0, 2, 1]).as_standard_layout().into_owned();
        }
        results.push(r.computed_here(value, &from)?);
    }
    results.truncate(op.outputs.len());
    Ok(results)
}
