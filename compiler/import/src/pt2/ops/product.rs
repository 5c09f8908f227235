//! Products of matrices.
//!
//! `run_decompositions()` writes products of rank 2 and 3 around reshapes. Where the reshape only merged leading axes, the product is written at
//! the rank that the tensor had before: the reshapes cancel, and the graph is that of a program that was not decomposed.

use std::collections::HashMap;

use s2dit_ir::ops::{Binary, Linear, Matmul, ReduceKind, Transpose};
use s2dit_ir::{DType, Op, OpError};

use super::super::call::Call;
use super::super::walk::{Slot, Walk};
use super::Group;
use crate::{Traced, Value};

pub(super) const OPS: Group = &[
    ("aten.linear.default", linear),
    ("aten.addmm.default", addmm),
    ("aten.mm.default", |w, c| product(w, c, "self", "mat2")),
    ("aten.bmm.default", |w, c| product(w, c, "self", "mat2")),
    ("aten.matmul.default", |w, c| product(w, c, "self", "other")),
    ("aten.mv.default", |w, c| product(w, c, "self", "vec")),
    ("aten.dot.default", |w, c| product(w, c, "self", "tensor")),
    ("aten.baddbmm.default", baddbmm),
    ("aten.outer.default", outer),
    ("aten.einsum.default", einsum),
];

type Read = Result<Vec<Slot>, OpError>;

/// `x·Wᵀ + b`
pub(super) fn connected(w: &mut Walk<'_>, x: &Value, weight: &Value, bias: Option<&Value>) -> Traced {
    let x = w.cast(x, DType::F32)?;
    // A single token without axes of its own.
    let shape = w.t.shape(&x);
    let operands: Vec<&Value> = [&x, weight].into_iter().chain(bias).collect();
    if shape.is_empty() {
        return Err(OpError::new("a layer of a number"));
    }
    w.t.op(Linear {}, &operands)
}

fn linear(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, weight, bias) = (c.tensor(w, "input")?, c.tensor(w, "weight")?, c.tensor_or_none(w, "bias")?);
    Ok(c.one(connected(w, &x, &weight, bias.as_ref())?))
}

/// The weight `[out, in]` if a matrix `[in, out]`, or such a matrix alone in a batch, is its transpose and a constant.
fn transposed_weight(w: &Walk<'_>, matrix: &Value) -> Option<Value> {
    let Value::Graph(mut v) = *matrix else { return None };
    while let ([1, _, _], Op::Reshape(_)) = (w.t.f.shape(v), w.t.f.op(v)) {
        v = *w.t.f.operands(v).first()?;
    }
    let is_transpose = matches!(w.t.f.op(v), Op::Transpose(Transpose { perm }) if perm[..] == [1, 0]);
    let weight = *w.t.f.operands(v).first()?;
    (is_transpose && w.t.f.is_const(weight)).then_some(Value::Graph(weight))
}

/// The tensor of which a matrix is a view that merges all axes but the last, and its leading axes.
fn unmerged(w: &Walk<'_>, matrix: &Value) -> Option<(Value, Vec<usize>)> {
    let inner = w.operand_of(matrix, |op| matches!(op, Op::Reshape(_)))?;
    let (shape, of) = (w.t.shape(matrix), w.t.shape(&inner));
    let (last, lead) = of.split_last()?;
    (of.len() > shape.len() && shape.last() == Some(last)).then(|| (inner, lead.to_vec()))
}

/// `x·m + b` of matrices, as a layer if `m` is a transposed weight.
fn of_matrices(w: &mut Walk<'_>, x: &Value, m: &Value, bias: Option<&Value>) -> Traced {
    if let Some(weight) = transposed_weight(w, m)
        && bias.is_none_or(|bias| w.t.shape(bias).len() == 1)
    {
        let shape = [w.t.shape(x)[0], w.t.shape(m)[1]];
        let (x, _) = unmerged(w, x).unwrap_or_else(|| (x.clone(), Vec::new()));
        let y = connected(w, &x, &weight, bias)?;
        return w.t.reshape(&y, &shape);
    }
    let y = w.product(x, m)?;
    match bias {
        Some(bias) => w.binary(Binary::Add, &y, bias),
        None => Ok(y),
    }
}

