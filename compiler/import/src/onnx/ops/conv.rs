//! Convolutions and pooling.

use s2dit_ir::ops::{Binary, Conv, Pad, ReduceKind};
use s2dit_ir::{DType, Tensor, TensorType};

use super::Handler;
use super::gather::take;
use crate::Value;
use crate::onnx::node::{Made, Node, Stop, broken, not_read, size};
use crate::onnx::walk::Walk;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "AveragePool" => average_pool,
        "Conv" => conv,
        "ConvTranspose" => conv_transpose,
        "GlobalAveragePool" => |w, n| global(w, n, ReduceKind::Mean),
        "GlobalMaxPool" => |w, n| global(w, n, ReduceKind::Max),
        _ => return None,
    })
}

/// Geometry of a window that slides over spatial axes.
struct Window {
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    before: Vec<usize>,
    after: Vec<usize>,
}

fn sizes(n: &Node, name: &'static str, spatial: usize, default: usize) -> Result<Vec<usize>, Stop> {
    match n.ints(name)? {
        None => Ok(vec![default; spatial]),
        Some(list) if list.len() == spatial => list.iter().map(|v| size(*v, name)).collect(),
        Some(list) => broken!("{name} {list:?} of {spatial} axes"),
    }
}

/// Reads a window; with `auto_pad` the padding follows from the extents `from`.
fn window(n: &Node, kernel: Vec<usize>, from: &[usize]) -> Result<Window, Stop> {
    let spatial = kernel.len();
    let (strides, dilations) = (sizes(n, "strides", spatial, 1)?, sizes(n, "dilations", spatial, 1)?);
    let pads = match n.ints("pads")? {
        None => vec![0; 2 * spatial],
        Some(pads) if pads.len() == 2 * spatial => {
            pads.iter().map(|p| size(*p, "a pad of")).collect::<Result<_, _>>()?
        }
        Some(pads) => broken!("pads {pads:?} of {spatial} axes"),
    };
    let (mut before, mut after) = (pads[..spatial].to_vec(), pads[spatial..].to_vec());
    let huge = |list: &[usize]| list.iter().any(|v| *v > 1 << 31);
    if [&kernel, &strides, &dilations, &before, &after].iter().any(|list| huge(list)) || strides.contains(&0) {
        broken!("kernel {kernel:?}, strides {strides:?}, dilations {dilations:?}, pads {pads:?}");
    }
    match n.text("auto_pad", "NOTSET")? {
        "NOTSET" | "" => {}
        "VALID" => (before, after) = (vec![0; spatial], vec![0; spatial]),
        mode @ ("SAME_UPPER" | "SAME_LOWER") => {
            for i in 0..spatial {
                let reach = (kernel[i].max(1) - 1) * dilations[i] + 1;
                let wanted = (from[i].div_ceil(strides[i]) - 1) * strides[i] + reach;
                let total = wanted.saturating_sub(from[i]);
                (before[i], after[i]) = (total / 2, total - total / 2);
                if mode == "SAME_LOWER" {
                    (before[i], after[i]) = (after[i], before[i]);
                }
            }
        }
        other => broken!("auto_pad `{other}`"),
    }
    Ok(Window { kernel, strides, dilations, before, after })
}

fn conv(w: &mut Walk, n: &Node) -> Made {
    let (x, weight, bias) = (n.input(0)?.clone(), n.input(1)?.clone(), n.optional(2).cloned());
    let (shape, of) = (w.t.shape(&x), w.t.shape(&weight));
    if shape.len() < 3 || of.len() != shape.len() || shape[2..].contains(&0) {
        broken!("an operand {shape:?} and a weight {of:?}");
    }
    let Window { strides, dilations, before, after, .. } = window(n, of[2..].to_vec(), &shape[2..])?;
    let groups = size(n.int("group", 1)?, "groups:")?;
    let conv = Conv { strides, pad_before: before, pad_after: after, dilations, groups };
    let operands: Vec<&Value> = [&x, &weight].into_iter().chain(&bias).collect();
    Ok(vec![w.t.op(conv, &operands)?])
}

