//! Attention and rotary positions as opset 23 has them; ONNX Runtime's own forms use the same functions.

use s2dit_ir::ops::{Binary, Softmax, Unary};
use s2dit_ir::{DType, MASKED, Tensor, TensorType};

use super::Handler;
use super::gather::scaled;
use crate::Value;
use crate::onnx::node::{Made, Node, Stop, broken, not_read, size};
use crate::onnx::walk::Walk;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "Attention" => attention,
        "RotaryEmbedding" => rotary,
        _ => return None,
    })
}

/// What scores become between the two products.
#[derive(Default)]
pub(super) struct Scores {
    /// Factor of the scores; `None` for 1/√width.
    pub scale: Option<f64>,
    /// What is added to them: numbers, or a boolean that keeps.
    pub mask: Option<Value>,
    /// What weights are multiplied with, where rows in which nothing counts must be 0: the mask as 0 and 1.
    pub keeps: Option<Value>,
    pub causal: bool,
    /// Scores are squashed into this range; 0 for none.
    pub softcap: f64,
}

impl Walk<'_> {
    /// Tokens `[B, N, H·d]` as heads `[B, H, N, d]`.
    pub(super) fn heads(&mut self, x: &Value, heads: usize) -> Result<Value, Stop> {
        let [batch, tokens, width] = self.t.shape(x)[..] else { broken!("tokens {:?}", self.t.shape(x)) };
        if heads == 0 || width % heads != 0 {
            broken!("{heads} heads of width {width}");
        }
        let y = self.t.reshape(x, &[batch, tokens, heads, width / heads])?;
        Ok(self.t.transpose(&y, &[0, 2, 1, 3])?)
    }

    /// The inverse of [`Walk::heads`].
    pub(super) fn tokens(&mut self, x: &Value) -> Result<Value, Stop> {
        let [batch, heads, tokens, width] = self.t.shape(x)[..] else { broken!("heads {:?}", self.t.shape(x)) };
        let y = self.t.transpose(x, &[0, 2, 1, 3])?;
        Ok(self.t.reshape(&y, &[batch, tokens, heads * width])?)
    }

    /// Each head of `[B, H, N, d]` as many times as it takes to have `heads`.
    fn repeated(&mut self, x: &Value, heads: usize) -> Result<Value, Stop> {
        let [batch, own, tokens, width] = self.t.shape(x)[..] else { broken!("heads {:?}", self.t.shape(x)) };
        if own == heads {
            return Ok(x.clone());
        }
        if own == 0 || !heads.is_multiple_of(own) {
            broken!("{heads} heads of queries for {own} of keys");
        }
        let y = self.t.reshape(x, &[batch, own, 1, tokens, width])?;
        let y = self.t.broadcast(&y, &[batch, own, heads / own, tokens, width])?;
        Ok(self.t.reshape(&y, &[batch, heads, tokens, width])?)
    }

    /// A boolean mask as what is added to scores: 0 where it keeps.
    pub(super) fn mask_bias(&mut self, mask: &Value) -> Result<Value, Stop> {
        if let Value::Known(Tensor { dtype: DType::Bool, data }) = mask {
            let data = data.mapv(|x| if x == 0.0 { f64::NEG_INFINITY } else { 0.0 });
            return Ok(Value::Known(Tensor { dtype: DType::F32, data }));
        }
        let boolean = matches!(mask, Value::Graph(v) if self.bools.contains(v));
        if !boolean {
            return self.cast(mask, DType::F32);
        }
        let y = self.with(Binary::Sub, mask, 1.0)?;
        self.with(Binary::Mul, &y, -MASKED)
    }

    /// `softmax(q·kᵀ·scale + mask)·v` of heads `[B, H, N, d]`, and the scores after the mask.
    pub(super) fn attention(&mut self, q: &Value, k: &Value, v: &Value, with: &Scores) -> Result<Value, Stop> {
        let [_, heads, queries, width] = self.t.shape(q)[..] else { broken!("queries {:?}", self.t.shape(q)) };
        let (k, v) = (self.repeated(k, heads)?, self.repeated(v, heads)?);
        let keys = self.t.shape(&k)[2];
        let k = self.turned(&k)?;
        let scores = self.t.op(s2dit_ir::ops::Matmul { transpose_x: false, transpose_y: false }, &[q, &k])?;
        let mut scores = scaled(self, &scores, with.scale.unwrap_or(1.0 / (width as f64).sqrt()))?;
        if with.softcap != 0.0 {
            scores = self.with(Binary::Div, &scores, with.softcap)?;
            scores = self.unary(Unary::Tanh, &scores)?;
            scores = self.with(Binary::Mul, &scores, with.softcap)?;
        }
        if let Some(mask) = &with.mask {
            let mut bias = self.mask_bias(mask)?;
            // A mask of fewer keys keeps none of the others.
            let mut shape = self.t.shape(&bias);
            if let Some(last) = shape.last().copied().filter(|last| *last != keys && *last != 1) {
                if last > keys {
                    broken!("a mask of {last} keys for {keys}");
                }
                let at = shape.len() - 1;
                shape[at] = keys - last;
                let rest = Value::Known(Tensor::splat(&TensorType::new(DType::F32, shape.clone()), f64::NEG_INFINITY));
                bias = self.concat(&[bias, rest], at)?;
            }
            scores = self.binary(Binary::Add, &scores, &bias)?;
        }
        if with.causal {
            self.t.spend(&TensorType::new(DType::F32, [queries, keys]))?;
            let keeps = |i: usize| if i % keys <= i / keys { 0.0 } else { f64::NEG_INFINITY };
            let mask = self.known(DType::F32, &[queries, keys], (0..queries * keys).map(keeps).collect())?;
            scores = self.binary(Binary::Add, &scores, &mask)?;
        }
        let mut weights = self.t.op(Softmax { axis: 3 }, &[&scores])?;
        if let Some(keeps) = &with.keeps {
            weights = self.binary(Binary::Mul, &weights, keeps)?;
        }
        self.matmul(&weights, &v)
    }

    /// Rotates the first elements of heads `[B, H, N, d]` by the angles of tables whose last axis has half as many.
    pub(super) fn rotated(&mut self, x: &Value, cos: &Value, sin: &Value, interleaved: bool) -> Result<Value, Stop> {
        let shape = self.t.shape(x);
        let half = self.t.shape(cos).last().copied().unwrap_or(0);
        let [lead @ .., width] = &shape[..] else { broken!("heads {shape:?}") };
        if half == 0 || 2 * half > *width {
            broken!("tables of {half} angles for a width of {width}");
        }
        let last = lead.len();
        let turned = self.part(x, last, 0, 2 * half)?;
        let (first, second) = if interleaved {
            let pairs = self.t.reshape(&turned, &[lead, &[half, 2]].concat())?;
            let (even, odd) = (self.part(&pairs, last + 1, 0, 1)?, self.part(&pairs, last + 1, 1, 2)?);
            let flat = [lead, &[half]].concat();
            (self.t.reshape(&even, &flat)?, self.t.reshape(&odd, &flat)?)
        } else {
            (self.part(&turned, last, 0, half)?, self.part(&turned, last, half, 2 * half)?)
        };
        let (ac, bs) = (self.binary(Binary::Mul, &first, cos)?, self.binary(Binary::Mul, &second, sin)?);
        let real = self.binary(Binary::Sub, &ac, &bs)?;
        let (as_, bc) = (self.binary(Binary::Mul, &first, sin)?, self.binary(Binary::Mul, &second, cos)?);
        let imaginary = self.binary(Binary::Add, &as_, &bc)?;
        let y = if interleaved {
            let column = [lead, &[half, 1]].concat();
            let (real, imaginary) = (self.t.reshape(&real, &column)?, self.t.reshape(&imaginary, &column)?);
            let y = self.concat(&[real, imaginary], last + 1)?;
            self.t.reshape(&y, &[lead, &[2 * half]].concat())?
        } else {
            self.concat(&[real, imaginary], last)?
        };
        if 2 * half == *width {
            return Ok(y);
        }
        let rest = self.part(x, last, 2 * half, *width)?;
        self.concat(&[y, rest], last)
    }
}