/// `beta·self + alpha·mat1·mat2`
fn addmm(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (bias, x, m) = (c.tensor(w, "self")?, c.tensor(w, "mat1")?, c.tensor(w, "mat2")?);
    let (beta, alpha) = (c.number(w, "beta", Some(1.0))?, c.number(w, "alpha", Some(1.0))?);
    if (beta, alpha) == (1.0, 1.0) {
        return Ok(c.one(of_matrices(w, &x, &m, Some(&bias))?));
    }
    let y = of_matrices(w, &x, &m, None)?;
    Ok(c.one(weighted(w, &bias, beta, &y, alpha)?))
}

fn baddbmm(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (bias, x, m) = (c.tensor(w, "self")?, c.tensor(w, "batch1")?, c.tensor(w, "batch2")?);
    let (beta, alpha) = (c.number(w, "beta", Some(1.0))?, c.number(w, "alpha", Some(1.0))?);
    let y = w.product(&x, &m)?;
    Ok(c.one(weighted(w, &bias, beta, &y, alpha)?))
}

fn weighted(w: &mut Walk<'_>, x: &Value, a: f64, y: &Value, b: f64) -> Traced {
    let y = w.with_number(Binary::Mul, y, b)?;
    // torch ignores x then, even if it is NaN: often it is empty memory.
    if a == 0.0 {
        return Ok(y);
    }
    let x = w.with_number(Binary::Mul, x, a)?;
    w.binary(Binary::Add, &y, &x)
}

fn product(w: &mut Walk<'_>, c: &Call<'_>, x: &str, y: &str) -> Read {
    let (x, y) = (c.tensor(w, x)?, c.tensor(w, y)?);
    if w.t.shape(&x).len() == 2 && w.t.shape(&y).len() == 2 {
        return Ok(c.one(of_matrices(w, &x, &y, None)?));
    }
    if let (Some(weight), [1, _, _]) = (transposed_weight(w, &y), &w.t.shape(&x)[..]) {
        return Ok(c.one(connected(w, &x, &weight, None)?));
    }
    Ok(c.one(w.product(&x, &y)?))
}

impl Walk<'_> {
    /// A layer whose bias is added behind it, as one layer: `x·Wᵀ` and `b`.
    pub(in super::super) fn with_bias(&mut self, product: &Value, bias: &Value) -> Result<Option<Value>, OpError> {
        let (Value::Graph(mut layer), Value::Graph(bias)) = (product.clone(), bias.clone()) else { return Ok(None) };
        let shape = self.t.f.shape(layer).to_vec();
        while let (Op::Reshape(_), Some(&inner)) = (self.t.f.op(layer), self.t.f.operands(layer).first()) {
            if self.t.f.shape(inner).last() != shape.last() {
                return Ok(None);
            }
            layer = inner;
        }
        let (Op::Linear(_), &[x, weight]) = (self.t.f.op(layer), &self.t.f.operands(layer)[..]) else {
            return Ok(None);
        };
        if !self.t.f.is_const(bias) || self.t.f.shape(bias).len() != 1 || self.t.f.shape(bias).last() != shape.last() {
            return Ok(None);
        }
        let y = self.t.op(Linear {}, &[&Value::Graph(x), &Value::Graph(weight), &Value::Graph(bias)])?;
        self.t.reshape(&y, &shape).map(Some)
    }

    /// The operand of a computed value whose op is of a kind.
    pub(in super::super) fn operand_of(&self, value: &Value, is: impl Fn(&Op) -> bool) -> Option<Value> {
        let Value::Graph(v) = value else { return None };
        is(self.t.f.op(*v)).then(|| self.t.f.operands(*v).first().copied().map(Value::Graph))?
    }

    /// `torch.matmul`: vectors count as matrices of one row or column, leading axes broadcast.
    pub(in super::super) fn product(&mut self, x: &Value, y: &Value) -> Traced {
        let (x, y) = (self.cast(x, DType::F32)?, self.cast(y, DType::F32)?);
        let (a, b) = (self.t.shape(&x), self.t.shape(&y));
        match (a.len(), b.len()) {
            (0, _) | (_, 0) => Err(OpError::new("a product with a number")),
            (1, _) => {
                let x = self.t.reshape(&x, &[1, a[0]])?;
                let product = self.product(&x, &y)?;
                let mut shape = self.t.shape(&product);
                let row = shape.len() - if b.len() == 1 { 1 } else { 2 };
                shape.remove(row);
                self.t.reshape(&product, &shape)
            }
            (_, 1) => {
                let y = self.t.reshape(&y, &[b[0], 1])?;
                let product = self.product(&x, &y)?;
                let mut shape = self.t.shape(&product);
                shape.pop();
                self.t.reshape(&product, &shape)
            }
            (3, 3) => match self.of_higher_rank(&x, &y)? {
                Some(product) => Ok(product),
                None => self.plain_product(&x, &y),
            },
            _ => self.plain_product(&x, &y),
        }
    }

    fn plain_product(&mut self, x: &Value, y: &Value) -> Traced {
        self.t.op(Matmul { transpose_x: false, transpose_y: false }, &[x, y])
    }

    /// A product of rank 3 whose operands are views that merge the leading axes of tensors of higher rank.
    fn of_higher_rank(&mut self, x: &Value, y: &Value) -> Result<Option<Value>, OpError> {
        let (Some(a), Some(b)) = (self.unmerged_batch(x), self.unmerged_batch(y)) else { return Ok(None) };
        let (lead_a, lead_b) = (self.t.shape(&a), self.t.shape(&b));
        let lead = |shape: &[usize]| shape[..shape.len() - 2].to_vec();
        if lead(&lead_a) != lead(&lead_b) {
            return Ok(None);
        }
        let shape = [self.t.shape(x)[0], self.t.shape(x)[1], self.t.shape(y)[2]];
        let product = self.plain_product(&a, &b)?;
        self.t.reshape(&product, &shape).map(Some)
    }

    /// The tensor of higher rank of which a batch of matrices is a view with its leading axes merged.
    fn unmerged_batch(&self, batch: &Value) -> Option<Value> {
        let inner = self.operand_of(batch, |op| matches!(op, Op::Reshape(_)))?;
        let (shape, of) = (self.t.shape(batch), self.t.shape(&inner));
        (of.len() > shape.len() && of[of.len() - 2..] == shape[1..]).then_some(inner)
    }
}

