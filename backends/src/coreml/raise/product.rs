//! Matrix products, linear layers, convolutions.

use anyhow::{Context, Result, bail};
use s2dit_ir::ValueId;
use s2dit_ir::ops::{Conv, Linear, Matmul, ReduceKind};

use super::select::take;
use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "linear" => linear,
        "matmul" => matmul,
        "conv" => conv,
        "einsum" => einsum,
        _ => return None,
    })
}

fn linear(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let (x, w) = (r.operand(op, "x")?, r.operand(op, "weight")?);
    let bias = r.operand_if(op, "bias")?;
    if !r.b.f.dtype(x).is_float() {
        let operands: Vec<ValueId> = [x, w].into_iter().chain(bias).collect();
        return Ok(vec![r.in_f64(&operands, |r, v| Ok(r.b.op(Linear {}, v)?))?]);
    }
    let operands: Vec<ValueId> = [x, w].into_iter().chain(bias).collect();
    Ok(vec![r.in_one_dtype(&operands, |r, v| Ok(r.b.op(Linear {}, v)?))?])
}

fn matmul(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let (x, y) = (r.operand(op, "x")?, r.operand(op, "y")?);
    let matmul =
        Matmul { transpose_x: r.flag(op, "transpose_x", false)?, transpose_y: r.flag(op, "transpose_y", false)? };
    if !r.b.f.dtype(x).is_float() {
        return Ok(vec![r.in_f64(&[x, y], |r, v| Ok(r.b.op(matmul, v)?))?]);
    }
    Ok(vec![r.in_one_dtype(&[x, y], |r, v| Ok(r.b.op(matmul, v)?))?])
}

fn conv(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let (x, w) = (r.operand(op, "x")?, r.operand(op, "weight")?);
    let bias = r.operand_if(op, "bias")?;
    let n = r.rank(x).saturating_sub(2);
    let kernel: Vec<usize> = r.b.shape(w).iter().skip(2).copied().collect();
    let extents: Vec<usize> = r.b.shape(x).iter().skip(2).copied().collect();
    let strides = r.sizes(op, "strides")?.unwrap_or_else(|| vec![1; n]);
    let dilations = r.sizes(op, "dilations")?.unwrap_or_else(|| vec![1; n]);
    let groups = usize::try_from(r.int(op, "groups", Some(1))?)?;
    if kernel.len() != n || strides.len() != n || dilations.len() != n || strides.contains(&0) {
        bail!("{n} spatial axes, but kernel {kernel:?}, strides {strides:?}, dilations {dilations:?}");
    }
    let Borders { before: pad_before, after: pad_after } = borders(r, op, &extents, &kernel, &strides, &dilations)?;
    let conv = Conv { strides, pad_before, pad_after, dilations, groups };
    let operands: Vec<ValueId> = [x, w].into_iter().chain(bias).collect();
    Ok(vec![r.in_one_dtype(&operands, |r, v| Ok(r.b.op(conv, v)?))?])
}

/// Elements before and after each spatial axis.
pub(super) struct Borders {
    pub before: Vec<usize>,
    pub after: Vec<usize>,
}

/// The borders that `pad_type` and `pad` ask for.
pub(super) fn borders(
    r: &Raise,
    op: &Operation,
    extents: &[usize],
    kernel: &[usize],
    strides: &[usize],
    dilations: &[usize],
) -> Result<Borders> {
    let n = extents.len();
    let (before, after) = match r.text(op, "pad_type", "valid")?.as_str() {
        "valid" => (vec![0; n], vec![0; n]),
        "custom" => {
            let pad = r.sizes(op, "pad")?.unwrap_or_else(|| vec![0; 2 * n]);
            if pad.len() != 2 * n {
                bail!("pad has {} entries, expected {}", pad.len(), 2 * n);
            }
            (pad.iter().step_by(2).copied().collect(), pad.iter().skip(1).step_by(2).copied().collect())
        }
        same @ ("same" | "same_lower") => {
            // As many outputs as ceil(extent / stride); an odd pad goes after, or before for "same_lower".
            let total = |i: usize| {
                let reach = (kernel[i].max(1) - 1) * dilations[i] + 1;
                ((extents[i].div_ceil(strides[i]).max(1) - 1) * strides[i] + reach).saturating_sub(extents[i])
            };
            let small: Vec<usize> = (0..n).map(|i| total(i) / 2).collect();
            let large: Vec<usize> = (0..n).map(|i| total(i).div_ceil(2)).collect();
            if same == "same" { (small, large) } else { (large, small) }
        }
        other => bail!("unknown pad_type `{other}`"),
    };
    Ok(Borders { before, after })
}

