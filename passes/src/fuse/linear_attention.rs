//! Linear attention over all tokens.

use s2dit_ir::ops::{LinearAttention, OpError, Transpose};
use s2dit_ir::{Function, Op, ValueId};

use super::{Rule, one_axis};
use crate::pattern::Match;

pub(super) const RULE: Rule = Rule {
    name: "linear_attention",
    formulas: &[
        "(q @ (k.T @ v)) / ((qn @ sum[tokens](kn).T) + eps) where eps: number",
        "(q @ (k.T @ v)) / (sum[width](qn * sum[tokens](kn)) + eps) where eps: number",
        // As the layout of the Neural Engine has it where features may all be zero.
        "(q @ (k.T @ v)) / maximum(qn @ sum[tokens](kn).T, least) where least: number",
        "(q @ (k.T @ v)) / maximum(sum[width](qn * sum[tokens](kn)), least) where least: number",
        // Of columns, as the class of SANA has it: everything is transposed.
        "((vt @ kt.T) @ qt) * (1 / ((sum[tokens](knt).T @ qnt) + eps)) where eps: number",
        "((vt @ kt.T) @ qt) / ((sum[tokens](knt).T @ qnt) + eps) where eps: number",
        "((vt @ kt.T) @ qt) * (1 / (sum[tokens](knt).T @ qnt))",
    ],
    near: 4,
    build,
};

fn build(f: &mut Function, m: &Match, scope: &str) -> Result<ValueId, OpError> {
    if m.get("vt").is_some() {
        return of_columns(f, m, scope);
    }
    let mut operands = vec![m.value(f, "q")?, m.value(f, "k")?, m.value(f, "v")?];
    if m.get("q") != m.get("qn") || m.get("k") != m.get("kn") {
        operands.extend([m.value(f, "qn")?, m.value(f, "kn")?]);
    }
    let rank = f.ty(operands[1]).rank();
    if one_axis(m.axes("tokens")?)? + 2 != rank {
        return Err(OpError::new(format!("the normaliser sums axes {:?}, not the tokens", m.axes("tokens")?)));
    }
    if let Ok(width) = m.axes("width")
        && one_axis(width)? + 1 != rank
    {
        return Err(OpError::new(format!("the normaliser's product sums axes {width:?}, not the width")));
    }
    let attention = match m.number("eps") {
        Ok(eps) => LinearAttention { eps, least: 0.0 },
        Err(_) => LinearAttention { eps: 0.0, least: m.number("least")? },
    };
    f.add(attention.into(), &operands, scope)
}

/// The op on rows, transposed back into columns.
fn of_columns(f: &mut Function, m: &Match, scope: &str) -> Result<ValueId, OpError> {
    let tokens = one_axis(m.axes("tokens")?)?;
    let mut names = vec!["qt", "kt", "vt"];
    if m.get("qt") != m.get("qnt") || m.get("kt") != m.get("knt") {
        names.extend(["qnt", "knt"]);
    }
    let operands = names
        .into_iter()
        .map(|name| {
            let columns = m.value(f, name)?;
            swapped(f, columns)
        })
        .collect::<Result<Vec<_>, _>>()?;
    if tokens + 1 != f.ty(operands[1]).rank() {
        return Err(OpError::new(format!("the normaliser sums axis {tokens}, not the tokens")));
    }
    let rows = f.add(LinearAttention { eps: m.number("eps").unwrap_or(0.0), least: 0.0 }.into(), &operands, scope)?;
    swapped(f, rows)
}

/// A value with its last two axes swapped; two transposes in a row are one, or none.
fn swapped(f: &mut Function, v: ValueId) -> Result<ValueId, OpError> {
    let (scope, rank) = (f.node(v).scope.to_string(), f.ty(v).rank());
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 2, rank - 1);
    let (inner, perm) = match f.op(v) {
        Op::Transpose(Transpose { perm: first }) => (f.operands(v)[0], perm.iter().map(|&p| first[p]).collect()),
        _ => (v, perm),
    };
    if perm.iter().copied().eq(0..rank) { Ok(inner) } else { f.add(Transpose { perm }.into(), &[inner], &scope) }
}
