//! Convolutions.

use s2dit_ir::ops::Conv;
use s2dit_ir::{DType, OpError};

use super::super::call::Call;
use super::super::walk::{Slot, Walk};
use super::Group;

pub(super) const OPS: Group =
    &[("aten.conv1d.*", conv), ("aten.conv2d.*", conv), ("aten.conv3d.*", conv), ("aten.convolution.default", conv)];

fn conv(w: &mut Walk<'_>, c: &Call<'_>) -> Result<Vec<Slot>, OpError> {
    let (x, weight, bias) = (c.tensor(w, "input")?, c.tensor(w, "weight")?, c.tensor_or_none(w, "bias")?);
    if c.flag(w, "transposed", false)? {
        return Err(OpError::new("a transposed convolution"));
    }
    let mut x = w.cast(&x, DType::F32)?;
    let n = w.t.shape(&weight).len().saturating_sub(2);
    // A single image without a batch.
    let alone = w.t.shape(&x).len() == n + 1;
    if alone {
        let shape = [vec![1], w.t.shape(&x)].concat();
        x = w.t.reshape(&x, &shape)?;
    }
    let each = |w: &Walk<'_>, name: &str, default: i64| -> Result<Vec<usize>, OpError> {
        let list = c.ints(w, name)?.unwrap_or_else(|| vec![default]);
        let list = if list.len() == 1 { vec![list[0]; n] } else { list };
        let sizes: Option<Vec<usize>> =
            list.iter().map(|v| usize::try_from(*v).ok().filter(|v| *v < 1 << 31)).collect();
        sizes.filter(|sizes| sizes.len() == n).ok_or_else(|| OpError::new(format!("{name} {list:?}")))
    };
    let (strides, dilations) = (each(w, "stride", 1)?, each(w, "dilation", 1)?);
    let kernel = w.t.shape(&weight);
    let padding = if c.is_text("padding") { c.text("padding", "")? } else { String::new() };
    let (pad_before, pad_after) = match padding.as_str() {
        "same" => {
            let total = |i: usize| dilations[i].saturating_mul(kernel[i + 2].saturating_sub(1));
            ((0..n).map(|i| total(i) / 2).collect(), (0..n).map(|i| total(i) - total(i) / 2).collect())
        }
        "valid" => (vec![0; n], vec![0; n]),
        text if !text.is_empty() => return Err(OpError::new(format!("padding {text:?}"))),
        _ => (each(w, "padding", 0)?, each(w, "padding", 0)?),
    };
    let groups = usize::try_from(c.int(w, "groups", Some(1))?).unwrap_or(0);
    let op = Conv { strides, pad_before, pad_after, dilations, groups };
    let operands = [&x, &weight].into_iter().chain(bias.as_ref()).collect::<Vec<_>>();
    let y = w.t.op(op, &operands)?;
    if !alone {
        return Ok(c.one(y));
    }
    let shape = w.t.shape(&y)[1..].to_vec();
    Ok(c.one(w.t.reshape(&y, &shape)?))
}