fn outer(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, y) = (c.tensor(w, "self")?, c.tensor(w, "vec2")?);
    let column = [w.t.shape(&x), vec![1]].concat();
    let x = w.t.reshape(&x, &column)?;
    Ok(c.one(w.binary(Binary::Mul, &x, &y)?))
}

/// A term of an einsum: its letters, and a value with an axis for each.
struct Term {
    letters: Vec<char>,
    value: Value,
}

fn einsum(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let equation: String = c.text("equation", "")?.chars().filter(|x| !x.is_whitespace()).collect();
    let values = c.tensors(w, "tensors")?;
    let (inputs, output) = match equation.split_once("->") {
        Some((inputs, output)) => (inputs.to_owned(), output.to_owned()),
        None => {
            // Letters that occur once, in order of the alphabet.
            let mut counts: HashMap<char, usize> = HashMap::new();
            equation.chars().filter(|x| x.is_alphabetic()).for_each(|x| *counts.entry(x).or_default() += 1);
            let mut once: Vec<char> = counts.into_iter().filter(|(_, n)| *n == 1).map(|(x, _)| x).collect();
            once.sort_unstable();
            (equation.clone(), once.into_iter().collect())
        }
    };
    let unread = || OpError::new(format!("equation {equation:?}"));
    let output: Vec<char> = output.chars().collect();
    let mut terms = Vec::new();
    for (letters, value) in inputs.split(',').zip(&values) {
        let letters: Vec<char> = letters.chars().collect();
        let distinct = letters.iter().enumerate().all(|(i, x)| x.is_alphabetic() && !letters[..i].contains(x));
        if !distinct || letters.len() != w.t.shape(value).len() {
            return Err(unread());
        }
        let value = w.cast(value, DType::F32)?;
        terms.push(Term { letters, value });
    }
    if terms.len() != values.len() || terms.is_empty() {
        return Err(unread());
    }
    while terms.len() > 1 {
        let (x, y) = (terms.remove(0), terms.remove(0));
        let rest: Vec<char> =
            terms.iter().flat_map(|term| term.letters.iter().copied()).chain(output.clone()).collect();
        let term = contracted(w, x, y, &rest, terms.is_empty().then_some(&output[..]))?;
        terms.insert(0, term);
    }
    let only = terms.remove(0);
    let only = summed(w, only, &output)?;
    if only.letters.iter().any(|x| !output.contains(x)) || only.letters.len() != output.len() {
        return Err(unread());
    }
    let perm: Vec<usize> = output.iter().filter_map(|x| only.letters.iter().position(|y| x == y)).collect();
    Ok(c.one(w.t.transpose(&only.value, &perm)?))
}

