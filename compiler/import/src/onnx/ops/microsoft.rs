//! ONNX Runtime's own ops: those that its optimiser makes of standard ones.

use s2dit_ir::ops::{Binary, Unary};
use s2dit_ir::{DType, MASKED, Op};

use super::Handler;
use super::attention::{Scores, by_ids, spread};
use super::gather::scaled;
use crate::Value;
use crate::onnx::node::{Made, Node, Stop, broken, not_read, size};
use crate::onnx::walk::Walk;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "Attention" => attention,
        "BiasAdd" => bias_add,
        "BiasGelu" | "FastGelu" | "Gelu" => gelu,
        "BiasSplitGelu" => bias_split_gelu,
        "DequantizeLinear" | "QuantizeLinear" => super::quantized::handler(op)?,
        "FusedConv" => |w, n| activated(w, n, "Conv"),
        "FusedGemm" => |w, n| activated(w, n, "Gemm"),
        "FusedMatMul" => fused_matmul,
        "GroupNorm" => group_norm,
        "MatMulNBits" => matmul_n_bits,
        "MultiHeadAttention" => multi_head_attention,
        "QuickGelu" => quick_gelu,
        "RotaryEmbedding" => rotary,
        "SimplifiedLayerNormalization" => super::norm::handler(op)?,
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => skip_norm,
        _ => return None,
    })
}

/// A sum of inputs, of which those behind the first may be left out.
fn sum(w: &mut Walk, n: &Node, of: &[usize]) -> Result<Value, Stop> {
    let mut y = n.input(of[0])?.clone();
    for term in of[1..].iter().filter_map(|i| n.optional(*i)) {
        y = w.binary(Binary::Add, &y, term)?;
    }
    Ok(y)
}

fn bias_add(w: &mut Walk, n: &Node) -> Made {
    Ok(vec![sum(w, n, &[0, 1, 2])?])
}

fn gelu(w: &mut Walk, n: &Node) -> Made {
    let x = sum(w, n, &[0, 1])?;
    let kind = if n.op() == "FastGelu" { Unary::GeluTanh } else { Unary::Gelu };
    Ok(vec![w.unary(kind, &x)?])
}

/// The first half of the last axis times the gelu of the second.
fn bias_split_gelu(w: &mut Walk, n: &Node) -> Made {
    let x = sum(w, n, &[0, 1])?;
    let shape = w.t.shape(&x);
    let Some(last) = shape.len().checked_sub(1).filter(|last| shape[*last].is_multiple_of(2)) else {
        broken!("an operand {shape:?}");
    };
    let half = shape[last] / 2;
    let (left, right) = (w.part(&x, last, 0, half)?, w.part(&x, last, half, 2 * half)?);
    let right = w.unary(Unary::Gelu, &right)?;
    Ok(vec![w.binary(Binary::Mul, &left, &right)?])
}

fn quick_gelu(w: &mut Walk, n: &Node) -> Made {
    let alpha = n.float("alpha", 1.702)?;
    Ok(vec![w.swish(n.input(0)?, alpha)?])
}

/// A standard op with a function of its result.
fn activated(w: &mut Walk, n: &Node, op: &str) -> Made {
    let standard = if op == "Conv" { super::conv::handler(op) } else { super::product::handler(op) };
    let Some(standard) = standard else { not_read!("no `{op}`") };
    let y = standard(w, n)?.remove(0);
    let y = match n.optional(3) {
        Some(z) if op == "Conv" => w.binary(Binary::Add, &y, &z.clone())?,
        _ => y,
    };
    let unary = match n.text("activation", "")? {
        "" => return Ok(vec![y]),
        "Relu" => Unary::Relu,
        "Sigmoid" => Unary::Sigmoid,
        "Tanh" => Unary::Tanh,
        other => not_read!("activation `{other}`"),
    };
    Ok(vec![w.unary(unary, &y)?])
}

fn fused_matmul(w: &mut Walk, n: &Node) -> Made {
    if n.int("transBatchA", 0)? != 0 || n.int("transBatchB", 0)? != 0 {
        not_read!("transBatchA and transBatchB");
    }
    let (a, b) = (n.input(0)?.clone(), n.input(1)?.clone());
    let turn = |w: &mut Walk, x: Value, name: &str| match n.int(name, 0)? != 0 && w.t.shape(&x).len() > 1 {
        true => w.turned(&x),
        false => Ok(x),
    };
    let (a, b) = (turn(w, a, "transA")?, turn(w, b, "transB")?);
    let y = w.matmul(&a, &b)?;
    Ok(vec![scaled(w, &y, n.float("alpha", 1.0)?)?])
}

