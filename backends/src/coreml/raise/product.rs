//! Matrix products, linear layers, convolutions.

use anyhow::{Result, bail};
use s2dit_ir::ValueId;
use s2dit_ir::ops::{Conv, Linear, Matmul};

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
    let operands: Vec<ValueId> = [x, w].into_iter().chain(r.operand_if(op, "bias")?).collect();
    Ok(vec![r.in_one_dtype(&operands, |r, v| Ok(r.b.op(Linear {}, v)?))?])
}

fn matmul(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let (x, y) = (r.operand(op, "x")?, r.operand(op, "y")?);
    let matmul =
        Matmul { transpose_x: r.flag(op, "transpose_x", false)?, transpose_y: r.flag(op, "transpose_y", false)? };
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
    let (pad_before, pad_after) = match r.text(op, "pad_type", "valid")?.as_str() {
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
    let conv = Conv { strides, pad_before, pad_after, dilations, groups };
    let operands: Vec<ValueId> = [x, w].into_iter().chain(bias).collect();
    Ok(vec![r.in_one_dtype(&operands, |r, v| Ok(r.b.op(conv, v)?))?])
}

/// The two equations that Core ML has, with any letters: `nchw,nwhu->nchu` and `chw,whr->chr`.
fn einsum(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let equation = r.text(op, "equation", "")?;
    let [x, y] = r.operand_list(op, "values")?[..] else { bail!("expected two operands") };
    let parts: Vec<Vec<char>> =
        equation.split(|c: char| !c.is_alphabetic()).filter(|p| !p.is_empty()).map(|p| p.chars().collect()).collect();
    let matches = match &parts[..] {
        [a, b, c] if a.len() == 4 && b.len() == 4 && c.len() == 4 => {
            b[0] == a[0] && b[1] == a[3] && b[2] == a[2] && *c == [a[0], a[1], a[2], b[3]]
        }
        [a, b, c] if a.len() == 3 && b.len() == 3 && c.len() == 3 => {
            b[0] == a[2] && b[1] == a[1] && *c == [a[0], a[1], b[2]]
        }
        _ => false,
    };
    let mut letters: Vec<char> = parts.iter().take(2).flatten().copied().collect();
    letters.sort_unstable();
    letters.dedup();
    // Five letters in the long form, four in the short one: none may stand for two axes.
    let rank = parts.first().map_or(0, Vec::len);
    if !matches || letters.len() != rank + 1 || equation.contains('.') {
        bail!("equation `{equation}` is not one that Core ML has");
    }
    if r.rank(x) != rank || r.rank(y) != rank {
        bail!("equation `{equation}` for operands {} and {}", r.b.f.ty(x), r.b.f.ty(y));
    }
    // c h w · w h u per h: bring h in front of both, multiply, and bring it back.
    let swap = |n: usize| if n == 4 { vec![0, 2, 1, 3] } else { vec![1, 0, 2] };
    let perm = swap(r.rank(x));
    let x = r.b.transpose(x, &perm)?;
    let y = r.b.transpose(y, &perm)?;
    let z = r.b.matmul(x, y)?;
    Ok(vec![r.b.transpose(z, &perm)?])
}
