//! Changes of size by fixed factors: nearest neighbours, linear and cubic interpolation.

use s2dit_ir::DType;

use super::Handler;
use super::gather::take;
use crate::Value;
use crate::onnx::node::{Made, Node, Stop, axis, broken, not_read, size};
use crate::onnx::walk::Walk;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "Resize" => resize,
        "Upsample" => resize,
        _ => return None,
    })
}

/// How an axis changes.
struct Change {
    axis: usize,
    from: usize,
    to: usize,
    scale: f64,
    /// Start and end of the region of interest, from 0 to 1.
    region: (f64, f64),
}

/// What is asked of all axes.
struct Mode {
    /// `nearest`, `linear`, `cubic`
    kind: &'static str,
    coordinates: &'static str,
    nearest: &'static str,
    cubic: f64,
    exclude_outside: bool,
    antialias: bool,
    /// The value of places outside of the region of interest.
    extrapolation: f64,
}

impl Mode {
    /// The place in the operand that a place of the result comes from.
    fn place(&self, change: &Change, i: usize) -> f64 {
        let (i, from, to, scale) = (i as f64, change.from as f64, change.to as f64, change.scale);
        match self.coordinates {
            "align_corners" if change.to == 1 => 0.0,
            "align_corners" => i * (from - 1.0) / (to - 1.0),
            "asymmetric" => i / scale,
            "pytorch_half_pixel" if change.to == 1 => 0.0,
            "half_pixel_symmetric" => {
                let adjustment = to / (scale * from);
                from / 2.0 * (1.0 - adjustment) + (i + 0.5) / scale - 0.5
            }
            "tf_crop_and_resize" => {
                let (start, end) = change.region;
                match change.to {
                    1 => 0.5 * (start + end) * (from - 1.0),
                    _ => start * (from - 1.0) + i * (end - start) * (from - 1.0) / (to - 1.0),
                }
            }
            _ => (i + 0.5) / scale - 0.5,
        }
    }

    /// The nearest element.
    fn nearest(&self, x: f64, from: usize) -> usize {
        let rounded = match self.nearest {
            "floor" => x.floor(),
            "ceil" => x.ceil(),
            "round_prefer_ceil" => (x + 0.5).floor(),
            _ => (x - 0.5).ceil(),
        };
        rounded.clamp(0.0, from as f64 - 1.0) as usize
    }

    /// The weights of the operand's elements in a place of the result.
    fn weights(&self, change: &Change, i: usize) -> Vec<f64> {
        let x = self.place(change, i);
        let stretch = if self.antialias { (1.0 / change.scale).max(1.0) } else { 1.0 };
        let (reach, kernel): (f64, &dyn Fn(f64) -> f64) = match self.kind {
            "linear" => (1.0, &|d: f64| (1.0 - d).max(0.0)),
            _ => (2.0, &|d: f64| {
                let a = self.cubic;
                match d {
                    d if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
                    d if d < 2.0 => a * (((d - 5.0) * d + 8.0) * d - 4.0),
                    _ => 0.0,
                }
            }),
        };
        let mut row = vec![0.0; change.from];
        let mut total = 0.0;
        let first = (x - reach * stretch).floor() as i64;
        for j in first..=(x + reach * stretch).ceil() as i64 {
            let inside = (0..change.from as i64).contains(&j);
            let weight = kernel((x - j as f64).abs() / stretch);
            if self.exclude_outside && !inside {
                continue;
            }
            total += weight;
            row[j.clamp(0, change.from as i64 - 1) as usize] += weight;
        }
        if total != 0.0 {
            row.iter_mut().for_each(|x| *x /= total);
        }
        row
    }
}