/// Group norm of `[N, H, W, C]`, or `[N, C, H, W]`.
fn group_norm(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?.clone();
    let rank = w.t.shape(&x).len();
    if rank < 3 {
        broken!("an operand of rank {rank}");
    }
    let last = n.int("channels_last", 1)? != 0;
    let groups = size(n.int("groups", 0)?, "groups:")?;
    let first: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    let back: Vec<usize> = [0].into_iter().chain(2..rank).chain([1]).collect();
    let y = if last { w.t.transpose(&x, &first)? } else { x };
    let y = w.grouped(&y, groups, n.epsilon(1e-5)?)?;
    let mut wide = vec![1; rank];
    wide[1] = w.t.shape(&y)[1];
    let gain = w.t.reshape(n.input(1)?, &wide)?;
    let bias = w.t.reshape(n.input(2)?, &wide)?;
    let y = w.binary(Binary::Mul, &y, &gain)?;
    let mut y = w.binary(Binary::Add, &y, &bias)?;
    if n.int("activation", 0)? != 0 {
        y = w.swish(&y, 1.0)?;
    }
    Ok(vec![if last { w.t.transpose(&y, &back)? } else { y }])
}

/// A norm of a sum, which is the fourth output.
fn skip_norm(w: &mut Walk, n: &Node) -> Made {
    let simplified = n.op() == "SkipSimplifiedLayerNormalization";
    let bias = if simplified { 3 } else { 4 };
    let x = sum(w, n, &[0, 1, bias])?;
    let Some(last) = w.t.shape(&x).len().checked_sub(1) else { broken!("an operand of rank 0") };
    let (eps, gain) = (n.epsilon(1e-12)?, n.input(2)?.clone());
    let y = match simplified {
        true => w.rms_norm(&x, last, eps, Some(&gain))?,
        false => w.layer_norm(&x, last, eps, Some(&gain), n.optional(3))?,
    };
    if n.wants(1) || n.wants(2) {
        not_read!("the mean and the deviation");
    }
    // Nobody wants the two in between.
    Ok(if n.wants(3) { vec![y.clone(), y.clone(), y, x] } else { vec![y] })
}

/// What becomes of a mask of keys: `[B, keys]` or `[B, queries, keys]`, 1 where a key counts.
fn key_mask(w: &mut Walk, mask: &Value, fill: f64) -> Result<Value, Stop> {
    let shape = w.t.shape(mask);
    let wide = match shape[..] {
        [batch, keys] => vec![batch, 1, 1, keys],
        [batch, queries, keys] => vec![batch, 1, queries, keys],
        _ => not_read!("a mask {shape:?}: only masks [batch, keys] and [batch, queries, keys] are read"),
    };
    let y = w.cast(mask, DType::F32)?;
    let y = w.t.reshape(&y, &wide)?;
    let y = w.with(Binary::Sub, &y, 1.0)?;
    w.with(Binary::Mul, &y, -fill.max(MASKED))
}

fn add_masks(w: &mut Walk, a: Option<Value>, b: Option<Value>) -> Result<Option<Value>, Stop> {
    Ok(match (a, b) {
        (Some(a), Some(b)) => Some(w.binary(Binary::Add, &a, &b)?),
        (a, b) => a.or(b),
    })
}

fn scores(n: &Node, mask: Option<Value>) -> Result<Scores, Stop> {
    Ok(Scores {
        scale: if n.has("scale") { Some(n.float("scale", 1.0)?).filter(|s| *s != 0.0) } else { None },
        mask,
        keeps: None,
        causal: n.int("unidirectional", 0)? != 0,
        softcap: 0.0,
    })
}