/// As a convolution of the kernel turned round over x with zeros between its elements.
fn conv_transpose(w: &mut Walk, n: &Node) -> Made {
    let (x, weight, bias) = (n.input(0)?.clone(), n.input(1)?.clone(), n.optional(2).cloned());
    let (shape, of) = (w.t.shape(&x), w.t.shape(&weight));
    let groups = size(n.int("group", 1)?, "groups:")?;
    if shape.len() < 3 || of.len() != shape.len() || groups == 0 || of[0] % groups != 0 || shape[1] != of[0] {
        broken!("an operand {shape:?} and a weight {of:?} in {groups} groups");
    }
    let spatial = shape.len() - 2;
    let auto = n.text("auto_pad", "NOTSET")?;
    let mut win = window_without_auto(n, of[2..].to_vec())?;
    let mut extra = sizes(n, "output_padding", spatial, 0)?;
    let reach: Vec<usize> = (0..spatial).map(|i| (win.kernel[i].max(1) - 1) * win.dilations[i] + 1).collect();
    let full = |i: usize, extra: usize| (shape[2 + i] - 1) * win.strides[i] + reach[i] + extra;
    let wanted = match n.ints("output_shape")? {
        // Some writers give the batch and the channels as well.
        Some(list) if list.len() >= spatial => {
            let list = &list[list.len() - spatial..];
            Some(list.iter().map(|v| size(*v, "an extent of")).collect::<Result<Vec<_>, _>>()?)
        }
        Some(list) => broken!("output_shape {list:?} of {spatial} axes"),
        None if auto.starts_with("SAME") => Some((0..spatial).map(|i| shape[2 + i] * win.strides[i]).collect()),
        None => None,
    };
    if let Some(wanted) = wanted {
        for i in 0..spatial {
            if wanted[i] > full(i, extra[i]) {
                extra[i] += wanted[i] - full(i, extra[i]);
            }
            let total = full(i, extra[i]) - wanted[i];
            (win.before[i], win.after[i]) = (total / 2, total - total / 2);
            if auto != "SAME_UPPER" {
                (win.before[i], win.after[i]) = (win.after[i], win.before[i]);
            }
        }
    }
    // [Cin, Cout/g, k…] → [Cout, Cin/g, k…], the kernel turned round.
    let (inner, outer) = (of[0] / groups, of[1]);
    let taps = &of[2..];
    let mut perm = vec![0, 2, 1];
    perm.extend(3..3 + spatial);
    let split = w.t.reshape(&weight, &[&[groups, inner, outer], taps].concat())?;
    let split = w.t.transpose(&split, &perm)?;
    let mut kernel = w.t.reshape(&split, &[&[groups * outer, inner], taps].concat())?;
    for (i, taps) in taps.iter().enumerate() {
        kernel = take(w, &kernel, 2 + i, &(0..*taps).rev().collect::<Vec<_>>())?;
    }
    let mut spread = x;
    for i in 0..spatial {
        spread = zeros_between(w, &spread, 2 + i, win.strides[i])?;
    }
    // Padding that cuts more than the kernel reaches cuts the operand.
    let rank = shape.len();
    let (mut pad_before, mut pad_after) = (Vec::new(), Vec::new());
    for i in 0..spatial {
        let border = reach[i] - 1;
        let extent = w.t.shape(&spread)[2 + i];
        let (low, high) = (win.before[i].saturating_sub(border), win.after[i].saturating_sub(border + extra[i]));
        if low + high >= extent {
            broken!("pads of {:?} and {:?} leave nothing", win.before, win.after);
        }
        spread = w.part(&spread, 2 + i, low, extent - high)?;
        pad_before.push(border.saturating_sub(win.before[i]));
        pad_after.push((border + extra[i]).saturating_sub(win.after[i]));
    }
    debug_assert_eq!(w.t.shape(&spread).len(), rank);
    let conv = Conv { strides: vec![1; spatial], pad_before, pad_after, dilations: win.dilations, groups };
    let operands: Vec<&Value> = [&spread, &kernel].into_iter().chain(&bias).collect();
    Ok(vec![w.t.op(conv, &operands)?])
}

fn window_without_auto(n: &Node, kernel: Vec<usize>) -> Result<Window, Stop> {
    let spatial = kernel.len();
    let (strides, dilations) = (sizes(n, "strides", spatial, 1)?, sizes(n, "dilations", spatial, 1)?);
    let pads = sizes_of_pads(n, spatial)?;
    if strides.contains(&0) || [&kernel, &strides, &dilations, &pads].iter().any(|l| l.iter().any(|v| *v > 1 << 31)) {
        broken!("kernel {kernel:?}, strides {strides:?}, dilations {dilations:?}, pads {pads:?}");
    }
    let (before, after) = (pads[..spatial].to_vec(), pads[spatial..].to_vec());
    Ok(Window { kernel, strides, dilations, before, after })
}