/// Einstein's sum of two operands, or of one: letters that the result lacks are summed over.
fn einsum(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let equation: String = r.text(op, "equation", "")?.split_whitespace().collect();
    let operands = r.operand_list(op, "values")?;
    let malformed = || format!("equation `{equation}` for {} operands", operands.len());
    let (left, result) = equation.split_once("->").with_context(malformed)?;
    let letters: Vec<Vec<char>> = left.split(',').map(|part| part.chars().collect()).collect();
    let result: Vec<char> = result.chars().collect();
    let known = letters.iter().flatten().chain(&result).all(|c| c.is_alphabetic());
    if !known || letters.len() != operands.len() || !(1..=2).contains(&operands.len()) {
        bail!("{}", malformed());
    }
    if let Some(absent) = result.iter().find(|c| !letters.iter().flatten().any(|l| l == *c)) {
        bail!("equation `{equation}`: no operand has `{absent}`");
    }
    let mut sides = Vec::new();
    for (i, (&v, letters_of)) in operands.iter().zip(&letters).enumerate() {
        if r.rank(v) != letters_of.len() {
            bail!("equation `{equation}` for operand {}", r.b.f.ty(v));
        }
        let (v, own) = diagonal(r, v, letters_of)?;
        // A letter that nothing else has is summed over at once.
        let elsewhere =
            |c: &char| result.contains(c) || letters.iter().enumerate().any(|(j, l)| j != i && l.contains(c));
        let alone: Vec<usize> = (0..own.len()).filter(|&a| !elsewhere(&own[a])).collect();
        let v = if alone.is_empty() { v } else { r.b.reduce(ReduceKind::Sum, v, &alone, false)? };
        sides.push((v, own.into_iter().filter(|c| elsewhere(c)).collect::<Vec<char>>()));
    }
    let (v, order) = match sides.pop().zip(sides.pop()) {
        Some((y, x)) => pair(r, x, y, &result)?,
        None => {
            let (v, own) = diagonal(r, operands[0], &letters[0])?;
            let alone: Vec<usize> = (0..own.len()).filter(|&a| !result.contains(&own[a])).collect();
            let v = if alone.is_empty() { v } else { r.b.reduce(ReduceKind::Sum, v, &alone, false)? };
            (v, own.into_iter().filter(|c| result.contains(c)).collect())
        }
    };
    let perm: Vec<usize> = result.iter().filter_map(|c| order.iter().position(|o| o == c)).collect();
    if perm.iter().copied().eq(0..perm.len()) {
        return Ok(vec![v]);
    }
    Ok(vec![r.b.transpose(v, &perm)?])
}

/// One axis a letter: of axes with the same letter, the elements where their positions agree.
fn diagonal(r: &mut Raise, mut v: ValueId, letters: &[char]) -> Result<(ValueId, Vec<char>)> {
    let mut own = letters.to_vec();
    while let Some((i, j)) = (0..own.len()).find_map(|i| {
        let again = own[i + 1..].iter().position(|c| *c == own[i])?;
        Some((i, i + 1 + again))
    }) {
        let shape = r.b.shape(v).to_vec();
        if shape[i] != shape[j] {
            bail!("`{}` is {} and {}", own[i], shape[i], shape[j]);
        }
        // Both axes in front, flattened; each (n + 1)-th element is on the diagonal.
        let rest: Vec<usize> = (0..own.len()).filter(|a| *a != i && *a != j).collect();
        let perm: Vec<usize> = [i, j].into_iter().chain(rest.iter().copied()).collect();
        let n = shape[i];
        let flat: Vec<usize> = [n * n].into_iter().chain(rest.iter().map(|a| shape[*a])).collect();
        v = r.b.transpose(v, &perm)?;
        v = r.b.reshape(v, &flat)?;
        v = take(r, v, 0, n, |k| k * (n + 1))?;
        own = [own[i]].into_iter().chain(rest.iter().map(|a| own[*a])).collect();
    }
    Ok((v, own))
}

/// A matrix product: common letters that the result has are its batch, the other common ones are summed over. An extent of 1 stretches.
fn pair(
    r: &mut Raise,
    (x, of_x): (ValueId, Vec<char>),
    (y, of_y): (ValueId, Vec<char>),
    result: &[char],
) -> Result<(ValueId, Vec<char>)> {
    let both = |c: &&char| of_x.contains(c) && of_y.contains(c);
    let batch: Vec<char> = of_x.iter().filter(both).filter(|c| result.contains(c)).copied().collect();
    let summed: Vec<char> = of_x.iter().filter(both).filter(|c| !result.contains(c)).copied().collect();
    let left: Vec<char> = of_x.iter().filter(|c| !of_y.contains(c)).copied().collect();
    let right: Vec<char> = of_y.iter().filter(|c| !of_x.contains(c)).copied().collect();
    let mut extents = std::collections::HashMap::new();
    for (v, letters) in [(x, &of_x), (y, &of_y)] {
        for (c, &extent) in letters.iter().zip(r.b.shape(v)) {
            let known = extents.entry(*c).or_insert(extent);
            *known = if *known == 1 { extent } else { *known };
        }
    }
    let size = |letters: &[char]| -> usize { letters.iter().map(|c| extents[c]).product() };
    let mut flat = |v: ValueId, own: &[char], order: [&[char]; 3]| -> Result<ValueId> {
        let perm: Vec<usize> = order.concat().iter().filter_map(|c| own.iter().position(|o| o == c)).collect();
        let v = r.b.transpose(v, &perm)?;
        let wanted: Vec<usize> = order.concat().iter().map(|c| extents[c]).collect();
        let v = if r.b.shape(v) == wanted { v } else { r.b.broadcast_to(v, &wanted)? };
        Ok(r.b.reshape(v, &order.map(size))?)
    };
    let x = flat(x, &of_x, [&batch, &left, &summed])?;
    let y = flat(y, &of_y, [&batch, &summed, &right])?;
    let z = if r.b.f.dtype(x).is_float() {
        r.b.matmul(x, y)?
    } else {
        r.in_f64(&[x, y], |r, v| Ok(r.b.matmul(v[0], v[1])?))?
    };
    let order = [batch, left, right].concat();
    let shape: Vec<usize> = order.iter().map(|c| extents[c]).collect();
    Ok((r.b.reshape(z, &shape)?, order))
}