/// A boolean mask as 0 and 1, if rows of it may keep nothing.
fn zero_rows(w: &mut Walk, mask: &Value, keys: usize) -> Result<Option<Value>, Stop> {
    let may = match mask {
        Value::Graph(v) => w.bools.contains(v),
        Value::Known(Tensor { dtype: DType::Bool, data }) => {
            data.ndim() > 0 && data.rows().into_iter().any(|row| row.iter().all(|x| *x == 0.0))
        }
        _ => false,
    };
    if !may || w.t.shape(mask).last().is_none_or(|last| *last != keys && *last != 1) {
        return Ok(None);
    }
    w.cast(mask, DType::F32).map(Some)
}

fn attention(w: &mut Walk, n: &Node) -> Made {
    let (q, k, v) = (n.input(0)?.clone(), n.input(1)?.clone(), n.input(2)?.clone());
    let flat = w.t.shape(&q).len() == 3;
    let (q, mut k, mut v) = if flat {
        let (own, of_keys) = (size(n.int("q_num_heads", 0)?, "heads:")?, size(n.int("kv_num_heads", 0)?, "heads:")?);
        (w.heads(&q, own)?, w.heads(&k, of_keys)?, w.heads(&v, of_keys)?)
    } else {
        (q, k, v)
    };
    if w.t.shape(&q).len() != 4 || w.t.shape(&k).len() != 4 || w.t.shape(&v).len() != 4 {
        broken!("queries, keys and values of ranks that differ from 3 and 4");
    }
    let (mut past_keys, mut outputs) = (0, Vec::new());
    if let (Some(past_k), Some(past_v)) = (n.optional(4), n.optional(5)) {
        let (past_k, past_v) = (past_k.clone(), past_v.clone());
        past_keys = w.t.shape(&past_k)[2];
        (k, v) = (w.concat(&[past_k, k], 2)?, w.concat(&[past_v, v], 2)?);
    }
    if n.optional(6).is_some() {
        not_read!("nonpad_kv_seqlen");
    }
    let causal = n.int("is_causal", 0)? != 0;
    if causal && past_keys > 0 {
        not_read!("causal attention with keys of the past");
    }
    if n.wants(3) {
        not_read!("the scores as an output");
    }
    let keys = w.t.shape(&k)[2];
    let keeps = match n.optional(3) {
        Some(mask) => zero_rows(w, &mask.clone(), keys)?,
        None => None,
    };
    let scores = Scores {
        scale: if n.has("scale") { Some(n.float("scale", 1.0)?) } else { None },
        mask: n.optional(3).cloned(),
        keeps,
        causal,
        softcap: n.float("softcap", 0.0)?,
    };
    if scores.softcap != 0.0 && (scores.mask.is_some() || causal) {
        not_read!("softcap with a mask: opsets differ in what comes first");
    }
    let y = w.attention(&q, &k, &v, &scores)?;
    outputs.push(if flat { w.tokens(&y)? } else { y });
    if n.wants(1) || n.wants(2) {
        outputs.extend([k, v]);
    }
    Ok(outputs)
}