/// One of these words.
fn word<'n>(n: &Node<'n>, name: &str, words: &[&'static str]) -> Result<&'static str, Stop> {
    let found = n.text(name, words[0])?;
    match words.iter().find(|word| **word == found) {
        Some(word) => Ok(word),
        None => broken!("{name} `{found}`, expected one of {}", words.join(", ")),
    }
}

fn resize(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?.clone();
    let shape = w.t.shape(&x);
    let axes = match n.ints("axes")? {
        Some(axes) => axes.iter().map(|a| axis(*a, shape.len())).collect::<Result<Vec<_>, _>>()?,
        None => (0..shape.len()).collect(),
    };
    let old = n.op() == "Upsample" || n.version < 11;
    let coordinates = word(
        n,
        "coordinate_transformation_mode",
        &[
            "half_pixel",
            "align_corners",
            "asymmetric",
            "pytorch_half_pixel",
            "half_pixel_symmetric",
            "tf_crop_and_resize",
        ],
    )?;
    let mode = Mode {
        kind: word(n, "mode", &["nearest", "linear", "cubic"])?,
        coordinates: if old { "asymmetric" } else { coordinates },
        nearest: word(n, "nearest_mode", &["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])?,
        cubic: n.float("cubic_coeff_a", -0.75)?,
        exclude_outside: n.int("exclude_outside", 0)? != 0,
        antialias: n.int("antialias", 0)? != 0,
        extrapolation: n.float("extrapolation_value", 0.0)?,
    };
    let mode = if old { Mode { nearest: "floor", ..mode } } else { mode };
    let changes = changes(w, n, &shape, &axes, old, coordinates == "tf_crop_and_resize")?;
    // onnx's own code divides by the unrounded size there, engines by the size.
    let whole = |c: &Change| (c.scale * c.from as f64 - c.to as f64).abs() < 1e-6;
    if mode.coordinates == "align_corners" && !changes.iter().all(whole) {
        not_read!("align_corners with a scale that gives no whole size");
    }
    let mut y = x;
    for change in changes.iter().filter(|c| c.from != c.to || c.scale != 1.0 || c.region != (0.0, 1.0)) {
        w.t.spend(&s2dit_ir::TensorType::new(DType::F32, [change.to, change.from]))?;
        y = along(w, &y, change, &mode)?;
    }
    Ok(vec![y])
}

/// What the inputs say of each axis.
fn changes(
    w: &mut Walk,
    n: &Node,
    shape: &[usize],
    axes: &[usize],
    old: bool,
    crops: bool,
) -> Result<Vec<Change>, Stop> {
    let given = |w: &mut Walk, index: usize, what: &str| -> Result<Option<Vec<f64>>, Stop> {
        match n.optional(index) {
            Some(list) if w.t.ty(list).elements() > 0 => w.floats(&list.clone(), what).map(Some),
            _ => Ok(None),
        }
    };
    let scales = match n.floats("scales")? {
        Some(scales) => Some(scales),
        None => given(w, if old { 1 } else { 2 }, "the scales")?,
    };
    let sizes = if old { None } else { given(w, 3, "the sizes")? };
    let region = if crops { given(w, 1, "the region of interest")? } else { None };
    let policy = word(n, "keep_aspect_ratio_policy", &["stretch", "not_larger", "not_smaller"])?;
    let lengths = [&scales, &sizes].into_iter().flatten().all(|list| list.len() == axes.len());
    if !lengths || scales.is_some() == sizes.is_some() || region.as_ref().is_some_and(|r| r.len() != 2 * axes.len()) {
        broken!("scales or sizes, one for each of {} axes, are expected", axes.len());
    }
    // With a policy one scale serves all axes.
    let common = match (&sizes, policy) {
        (Some(sizes), "not_larger" | "not_smaller") => {
            let ratios = sizes.iter().zip(axes).map(|(size, a)| size / shape[*a] as f64);
            let best = if policy == "not_larger" { f64::min } else { f64::max };
            ratios.reduce(best)
        }
        _ => None,
    };
    let mut changes = Vec::new();
    for (i, &axis) in axes.iter().enumerate() {
        let from = shape[axis];
        let region = region.as_ref().map_or((0.0, 1.0), |r| (r[i], r[axes.len() + i]));
        let (scale, to) = match (&scales, &sizes, common) {
            (_, _, Some(scale)) => (scale, (scale * from as f64).round()),
            (Some(scales), ..) => {
                let width = if crops { region.1 - region.0 } else { 1.0 };
                (scales[i], (from as f64 * scales[i] * width).floor())
            }
            (None, Some(sizes), _) => (sizes[i] / from as f64, sizes[i]),
            (None, None, _) => broken!("scales are missing"),
        };
        let sane = scale > 0.0 && scale.is_finite() && (1.0..1e9).contains(&to) && from > 0;
        if !sane {
            broken!("axis {axis} of {from} scaled by {scale} to {to}");
        }
        changes.push(Change { axis, from, to: size(to as i64, "an extent of")?, scale, region });
    }
    Ok(changes)
}

/// Changes one axis.
fn along(w: &mut Walk, x: &Value, change: &Change, mode: &Mode) -> Result<Value, Stop> {
    let &Change { axis, from, to, .. } = change;
    let shape = w.t.shape(x);
    let outside = |i: usize| {
        let x = mode.place(change, i);
        mode.coordinates == "tf_crop_and_resize" && !(0.0..=from as f64 - 1.0).contains(&x)
    };
    if (0..to).any(outside) {
        not_read!("a region that reaches beyond the operand (extrapolation {})", mode.extrapolation);
    }
    if mode.kind == "nearest" {
        let places: Vec<usize> = (0..to).map(|i| mode.nearest(mode.place(change, i), from)).collect();
        let times = to / from;
        let repeats = to.is_multiple_of(from) && places.iter().enumerate().all(|(i, p)| *p == i / times);
        if !repeats {
            return take(w, x, axis, &places);
        }
        let around = |middle: &[usize]| [&shape[..axis], middle, &shape[axis + 1..]].concat();
        let y = w.t.reshape(x, &around(&[from, 1]))?;
        let y = w.t.broadcast(&y, &around(&[from, times]))?;
        return Ok(w.t.reshape(&y, &around(&[to]))?);
    }
    // A product with a matrix along the last axis, or from the left along the last but one.
    let rows: Vec<f64> = (0..to).flat_map(|i| mode.weights(change, i)).collect();
    let matrix = w.known(DType::F32, &[to, from], rows)?;
    let rest: usize = shape[axis + 1..].iter().product();
    let lead: usize = shape[..axis].iter().product();
    let result = [&shape[..axis], &[to], &shape[axis + 1..]].concat();
    let y = if rest == 1 {
        let flat = w.t.reshape(x, &[lead, from])?;
        w.linear(&flat, &matrix, None)?
    } else {
        let flat = w.t.reshape(x, &[lead, from, rest])?;
        w.matmul(&matrix, &flat)?
    };
    Ok(w.t.reshape(&y, &result)?)
}