/// Attention with the projections of queries, keys and values in one weight.
fn attention(w: &mut Walk, n: &Node) -> Made {
    let (x, weight) = (n.input(0)?.clone(), n.input(1)?.clone());
    if n.optional(4).is_some() || n.int("do_rotary", 0)? != 0 {
        not_read!("keys of the past and rotary positions in it");
    }
    let heads = size(n.int("num_heads", 0)?, "heads:")?;
    let mut y = w.matmul(&x, &weight)?;
    if let Some(bias) = n.optional(2) {
        y = w.binary(Binary::Add, &y, &bias.clone())?;
    }
    let [_, _, all] = w.t.shape(&y)[..] else { broken!("projections {:?}", w.t.shape(&y)) };
    let widths = match n.ints("qkv_hidden_sizes")? {
        Some(list) => list.iter().map(|s| size(*s, "a width of")).collect::<Result<Vec<_>, _>>()?,
        None => vec![all / 3; 3],
    };
    let &[a, b, c] = &widths[..] else { broken!("qkv_hidden_sizes {widths:?}") };
    if a.checked_add(b).and_then(|n| n.checked_add(c)) != Some(all) || widths.contains(&0) {
        broken!("widths {widths:?} of {all}");
    }
    let (q, k, v) = (w.part(&y, 2, 0, a)?, w.part(&y, 2, a, a + b)?, w.part(&y, 2, a + b, all)?);
    let (q, k, v) = (w.heads(&q, heads)?, w.heads(&k, heads)?, w.heads(&v, heads)?);
    let fill = n.float("mask_filter_value", -10_000.0)?;
    let mask = match n.optional(3) {
        Some(mask) => Some(key_mask(w, &mask.clone(), fill)?),
        None => None,
    };
    let mask = add_masks(w, mask, n.optional(5).cloned())?;
    let scores = scores(n, mask)?;
    let y = w.attention(&q, &k, &v, &scores)?;
    Ok(vec![w.tokens(&y)?])
}

fn multi_head_attention(w: &mut Walk, n: &Node) -> Made {
    let heads = size(n.int("num_heads", 0)?, "heads:")?;
    if n.optional(6).is_some() || n.optional(7).is_some() {
        not_read!("keys of the past");
    }
    let q = n.input(0)?.clone();
    // Packed: [B, N, heads, 3, width] of all, or [B, N, heads, 2, width] of keys and values.
    let unpack = |w: &mut Walk, x: &Value, i: usize| -> Result<Value, Stop> {
        let [batch, tokens, heads, _, width] = w.t.shape(x)[..] else { broken!("packed heads {:?}", w.t.shape(x)) };
        let y = w.part(x, 3, i, i + 1)?;
        let y = w.t.reshape(&y, &[batch, tokens, heads, width])?;
        Ok(w.t.transpose(&y, &[0, 2, 1, 3])?)
    };
    let bias = n.optional(3).cloned();
    let own = |w: &mut Walk, x: &Value, part: usize| -> Result<Value, Stop> {
        if w.t.shape(x).len() == 4 {
            return Ok(x.clone());
        }
        let mut x = x.clone();
        if let Some(bias) = &bias {
            let (all, width) = (w.t.ty(bias).elements(), w.t.shape(&x).last().copied().unwrap_or(0));
            // Widths of queries and keys are equal; what is left is the values'.
            let own = w.t.shape(&q).last().copied().unwrap_or(0);
            let begin = part * own;
            if begin + width > all {
                broken!("a bias of {all} for widths {own} and {width}");
            }
            let bias = w.part(bias, 0, begin, begin + width)?;
            x = w.binary(Binary::Add, &x, &bias)?;
        }
        w.heads(&x, heads)
    };
    let (query, key, value) = match (n.optional(1), n.optional(2)) {
        (None, _) if w.t.shape(&q).len() == 5 && bias.is_none() => {
            (unpack(w, &q, 0)?, unpack(w, &q, 1)?, unpack(w, &q, 2)?)
        }
        (Some(k), None) if w.t.shape(k).len() == 5 && bias.is_none() => {
            let k = k.clone();
            (w.heads(&q, heads)?, unpack(w, &k, 0)?, unpack(w, &k, 1)?)
        }
        (Some(k), Some(v)) => {
            let (k, v) = (k.clone(), v.clone());
            (own(w, &q, 0)?, own(w, &k, 1)?, own(w, &v, 2)?)
        }
        _ => not_read!("queries, keys and values in this form"),
    };
    let fill = n.float("mask_filter_value", -10_000.0)?;
    let mask = match n.optional(4) {
        Some(mask) => Some(key_mask(w, &mask.clone(), fill)?),
        None => None,
    };
    let mask = add_masks(w, mask, n.optional(5).cloned())?;
    let scores = scores(n, mask)?;
    let y = w.attention(&query, &key, &value, &scores)?;
    Ok(vec![w.tokens(&y)?])
}

