//! Windows over spatial axes: pooling, transposed convolution, sliding windows.

use anyhow::{Context, Result, bail};
use s2dit_ir::ops::{ConvTranspose, Pool, Unary};
use s2dit_ir::{TensorType, ValueId};

use super::product::{Borders, borders};
use super::select::take;
use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "max_pool" | "avg_pool" | "l2_pool" => pool,
        "conv_transpose" => conv_transpose,
        "sliding_windows" => sliding_windows,
        _ => return None,
    })
}

fn pool(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let n = r.rank(x).saturating_sub(2);
    let extents: Vec<usize> = r.b.shape(x).iter().skip(2).copied().collect();
    let window = r.sizes(op, "kernel_sizes")?.context("input `kernel_sizes` is missing")?;
    let strides = r.sizes(op, "strides")?.unwrap_or_else(|| vec![1; n]);
    if n == 0 || window.len() != n || strides.len() != n || window.contains(&0) || strides.contains(&0) {
        bail!("{n} spatial axes, but kernel sizes {window:?} and strides {strides:?}");
    }
    let Borders { before, mut after } = borders(r, op, &extents, &window, &strides, &vec![1; n])?;
    let padded: Vec<usize> = (0..n).map(|i| extents[i] + before[i] + after[i]).collect();
    if r.flag(op, "ceil_mode", false)? {
        for i in 0..n {
            // The last window may reach over the border, but starts before the border behind x.
            let mut count = padded[i].saturating_sub(window[i]).div_ceil(strides[i]) + 1;
            if (count - 1) * strides[i] >= extents[i] + before[i] {
                count -= 1;
            }
            after[i] = (count.saturating_sub(1) * strides[i] + window[i]).saturating_sub(extents[i] + before[i]);
        }
    }
    let mean = op.r#type != "max_pool";
    let pool =
        Pool { mean, window: window.clone(), strides: strides.clone(), pad_before: before.clone(), pad_after: after };
    let size = window.iter().product::<usize>() as f64;
    if op.r#type == "l2_pool" {
        let y = r.b.unary(Unary::Square, x)?;
        let y = r.b.op(pool, &[y])?;
        let y = r.b.mul_scalar(y, size)?;
        return Ok(vec![r.b.unary(Unary::Sqrt, y)?]);
    }
    let y = r.b.op(pool, &[x])?;
    if op.r#type == "max_pool" {
        return Ok(vec![y]);
    }
    // Elements that count in each window: those of x, or those of x and its border.
    let inside = r.flag(op, "exclude_padding_from_average", false)?;
    let shape = r.b.shape(y)[2..].to_vec();
    let counts: Vec<Vec<usize>> = (0..n)
        .map(|i| {
            let (low, high) = if inside { (before[i], before[i] + extents[i]) } else { (0, padded[i]) };
            let count = |o: usize| (o * strides[i] + window[i]).min(high).saturating_sub((o * strides[i]).max(low));
            (0..shape[i]).map(count).collect()
        })
        .collect();
    if counts.iter().zip(&window).all(|(counts, window)| counts.iter().all(|c| c == window)) {
        return Ok(vec![y]);
    }
    let mut factors = vec![size];
    for axis in &counts {
        factors = factors.iter().flat_map(|f| axis.iter().map(move |c| f / *c as f64)).collect();
    }
    let ty = TensorType::new(r.b.f.dtype(y), [vec![1, 1], shape].concat());
    let factors = r.literal(&ty, &factors)?;
    Ok(vec![r.b.mul(y, factors)?])
}

fn conv_transpose(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let (x, w) = (r.operand(op, "x")?, r.operand(op, "weight")?);
    let bias = r.operand_if(op, "bias")?;
    let n = r.rank(x).saturating_sub(2);
    let kernel: Vec<usize> = r.b.shape(w).iter().skip(2).copied().collect();
    let spatial: Vec<usize> = r.b.shape(x).iter().skip(2).copied().collect();
    let strides = r.sizes(op, "strides")?.unwrap_or_else(|| vec![1; n]);
    let dilations = r.sizes(op, "dilations")?.unwrap_or_else(|| vec![1; n]);
    let groups = usize::try_from(r.int(op, "groups", Some(1))?)?;
    if n == 0 || kernel.len() != n || strides.len() != n || dilations.len() != n || spatial.contains(&0) {
        bail!("{n} spatial axes, but kernel {kernel:?}, strides {strides:?}, dilations {dilations:?}");
    }
    let mut conv = ConvTranspose { strides, pad_before: vec![0; n], extents: vec![0; n], dilations, groups };
    let full: Vec<usize> = (0..n).map(|i| conv.full(i, spatial[i], kernel[i])).collect();
    // The result's extents, if they are given, are its last ones.
    let wanted = r.sizes(op, "output_shape")?.map(|shape| shape[shape.len().saturating_sub(n)..].to_vec());
    if wanted.as_ref().is_some_and(|w| w.len() != n) {
        bail!("input `output_shape`: found {wanted:?}, expected {n} spatial extents");
    }
    let pad_type = r.text(op, "pad_type", "valid")?;
    for i in 0..n {
        let (before, after) = match pad_type.as_str() {
            "valid" => (0, 0),
            "custom" => {
                let pad = r.sizes(op, "pad")?.unwrap_or_else(|| vec![0; 2 * n]);
                if pad.len() != 2 * n {
                    bail!("pad has {} entries, expected {}", pad.len(), 2 * n);
                }
                (pad[2 * i], pad[2 * i + 1])
            }
            same @ ("same" | "same_lower") => {
                let extent = wanted.as_ref().map_or(spatial[i] * conv.strides[i], |w| w[i]);
                let total = full[i].saturating_sub(extent);
                if same == "same" { (total / 2, total.div_ceil(2)) } else { (total.div_ceil(2), total / 2) }
            }
            other => bail!("unknown pad_type `{other}`"),
        };
        conv.pad_before[i] = before;
        conv.extents[i] = match &wanted {
            Some(wanted) => wanted[i],
            None if pad_type.starts_with("same") => spatial[i] * conv.strides[i],
            None => full[i].checked_sub(before + after).context("more is cut off than there is")?,
        };
    }
    let operands: Vec<ValueId> = [x, w].into_iter().chain(bias).collect();
    Ok(vec![r.in_one_dtype(&operands, |r, v| Ok(r.b.op(conv, v)?))?])
}

/// Windows of `size` elements along an axis, `stride` apart, each on a new axis behind it.
fn sliding_windows(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let axis = r.axis(r.int(op, "axis", None)?, r.rank(x))?;
    let size = usize::try_from(r.int(op, "size", None)?)?;
    let stride = usize::try_from(r.int(op, "stride", Some(1))?)?;
    let extent = r.b.shape(x)[axis];
    if size == 0 || size > extent || stride == 0 {
        bail!("windows of {size} elements, {stride} apart, of {extent}");
    }
    let count = (extent - size) / stride + 1;
    let y = take(r, x, axis, count * size, |i| i / size * stride + i % size)?;
    let mut shape = r.b.shape(x).to_vec();
    shape.splice(axis..=axis, [count, size]);
    Ok(vec![r.b.reshape(y, &shape)?])
}
