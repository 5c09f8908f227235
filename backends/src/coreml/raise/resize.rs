//! Resizing of spatial axes, by nearest elements and by lines between two.
//!
//! Where a result's element lies on the grid of x is a number that only depends on the two extents, so a resize is one gather an axis, or two
//! and a weighted sum.

use anyhow::{Context, Result, bail};
use s2dit_ir::ops::Upsample;
use s2dit_ir::{DType, TensorType, ValueId};

use super::select::take;
use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "upsample_nearest_neighbor" => upsample_nearest,
        "resize_nearest_neighbor" => resize_nearest,
        "upsample_bilinear" => upsample_bilinear,
        "resize_bilinear" => resize_bilinear,
        "resize" => resize,
        _ => return None,
    })
}

/// How `count` points lie between two ends, on a grid with `extent` elements.
#[derive(Clone, Copy)]
pub(super) enum Sampling {
    /// i·extent/count
    Default,
    /// From the first element to the last.
    StrictAlignCorners,
    /// As [`Sampling::StrictAlignCorners`], but one point is in the middle.
    AlignCorners,
    /// In the middle of equal parts of the distance between the first and the last element.
    OffsetCorners,
    /// In the middle of equal parts, elements being parts too: half-pixel centres.
    UnalignCorners,
}

impl Sampling {
    pub fn named(name: &str) -> Result<Sampling> {
        Ok(match name {
            "DEFAULT" => Sampling::Default,
            "STRICT_ALIGN_CORNERS" => Sampling::StrictAlignCorners,
            "ALIGN_CORNERS" => Sampling::AlignCorners,
            "OFFSET_CORNERS" => Sampling::OffsetCorners,
            "UNALIGN_CORNERS" => Sampling::UnalignCorners,
            other => bail!("unknown sampling_mode `{other}`"),
        })
    }

    /// Point `i` of `count`, on a grid of `extent` elements at 0, 1, …. `extent` may be a fraction.
    pub fn point(self, i: usize, extent: f64, count: usize) -> f64 {
        let (i, n) = (i as f64, count as f64);
        let steps = (n - 1.0).max(1.0);
        match self {
            Sampling::Default => i * extent / n,
            Sampling::AlignCorners if count == 1 => (extent - 1.0) / 2.0,
            Sampling::StrictAlignCorners | Sampling::AlignCorners => i * (extent - 1.0) / steps,
            Sampling::OffsetCorners => {
                let delta = (extent - 1.0).max(1.0) / n;
                0.5 * delta + i * delta
            }
            Sampling::UnalignCorners => (i + 0.5) * extent / n - 0.5,
        }
    }
}

/// Elements at these points of an axis, points between two elements on the line between them.
fn linear(r: &mut Raise, x: ValueId, axis: usize, points: &[f64]) -> Result<ValueId> {
    let last = r.b.shape(x)[axis].checked_sub(1).context("an empty axis")?;
    let points: Vec<f64> = points.iter().map(|p| p.clamp(0.0, last as f64)).collect();
    let low = |i: usize| points[i].floor() as usize;
    let lower = take(r, x, axis, points.len(), low)?;
    if points.iter().all(|p| p.fract() == 0.0) {
        return Ok(lower);
    }
    let upper = take(r, x, axis, points.len(), |i| (low(i) + 1).min(last))?;
    let shape: Vec<usize> = (0..r.rank(x)).map(|i| if i == axis { points.len() } else { 1 }).collect();
    let ty = TensorType::new(r.b.f.dtype(x), shape);
    let weights = r.b.literal(&ty, points.iter().map(|p| p.fract()).collect())?;
    let difference = r.b.sub(upper, lower)?;
    let part = r.b.mul(difference, weights)?;
    Ok(r.b.add(lower, part)?)
}

/// The two spatial axes, which are the last ones.
fn spatial(r: &Raise, x: ValueId) -> Result<[usize; 2]> {
    let rank = r.rank(x);
    if rank < 3 {
        bail!("{}: expected rank 3 or more", r.b.f.ty(x));
    }
    Ok([rank - 2, rank - 1])
}

/// The extents that two scale factors give.
fn scaled(r: &Raise, op: &Operation, x: ValueId) -> Result<[usize; 2]> {
    let axes = spatial(r, x)?;
    let mut extents = [0; 2];
    for (i, input) in ["scale_factor_height", "scale_factor_width"].into_iter().enumerate() {
        let factor = r.float(op, input, 1.0)?;
        let extent = (r.b.shape(x)[axes[i]] as f64 * factor).floor();
        if !(1.0..=f64::from(1 << 24)).contains(&extent) {
            bail!("input `{input}`: found {factor}");
        }
        extents[i] = extent as usize;
    }
    Ok(extents)
}