/// As in opset 23, but for the order of inputs; one id is the first of a run.
fn rotary(w: &mut Walk, n: &Node) -> Made {
    let (x, ids) = (n.input(0)?.clone(), n.input(1)?.clone());
    let (cos, sin) = (n.input(2)?.clone(), n.input(3)?.clone());
    if n.float("scale", 1.0)? != 1.0 || n.int("is_packed_batching", 0)? != 0 {
        not_read!("scale and is_packed_batching");
    }
    let flat = w.t.shape(&x).len() == 3;
    let table_width = 2 * w.t.shape(&cos).last().copied().unwrap_or(0);
    let heads = match size(n.int("num_heads", 0)?, "heads:")? {
        0 if flat && table_width > 0 => w.t.shape(&x)[2] / table_width,
        heads => heads,
    };
    let x = if flat { w.heads(&x, heads)? } else { x };
    let [batch, _, tokens, _] = w.t.shape(&x)[..] else { broken!("heads {:?}", w.t.shape(&x)) };
    let ids = if w.t.ty(&ids).elements() == 1 && batch * tokens > 1 {
        let first = w.integers(&ids, "the first position")?[0];
        let values = (0..tokens as i64).map(|i| (first + i) as f64).collect();
        w.known(DType::I64, &[1, tokens], values)?
    } else {
        ids
    };
    let (cos, sin) = (by_ids(w, &cos, &ids)?, by_ids(w, &sin, &ids)?);
    let (cos, sin) = (spread(w, &cos)?, spread(w, &sin)?);
    let y = w.rotated(&x, &cos, &sin, n.int("interleaved", 0)? != 0)?;
    Ok(vec![if flat { w.tokens(&y)? } else { y }])
}

/// A product with a weight of 4-bit integers in blocks along its inputs.
fn matmul_n_bits(w: &mut Walk, n: &Node) -> Made {
    let int = |name: &'static str| size(n.int(name, 0)?, name);
    let (inputs, outputs, block) = (int("K")?, int("N")?, int("block_size")?);
    if n.int("bits", 4)? != 4 {
        not_read!("{} bits", n.int("bits", 4)?);
    }
    if n.optional(4).is_some() {
        not_read!("inputs in another order (g_idx)");
    }
    if inputs == 0 || outputs == 0 || block < 2 || block % 2 != 0 {
        broken!("{outputs}×{inputs} in blocks of {block}");
    }
    let blocks = inputs.div_ceil(block);
    let codes = nibbles(w, n, 1, &[outputs, blocks, block])?;
    let zero = match n.optional(3) {
        None => w.t.scalar(DType::F32, 8.0),
        Some(zero) if w.t.ty(zero).dtype.is_float() => w.t.reshape(&zero.clone(), &[outputs, blocks, 1])?,
        Some(_) => {
            let even = blocks.next_multiple_of(2);
            let all = nibbles(w, n, 3, &[outputs, even])?;
            let own = w.part(&all, 1, 0, blocks)?;
            w.t.reshape(&own, &[outputs, blocks, 1])?
        }
    };
    let scale = w.t.reshape(n.input(2)?, &[outputs, blocks, 1])?;
    let y = w.binary(Binary::Sub, &codes, &zero)?;
    let y = w.binary(Binary::Mul, &y, &scale)?;
    let weight = w.t.reshape(&y, &[outputs, blocks * block])?;
    let weight = w.part(&weight, 1, 0, inputs)?;
    let bias = n.optional(5).cloned();
    Ok(vec![w.linear(n.input(0)?, &weight, bias.as_ref())?])
}

/// A stored tensor of bytes as the 4-bit numbers in them.
fn nibbles(w: &mut Walk, n: &Node, input: usize, shape: &[usize]) -> Result<Value, Stop> {
    let x = n.input(input)?.clone();
    let Value::Graph(v) = &x else { not_read!("a weight that is no tensor of the file") };
    let Op::Load(load) = w.t.f.op(*v) else { not_read!("a weight that is no tensor of the file") };
    let name = load.tensor.clone();
    let Some((name, ty)) = w.weights.as_nibbles(&name, shape) else {
        broken!("input {input} is {}, which is not {shape:?} in 4 bits", w.t.ty(&x));
    };
    let load = s2dit_ir::ops::Load { tensor: name };
    let v = w.t.f.add_leaf(load.into(), &ty, "").map(Value::Graph)?;
    w.as_numbers(&v)
}
