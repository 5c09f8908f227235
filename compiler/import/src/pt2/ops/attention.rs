//! Attention and softmax.

use s2dit_ir::ops::{Binary, Matmul, Softmax};
use s2dit_ir::{DType, MASKED, OpError};

use super::super::call::Call;
use super::super::walk::{Slot, Walk};
use super::Group;
use crate::{Traced, Value};

pub(super) const OPS: Group = &[
    ("aten.scaled_dot_product_attention.default", attention),
    ("aten._scaled_dot_product_flash_attention_for_cpu.default", attention),
    ("aten._scaled_dot_product_efficient_attention.default", attention),
    ("aten._scaled_dot_product_flash_attention.default", attention),
    ("aten.softmax.int", softmax),
    ("aten._softmax.default", softmax),
    ("aten._safe_softmax.default", softmax),
];

type Read = Result<Vec<Slot>, OpError>;

fn softmax(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let x = w.cast(&x, DType::F32)?;
    let rank = w.t.shape(&x).len();
    let axis = c.axis(w, "dim", -1, rank)?;
    Ok(c.one(w.t.op(Softmax { axis }, &[&x])?))
}

/// `softmax(q·kᵀ·scale + mask)·v`
fn attention(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (q, mut k, mut v) = (c.tensor(w, "query")?, c.tensor(w, "key")?, c.tensor(w, "value")?);
    if c.number(w, "dropout_p", Some(0.0))? != 0.0 {
        return Err(OpError::new("it drops elements: call model.eval() before the export"));
    }
    let shape = w.t.shape(&q);
    let [.., queries, width] = shape[..] else { return Err(OpError::new("attention of what is no matrix")) };
    let scale = c.number(w, "scale", Some((width as f64).powf(-0.5)))?;
    if c.flag(w, "enable_gqa", false)? && shape.len() >= 3 {
        let axis = shape.len() - 3;
        for keys in [&mut k, &mut v] {
            let heads = w.t.shape(keys)[axis];
            if heads == 0 || !shape[axis].is_multiple_of(heads) {
                return Err(OpError::new(format!("{} heads of queries for {heads} of keys", shape[axis])));
            }
            *keys = w.repeated(keys, axis, shape[axis] / heads, true)?;
        }
    }
    let keys = w.t.shape(&k)[shape.len() - 2];
    let (q, k, v) = (w.cast(&q, DType::F32)?, w.cast(&k, DType::F32)?, w.cast(&v, DType::F32)?);
    let scores = w.t.op(Matmul { transpose_x: false, transpose_y: true }, &[&q, &k])?;
    let mut scores = w.with_number(Binary::Mul, &scores, scale)?;
    let of_mask = if c.has("attn_bias") { "attn_bias" } else { "attn_mask" };
    let mask = c.tensor_or_none(w, of_mask)?;
    if let Some(mask) = mask {
        // The graph has zeros and ones for truth values, whatever views lie between: the file says which they are.
        let said = c.name(of_mask).and_then(|name| w.dtype_of(name));
        let is_truth = said.unwrap_or(w.t.ty(&mask).dtype) == DType::Bool;
        let bias = additive(w, &mask, is_truth)?;
        scores = w.binary(Binary::Add, &scores, &bias)?;
    }
    if c.flag(w, "is_causal", false)? {
        let later = (0..queries * keys).map(|i| if i % keys > i / keys { MASKED } else { 0.0 });
        let bias = super::make::known(w, DType::F32, &[queries, keys], later)?;
        scores = w.binary(Binary::Add, &scores, &bias)?;
    }
    let weights = w.t.op(Softmax { axis: w.t.shape(&scores).len() - 1 }, &[&scores])?;
    let y = w.t.op(Matmul { transpose_x: false, transpose_y: false }, &[&weights, &v])?;
    Ok(vec![Slot::Tensor(y)])
}

/// What a mask adds to scores: one of truth values is −∞ where it does not hold.
fn additive(w: &mut Walk<'_>, mask: &Value, is_truth: bool) -> Traced {
    if !is_truth {
        return w.cast(mask, DType::F32);
    }
    let mask = w.cast(mask, DType::F32)?;
    let missing = w.with_number(Binary::Sub, &mask, 1.0)?;
    w.with_number(Binary::Mul, &missing, -MASKED)
}