/// Tables `[positions, half]` by known ids `[B, N]`, or `[B, N, half]` for each token.
fn rotary(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?.clone();
    let (cos, sin) = (n.input(1)?.clone(), n.input(2)?.clone());
    let heads = size(n.int("num_heads", 0)?, "heads:")?;
    let flat = w.t.shape(&x).len() == 3;
    let x = if flat { w.heads(&x, heads)? } else { x };
    let table = |w: &mut Walk, table: &Value| -> Result<Value, Stop> {
        let y = match n.optional(3) {
            Some(ids) => {
                let ids = ids.clone();
                by_ids(w, table, &ids)?
            }
            None => table.clone(),
        };
        spread(w, &y)
    };
    let (mut cos, mut sin) = (table(w, &cos)?, table(w, &sin)?);
    let half = size(n.int("rotary_embedding_dim", 0)?, "a width of")? / 2;
    if half > 0 {
        let last = w.t.shape(&cos).len() - 1;
        if half > w.t.shape(&cos)[last] {
            broken!("rotary_embedding_dim {} of tables {:?}", 2 * half, w.t.shape(&cos));
        }
        (cos, sin) = (w.part(&cos, last, 0, half)?, w.part(&sin, last, 0, half)?);
    }
    let y = w.rotated(&x, &cos, &sin, n.int("interleaved", 0)? != 0)?;
    Ok(vec![if flat { w.tokens(&y)? } else { y }])
}

/// Rows of a table `[positions, half]` by ids `[B, N]`.
pub(super) fn by_ids(w: &mut Walk, table: &Value, ids: &Value) -> Result<Value, Stop> {
    let (of, shape) = (w.t.shape(ids), w.t.shape(table));
    let [positions, half] = shape[..] else { broken!("a table {shape:?} with ids") };
    let y = match ids {
        Value::Known(ids) => {
            let place = |x: &f64| match *x >= 0.0 && *x < positions as f64 {
                true => Ok(*x as usize),
                false => Err(Stop::Broken(format!("position {x} of {positions}"))),
            };
            let places = ids.data.iter().map(place).collect::<Result<Vec<_>, _>>()?;
            super::gather::take(w, table, 0, &places)?
        }
        ids => super::gather::rows(w, table, ids, 0)?,
    };
    Ok(w.t.reshape(&y, &[&of[..], &[half]].concat())?)
}

/// `[B, N, half]` as `[B, 1, N, half]`: a table for all heads. Where all batches have one, it has no batch.
pub(super) fn spread(w: &mut Walk, table: &Value) -> Result<Value, Stop> {
    let shape = w.t.shape(table);
    let wide = match shape[..] {
        [1, tokens, half] | [tokens, half] => vec![tokens, half],
        [batch, tokens, half] => vec![batch, 1, tokens, half],
        _ => broken!("a table {shape:?}"),
    };
    Ok(w.t.reshape(table, &wide)?)
}