fn sizes_of_pads(n: &Node, spatial: usize) -> Result<Vec<usize>, Stop> {
    match n.ints("pads")? {
        None => Ok(vec![0; 2 * spatial]),
        Some(pads) if pads.len() == 2 * spatial => pads.iter().map(|p| size(*p, "a pad of")).collect(),
        Some(pads) => broken!("pads {pads:?} of {spatial} axes"),
    }
}

/// `stride − 1` zeros between neighbours of an axis.
fn zeros_between(w: &mut Walk, x: &Value, axis: usize, stride: usize) -> Result<Value, Stop> {
    if stride == 1 {
        return Ok(x.clone());
    }
    let shape = w.t.shape(x);
    let extent = shape[axis];
    let (lead, rest) = (shape[..axis].iter().product::<usize>(), shape[axis + 1..].iter().product::<usize>());
    let y = w.t.reshape(x, &[lead, extent, 1, rest])?;
    let y = w.t.op(Pad { before: vec![0; 4], after: vec![0, 0, stride - 1, 0], value: 0.0 }, &[&y])?;
    let wide = [&shape[..axis], &[extent * stride], &shape[axis + 1..]].concat();
    let y = w.t.reshape(&y, &wide)?;
    w.part(&y, axis, 0, extent * stride - (stride - 1))
}

fn global(w: &mut Walk, n: &Node, kind: ReduceKind) -> Made {
    let x = n.input(0)?;
    let rank = w.t.shape(x).len();
    if rank < 3 {
        broken!("an operand of rank {rank}");
    }
    Ok(vec![w.reduce(kind, x, &(2..rank).collect::<Vec<_>>(), true)?])
}

/// As a convolution of each channel with one number; where padding does not count, over the number of places that do.
fn average_pool(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?.clone();
    let shape = w.t.shape(&x);
    if !(3..=5).contains(&shape.len()) || shape[2..].contains(&0) {
        broken!("an operand {shape:?}");
    }
    let spatial = shape.len() - 2;
    if n.int("ceil_mode", 0)? != 0 {
        not_read!("ceil_mode");
    }
    let Some(kernel) = n.ints("kernel_shape")? else { broken!("kernel_shape is missing") };
    let kernel = kernel.iter().map(|k| size(*k, "a kernel of")).collect::<Result<Vec<_>, _>>()?;
    if kernel.len() != spatial {
        broken!("kernel_shape {kernel:?} of {spatial} axes");
    }
    let counts = n.int("count_include_pad", 0)? != 0;
    let Window { kernel, strides, dilations, before, after } = window(n, kernel, &shape[2..])?;
    // A kernel may be of any size, and is written out before it is known whether it fits.
    w.t.spend(&TensorType::new(DType::F32, [&[shape[1], 1], &kernel[..]].concat()))?;
    let taps: usize = kernel.iter().product();
    let padded = before.iter().chain(&after).any(|p| *p > 0);
    let conv = |groups| Conv {
        strides: strides.clone(),
        pad_before: before.clone(),
        pad_after: after.clone(),
        dilations: dilations.clone(),
        groups,
    };
    let weight = |w: &mut Walk, channels: usize, x: f64| {
        let shape = [&[channels, 1], &kernel[..]].concat();
        let elements = shape.iter().product();
        w.known(DType::F32, &shape, vec![x; elements])
    };
    let each = if counts || !padded { 1.0 / taps as f64 } else { 1.0 };
    let kernel_of_x = weight(w, shape[1], each)?;
    let y = w.t.op(conv(shape[1]), &[&x, &kernel_of_x])?;
    if counts || !padded {
        return Ok(vec![y]);
    }
    let ones = TensorType::new(DType::F32, [&[1, 1], &shape[2..]].concat());
    w.t.spend(&ones)?;
    let ones = Value::Known(Tensor::splat(&ones, 1.0));
    let one = weight(w, 1, 1.0)?;
    let places = w.t.op(conv(1), &[&ones, &one])?;
    Ok(vec![w.binary(Binary::Div, &y, &places)?])
}