fn targets(r: &Raise, op: &Operation) -> Result<[usize; 2]> {
    let one = |input: &str| usize::try_from(r.int(op, input, Some(1))?).with_context(|| format!("input `{input}`"));
    Ok([one("target_size_height")?, one("target_size_width")?])
}

/// Element ⌊i·extent/count⌋ for each i.
fn nearest(r: &mut Raise, x: ValueId, extents: [usize; 2]) -> Result<Vec<ValueId>> {
    let mut y = x;
    for (axis, count) in spatial(r, x)?.into_iter().zip(extents) {
        let extent = r.b.shape(x)[axis];
        y = take(r, y, axis, count, |i| i * extent / count)?;
    }
    Ok(vec![y])
}

fn upsample_nearest(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let extents = scaled(r, op, x)?;
    if let &[_, _, h, w] = r.b.shape(x) {
        let factor = extents[0] / h.max(1);
        if factor > 0 && extents == [factor * h, factor * w] {
            return Ok(vec![r.b.op(Upsample { factor }, &[x])?]);
        }
    }
    nearest(r, x, extents)
}

fn resize_nearest(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let extents = targets(r, op)?;
    nearest(r, x, extents)
}

fn bilinear(r: &mut Raise, x: ValueId, extents: [usize; 2], sampling: Sampling) -> Result<Vec<ValueId>> {
    let mut y = x;
    for (axis, count) in spatial(r, x)?.into_iter().zip(extents) {
        let extent = r.b.shape(x)[axis] as f64;
        let points: Vec<f64> = (0..count).map(|i| sampling.point(i, extent, count)).collect();
        y = linear(r, y, axis, &points)?;
    }
    Ok(vec![y])
}

/// As PyTorch: corners on corners, or half-pixel centres, or (with neither) points at i·extent/count.
fn upsample_bilinear(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let extents = scaled(r, op, x)?;
    let corners = r.flag(op, "align_corners", true)?;
    let centres = r.flag(op, "half_pixel_centers", !corners)?;
    let sampling = match (corners, centres) {
        (true, false) => Sampling::StrictAlignCorners,
        (false, true) => Sampling::UnalignCorners,
        (false, false) => Sampling::Default,
        (true, true) => bail!("align_corners and half_pixel_centers together"),
    };
    bilinear(r, x, extents, sampling)
}

fn resize_bilinear(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let extents = targets(r, op)?;
    let sampling = Sampling::named(&r.text(op, "sampling_mode", "DEFAULT")?)?;
    bilinear(r, x, extents, sampling)
}

/// The last `resized_dims` axes get the last extents of `shape`; 0 keeps an extent.
fn resize(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let shape = r.sizes(op, "shape")?.context("input `shape` is missing")?;
    let resized = usize::try_from(r.int(op, "resized_dims", None)?)?;
    let rank = r.rank(x);
    if resized > shape.len() || resized > rank {
        bail!("{resized} resized axes with shape {shape:?} for {}", r.b.f.ty(x));
    }
    let sampling = Sampling::named(&r.text(op, "sampling_mode", "DEFAULT")?)?;
    let lines = match r.text(op, "interpolation_mode", "LINEAR")?.as_str() {
        "LINEAR" => true,
        "NEAREST_NEIGHBOR" => false,
        other => bail!("unknown interpolation_mode `{other}`"),
    };
    let dtype = r.b.f.dtype(x);
    let mut y = if lines && !dtype.is_float() { r.b.cast(x, DType::F64)? } else { x };
    for i in 0..resized {
        let axis = rank - resized + i;
        let extent = r.b.shape(x)[axis];
        let count = match shape[shape.len() - resized + i] {
            0 => extent,
            count => count,
        };
        let points: Vec<f64> = (0..count).map(|i| sampling.point(i, extent as f64, count)).collect();
        y = if lines {
            linear(r, y, axis, &points)?
        } else {
            let last = extent.checked_sub(1).context("an empty axis")?;
            take(r, y, axis, count, |i| ((points[i] + 0.5).floor().max(0.0) as usize).min(last))?
        };
    }
    Ok(vec![r.b.cast(y, dtype)?])
}
