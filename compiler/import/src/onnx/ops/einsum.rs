//! Einsum of one or two operands as transposes, a matrix product and sums.

use s2dit_ir::ops::{Binary, ReduceKind};

use super::Handler;
use crate::Value;
use crate::onnx::node::{Made, Node, Stop, broken, not_read};
use crate::onnx::walk::Walk;

pub(super) fn handler(op: &str) -> Option<Handler> {
    (op == "Einsum").then_some(einsum as Handler)
}

/// An operand whose axes have letters.
struct Labelled {
    value: Value,
    letters: Vec<char>,
}

fn einsum(w: &mut Walk, n: &Node) -> Made {
    let equation: String = n.text("equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    let (inputs, output) = match equation.split_once("->") {
        Some((inputs, output)) => (inputs.to_owned(), output.to_owned()),
        None => {
            let mut letters: Vec<char> = equation.chars().filter(char::is_ascii_alphabetic).collect();
            letters.sort_unstable();
            let once = |c: &char| letters.iter().filter(|d| *d == c).count() == 1;
            let once = letters.iter().copied().filter(once).collect::<String>();
            let dots = if equation.contains('.') { "..." } else { "" };
            (equation.clone(), format!("{dots}{once}"))
        }
    };
    let terms: Vec<&str> = inputs.split(',').collect();
    if terms.len() != n.inputs.len() {
        broken!("`{equation}` of {} inputs", n.inputs.len());
    }
    if terms.len() > 2 {
        not_read!("`{equation}`: more than two operands");
    }
    // Axes of the ellipsis are called by digits, from the last.
    let mut wide = 0;
    let mut operands = Vec::new();
    for (i, term) in terms.iter().enumerate() {
        let value = n.input(i)?.clone();
        let rank = w.t.shape(&value).len();
        let (letters, dots) = letters(term, rank, &equation)?;
        wide = wide.max(dots);
        operands.push(diagonal(w, Labelled { value, letters })?);
    }
    let (result, _) = letters(&output, output.chars().filter(char::is_ascii_alphabetic).count() + wide, &equation)?;
    let all: Vec<char> = operands.iter().flat_map(|o| o.letters.iter().copied()).collect();
    if result.iter().any(|c| !all.contains(c)) || (1..result.len()).any(|i| result[..i].contains(&result[i])) {
        broken!("`{equation}`: the result has a letter twice or one of no operand");
    }
    let mut made = match <[Labelled; 2]>::try_from(operands) {
        Ok([a, b]) => pair(w, a, b, &result)?,
        Err(mut one) => one.pop().ok_or_else(|| Stop::Broken("no operands".into()))?,
    };
    made = summed(w, made, &|c| result.contains(&c))?;
    Ok(vec![arranged(w, &made, &result)?])
}

/// The letters of a term's axes, those of an ellipsis as digits.
fn letters(term: &str, rank: usize, equation: &str) -> Result<(Vec<char>, usize), Stop> {
    let (before, after) = match term.split_once("...") {
        None => (term, None),
        Some((before, after)) => (before, Some(after)),
    };
    let plain = before.chars().chain(after.unwrap_or_default().chars());
    if !plain.clone().all(|c| c.is_ascii_alphabetic()) {
        broken!("`{equation}`: term `{term}`");
    }
    let named = plain.count();
    let dots = match (rank.checked_sub(named), after) {
        (Some(0), None) => 0,
        (Some(dots), Some(_)) if dots <= 9 => dots,
        _ => broken!("`{equation}`: term `{term}` of rank {rank}"),
    };
    let digits = (0..dots).rev().filter_map(|i| char::from_digit(i as u32, 10));
    Ok((before.chars().chain(digits).chain(after.unwrap_or_default().chars()).collect(), dots))
}

fn diagonal(_: &mut Walk, x: Labelled) -> Result<Labelled, Stop> {
    if (1..x.letters.len()).any(|i| x.letters[..i].contains(&x.letters[i])) {
        not_read!("a letter twice in an operand: a diagonal");
    }
    Ok(x)
}

/// Sums over the axes that are not kept.
fn summed(w: &mut Walk, x: Labelled, keeps: &dyn Fn(char) -> bool) -> Result<Labelled, Stop> {
    let gone: Vec<usize> = (0..x.letters.len()).filter(|i| !keeps(x.letters[*i])).collect();
    let value = w.reduce(ReduceKind::Sum, &x.value, &gone, false)?;
    Ok(Labelled { value, letters: x.letters.into_iter().filter(|c| keeps(*c)).collect() })
}

