//! Linear attention over all chunks so far, from means that never grow.

use s2dit_ir::ops::{Binary, Cast, Matmul, Reduce, ReduceKind};
use s2dit_ir::{DType, Function, Op, TensorType, ValueId};

use super::{HostInput, SplitError, Splitter, StateKind};

/// The operands of linear attention.
pub(super) struct LinearAttention {
    pub query: ValueId,
    pub key: ValueId,
    pub value: ValueId,
    /// The query and the key of the normaliser.
    pub query_n: ValueId,
    pub key_n: ValueId,
    sum: ValueId,
    norm: ValueId,
    eps: f64,
}

/// `(q·(kᵀ·v)) / (q'·(Σk')ᵀ + ε)` of heads `[1, A, N, d]`, if `v` is its root.
pub(super) fn find(f: &Function, v: ValueId) -> Option<LinearAttention> {
    let Op::Binary(Binary::Div) = f.op(v) else { return None };
    let [numerator, denominator] = f.operands(v)[..] else { return None };
    let Op::Matmul(Matmul { transpose_x: false, transpose_y: false }) = f.op(numerator) else { return None };
    let [query, sum] = f.operands(numerator)[..] else { return None };
    let Op::Matmul(Matmul { transpose_x: true, transpose_y: false }) = f.op(sum) else { return None };
    let [key, value] = f.operands(sum)[..] else { return None };
    let Op::Binary(Binary::Add) = f.op(denominator) else { return None };
    let [a, b] = f.operands(denominator)[..] else { return None };
    let (normaliser, eps) = if f.is_const(b) { (a, b) } else { (b, a) };
    let Op::Literal(eps) = f.op(eps) else { return None };
    let [eps] = eps.values[..] else { return None };
    let Op::Matmul(Matmul { transpose_x: false, transpose_y: true }) = f.op(normaliser) else { return None };
    let [query_n, norm] = f.operands(normaliser)[..] else { return None };
    let Op::Reduce(Reduce { kind: ReduceKind::Sum, keep_dims: true, axes }) = f.op(norm) else { return None };
    let key_n = f.operands(norm)[0];
    (*axes == [2] && f.ty(key).rank() == 4).then_some(LinearAttention {
        query,
        key,
        value,
        query_n,
        key_n,
        sum,
        norm,
        eps,
    })
}

/// Fires on linear attention whose sums are over the tokens of the chunk.
pub(super) fn rewrite(s: &mut Splitter, v: ValueId) -> Result<(), SplitError> {
    let Some(LinearAttention { query, key, query_n, key_n, sum, norm, eps, .. }) = find(&s.f, v) else { return Ok(()) };
    if !s.has_frames(key, 2) || !s.has_frames(key_n, 2) {
        return Ok(());
    }
    let f = &s.f;
    let scope = f.node(v).scope.to_string();
    let tokens = f.shape(key)[2] as f64;
    let one = TensorType::new(DType::F32, [1]);
    let past = s.host_input("past_weight", HostInput::PastWeight, &one);
    let new = s.host_input("new_weight", HostInput::NewWeight, &one);
    let sum = mean(s, &scope, "sum", sum, tokens, past, new)?;
    let norm = mean(s, &scope, "norm", norm, tokens, past, new)?;
    // Numerator and normaliser are scaled alike, and so is ε.
    let eps = s.literal(eps / tokens, &scope)?;
    let f = &mut s.f;
    let eps = f.add(Binary::Mul.into(), &[new, eps], &scope)?;
    let numerator = f.add(Matmul { transpose_x: false, transpose_y: false }.into(), &[query, sum], &scope)?;
    let normaliser = f.add(Matmul { transpose_x: false, transpose_y: true }.into(), &[query_n, norm], &scope)?;
    let denominator = f.add(Binary::Add.into(), &[normaliser, eps], &scope)?;
    let y = f.add(Binary::Div.into(), &[numerator, denominator], &scope)?;
    s.replace(v, y);
    Ok(())
}

/// The mean over the chunks so far: `past·state + new·(own sum / tokens)`. It is also the state's next value.
fn mean(
    s: &mut Splitter,
    scope: &str,
    what: &str,
    own: ValueId,
    tokens: f64,
    past: ValueId,
    new: ValueId,
) -> Result<ValueId, SplitError> {
    let ty = s.f.ty(own).clone();
    let half = ty.with_dtype(DType::F16);
    let (name, low, state) = if s.options.half_states {
        let (name, high) = s.state(scope, what, StateKind::Mean, &half)?;
        let (low_name, low) = s.state(scope, &format!("{what}_low"), StateKind::MeanLow, &half)?;
        let high = s.f.add(Cast { dtype: DType::F32 }.into(), &[high], scope)?;
        let low = s.f.add(Cast { dtype: DType::F32 }.into(), &[low], scope)?;
        (name, Some(low_name), s.f.add(Binary::Add.into(), &[high, low], scope)?)
    } else {
        let (name, state) = s.state(scope, what, StateKind::Mean, &ty)?;
        (name, None, state)
    };
    let per_token = s.literal(1.0 / tokens, scope)?;
    let f = &mut s.f;
    let own = f.add(Binary::Mul.into(), &[own, per_token], scope)?;
    let own = f.add(Binary::Mul.into(), &[own, new], scope)?;
    let state = f.add(Binary::Mul.into(), &[state, past], scope)?;
    let total = f.add(Binary::Add.into(), &[state, own], scope)?;
    match low {
        None => s.updates.push((name, total)),
        Some(low_name) => {
            let high = f.add(Cast { dtype: DType::F16 }.into(), &[total], scope)?;
            let back = f.add(Cast { dtype: DType::F32 }.into(), &[high], scope)?;
            let rest = f.add(Binary::Sub.into(), &[total, back], scope)?;
            let low = f.add(Cast { dtype: DType::F16 }.into(), &[rest], scope)?;
            s.updates.push((name, high));
            s.updates.push((low_name, low));
        }
    }
    Ok(total)
}
