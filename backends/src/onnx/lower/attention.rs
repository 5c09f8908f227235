//! Scaled dot-product attention as ONNX's `Attention`, of opset 23.

use std::collections::{HashMap, HashSet};

use anyhow::{Result, ensure};
use s2dit_ir::ops::{Op, Sdpa};
use s2dit_ir::{Function, Use, ValueId};

use super::{Lowering, float, int};

/// Attention between tokens `[B, N, A·d]`: the op splits heads and joins them itself, which spares four transposes.
pub(super) struct OfTokens {
    sdpa: ValueId,
    tokens: [ValueId; 3],
    heads: usize,
}

/// Values that are computed as such attention, and those that are so no more.
pub(super) fn of_tokens(f: &Function, order: &[ValueId]) -> (HashMap<ValueId, OfTokens>, HashSet<ValueId>) {
    let (mut found, mut absorbed) = (HashMap::new(), HashSet::new());
    for &v in order {
        let Some((attention, inside)) = match_tokens(f, v) else { continue };
        found.insert(v, attention);
        absorbed.extend(inside);
    }
    // Heads that others read too are still computed.
    let replaced = |v: ValueId| found.contains_key(&v);
    let mut kept = absorbed.clone();
    for &v in order.iter().rev().filter(|v| absorbed.contains(v)) {
        let inside = |read: &Use| matches!(read, Use::Operand { user, .. } if kept.contains(user) || replaced(*user));
        if f.node(v).name.is_some() || !f.uses(v).iter().all(inside) {
            kept.remove(&v);
        }
    }
    (found, kept)
}

/// `v` is the heads of an attention, joined; what is inside it.
fn match_tokens(f: &Function, v: ValueId) -> Option<(OfTokens, Vec<ValueId>)> {
    let sole = |x: ValueId| f.only_use(x).is_some();
    let joined = matches!(f.op(v), Op::Reshape(_)).then(|| f.operands(v)[0]).filter(|&x| sole(x))?;
    let sdpa = swapped(f, joined).filter(|&x| sole(x))?;
    let Op::Sdpa(_) = f.op(sdpa) else { return None };
    let [q, k, value] = f.operands(sdpa)[..] else { return None };
    let [batch, heads, n, d] = f.shape(sdpa)[..] else { return None };
    if f.shape(v) != [batch, n, heads * d] {
        return None;
    }
    let mut inside = vec![joined, sdpa];
    let mut tokens = [q; 3];
    for (token, x) in tokens.iter_mut().zip([q, k, value]) {
        let split = swapped(f, x)?;
        let Op::Reshape(_) = f.op(split) else { return None };
        *token = f.operands(split)[0];
        let [b, a, m, width] = f.shape(x)[..] else { return None };
        if b != batch || a != heads || f.shape(*token) != [b, m, a * width] {
            return None;
        }
        inside.extend([x, split]);
    }
    Some((OfTokens { sdpa, tokens, heads }, inside))
}

/// The operand of a transpose that swaps heads and tokens, if `x` is one.
fn swapped(f: &Function, x: ValueId) -> Option<ValueId> {
    matches!(f.op(x), Op::Transpose(t) if t.perm == [0, 2, 1, 3]).then(|| f.operands(x)[0])
}

impl Lowering<'_> {
    pub(super) fn attention_of_tokens(&mut self, v: ValueId, attention: &OfTokens) -> Result<()> {
        let Op::Sdpa(Sdpa { scale }) = self.f.op(attention.sdpa) else { return Ok(()) };
        let heads = attention.heads as i64;
        let attributes = vec![float("scale", *scale), int("q_num_heads", heads), int("kv_num_heads", heads)];
        let inputs: Vec<String> = attention.tokens.iter().map(|&t| self.stored(t)).collect::<Result<_>>()?;
        self.opset = 23;
        self.emit(v, "Attention", &inputs, attributes);
        Ok(())
    }

    pub(super) fn sdpa(&mut self, v: ValueId, sdpa: &Sdpa) -> Result<()> {
        let operands = self.f.operands(v);
        let same = operands.iter().all(|&o| self.f.ty(o).rank() == 4 && self.f.shape(o)[..2] == self.f.shape(v)[..2]);
        ensure!(operands.len() == 3 && same, "attention of another form than ONNX takes");
        let inputs = self.operands(v)?;
        self.opset = 23;
        self.emit(v, "Attention", &inputs, vec![float("scale", sdpa.scale)]);
        Ok(())
    }
}