/// The axes of a value in this order; letters that it does not have are axes of extent 1.
fn arranged(w: &mut Walk, x: &Labelled, order: &[char]) -> Result<Value, Stop> {
    let there: Vec<usize> = order.iter().filter_map(|c| x.letters.iter().position(|d| d == c)).collect();
    let y = w.t.transpose(&x.value, &there)?;
    let shape = w.t.shape(&x.value);
    let side = |c: &char| x.letters.iter().position(|d| d == c).map_or(1, |at| shape[at]);
    Ok(w.t.reshape(&y, &order.iter().map(side).collect::<Vec<_>>())?)
}

/// The product of two operands. The last axis of the result that only one of them has is a matrix's rows or columns, axes that are summed over are
/// its inner side, and all others are in front, where those of one operand are of extent 1 in the other.
fn pair(w: &mut Walk, a: Labelled, b: Labelled, result: &[char]) -> Result<Labelled, Stop> {
    let a = summed(w, a, &|c| b.letters.contains(&c) || result.contains(&c))?;
    let b = summed(w, b, &|c| a.letters.contains(&c) || result.contains(&c))?;
    let contracted: Vec<char> =
        a.letters.iter().copied().filter(|c| b.letters.contains(c) && !result.contains(c)).collect();
    if contracted.is_empty() {
        // A product element by element.
        let (x, y) = (arranged(w, &a, result)?, arranged(w, &b, result)?);
        return Ok(Labelled { value: w.binary(Binary::Mul, &x, &y)?, letters: result.to_vec() });
    }
    let own = |x: &Labelled, other: &Labelled| -> Option<char> {
        result.iter().rev().copied().find(|c| x.letters.contains(c) && !other.letters.contains(c))
    };
    let place = |c: Option<char>| result.iter().position(|d| Some(*d) == c);
    // The operand with the rows of the result comes first, so that the product is not transposed.
    let (a, b) = if place(own(&a, &b)) > place(own(&b, &a)) && own(&b, &a).is_some() { (b, a) } else { (a, b) };
    let (row, column) = (own(&a, &b), own(&b, &a));
    let batch: Vec<char> = result.iter().copied().filter(|c| Some(*c) != row && Some(*c) != column).collect();
    let extents = |w: &Walk, x: &Labelled, of: &[char]| -> Vec<usize> {
        let shape = w.t.shape(&x.value);
        of.iter().map(|c| x.letters.iter().position(|d| d == c).map_or(1, |at| shape[at])).collect()
    };
    let inner = extents(w, &a, &contracted);
    if inner != extents(w, &b, &contracted) {
        broken!("axes that are summed over have extents {inner:?} and {:?}", extents(w, &b, &contracted));
    }
    let depth: usize = inner.iter().product();
    let side = |w: &Walk, x: &Labelled, letter: Option<char>| letter.map_or(1, |c| extents(w, x, &[c])[0]);
    let (rows, columns) = (side(w, &a, row), side(w, &b, column));
    let x = arranged(w, &a, &batch.iter().copied().chain(row).chain(contracted.clone()).collect::<Vec<_>>())?;
    let x = w.t.reshape(&x, &[&extents(w, &a, &batch)[..], &[rows, depth]].concat())?;
    let y = arranged(w, &b, &batch.iter().copied().chain(column).chain(contracted).collect::<Vec<_>>())?;
    let lead = extents(w, &b, &batch);
    // A matrix for all is a layer's.
    let lead = if lead.iter().all(|n| *n == 1) { &[][..] } else { &lead[..] };
    let y = w.t.reshape(&y, &[lead, &[columns, depth]].concat())?;
    let y = w.turned(&y)?;
    let z = w.matmul(&x, &y)?;
    let front = w.t.shape(&z);
    let shape: Vec<usize> =
        front[..front.len() - 2].iter().copied().chain(row.map(|_| rows)).chain(column.map(|_| columns)).collect();
    let value = w.t.reshape(&z, &shape)?;
    Ok(Labelled { value, letters: batch.into_iter().chain(row).chain(column).collect() })
}