/// A term with the letters that are not `kept` summed over.
fn summed(w: &mut Walk<'_>, term: Term, kept: &[char]) -> Result<Term, OpError> {
    let axes: Vec<usize> = term.letters.iter().enumerate().filter(|(_, x)| !kept.contains(x)).map(|(i, _)| i).collect();
    if axes.is_empty() {
        return Ok(term);
    }
    let value = w.reduced(ReduceKind::Sum, &term.value, &axes, false)?;
    Ok(Term { letters: term.letters.into_iter().filter(|x| kept.contains(x)).collect(), value })
}

/// The product of two terms over the letters that only they have; `wanted` is the order that is asked for at the end.
fn contracted(w: &mut Walk<'_>, x: Term, y: Term, rest: &[char], wanted: Option<&[char]>) -> Result<Term, OpError> {
    let kept = |other: &Term| [rest, &other.letters[..]].concat();
    let (keep_x, keep_y) = (kept(&y), kept(&x));
    let (x, y) = (summed(w, x, &keep_x)?, summed(w, y, &keep_y)?);
    let over: Vec<char> = x.letters.iter().copied().filter(|l| y.letters.contains(l) && !rest.contains(l)).collect();
    let order: Vec<char> = match wanted {
        Some(wanted) => wanted.to_vec(),
        None => {
            let mut order: Vec<char> = x.letters.iter().copied().filter(|l| !over.contains(l)).collect();
            order.extend(y.letters.iter().copied().filter(|l| !over.contains(l) && !x.letters.contains(l)));
            order
        }
    };
    // The columns of the product are the last letter, its rows the last one of the other term; what stands before them is a batch.
    let (x, y) = match order.last() {
        Some(last) if x.letters.contains(last) && !y.letters.contains(last) => (y, x),
        _ => (x, y),
    };
    let only = |term: &Term, other: &Term| -> Vec<char> {
        term.letters.iter().copied().filter(|l| !other.letters.contains(l)).collect()
    };
    let (rows, columns) = (only(&x, &y), only(&y, &x));
    let as_wanted = |kind: &[char]| -> Vec<char> { order.iter().copied().filter(|l| kind.contains(l)).collect() };
    let row: Vec<char> = as_wanted(&rows).last().copied().into_iter().collect();
    let column: Vec<char> = as_wanted(&columns).last().copied().into_iter().collect();
    let batch: Vec<char> = order.iter().copied().filter(|l| !row.contains(l) && !column.contains(l)).collect();
    let extent = |l: &char, term: &Term, w: &Walk<'_>| {
        term.letters.iter().position(|x| x == l).map_or(1, |axis| w.t.shape(&term.value)[axis])
    };
    let operand = |w: &mut Walk<'_>, term: &Term, tail: [&[char]; 2]| -> Traced {
        let present: Vec<char> = [&batch[..], tail[0], tail[1]].concat();
        let perm: Vec<usize> = present.iter().filter_map(|l| term.letters.iter().position(|x| x == l)).collect();
        let value = w.t.transpose(&term.value, &perm)?;
        let size = |letters: &[char], w: &Walk<'_>| letters.iter().map(|l| extent(l, term, w)).product::<usize>();
        let mut shape: Vec<usize> = batch.iter().map(|l| extent(l, term, w)).collect();
        shape.extend([size(tail[0], w), size(tail[1], w)]);
        // Leading axes of extent 1 are those of broadcasting.
        let used = shape.iter().position(|side| *side != 1).unwrap_or(shape.len() - 2).min(shape.len() - 2);
        let has_batch = batch.iter().any(|l| term.letters.contains(l));
        w.t.reshape(
            &value,
            if has_batch { &shape[first_letter(&batch, term)..] } else { &shape[used.max(batch.len())..] },
        )
    };
    let left = operand(w, &x, [&row, &over])?;
    let right = operand(w, &y, [&column, &over])?;
    let product = w.t.op(Matmul { transpose_x: false, transpose_y: true }, &[&left, &right])?;
    let letters = [batch.clone(), row, column].concat();
    let shape: Vec<usize> =
        letters.iter().map(|l| if x.letters.contains(l) { extent(l, &x, w) } else { extent(l, &y, w) }).collect();
    let value = w.t.reshape(&product, &shape)?;
    Ok(Term { letters, value })
}

/// The place of the first letter of a batch that a term has.
fn first_letter(batch: &[char], term: &Term) -> usize {
    batch.iter().position(|l| term.letters.contains(l)).unwrap_or(batch.len())
}
