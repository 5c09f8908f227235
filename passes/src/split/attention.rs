//! Softmax attention over the chunk and a window of the past.

use s2dit_ir::ops::{Binary, Concat, Matmul, Slice, Softmax};
use s2dit_ir::{DType, Op, TensorType, ValueId};

use super::{HostInput, SplitError, Splitter, StateKind};

/// Fires on `matmul(softmax(scale·q·kᵀ), v)` whose keys and values depend on the chunk: self-attention.
pub(super) fn rewrite(s: &mut Splitter, v: ValueId) -> Result<(), SplitError> {
    let f = &s.f;
    let Op::Matmul(Matmul { transpose_x: false, transpose_y: false }) = f.op(v) else { return Ok(()) };
    let [weights, value] = f.operands(v)[..] else { return Ok(()) };
    let Op::Softmax(Softmax { axis }) = *f.op(weights) else { return Ok(()) };
    let scaled = f.operands(weights)[0];
    // The scale may be a constant factor on either side, or absent.
    let (scores, scale) = match f.op(scaled) {
        Op::Binary(Binary::Mul) => {
            let [a, b] = f.operands(scaled)[..] else { return Ok(()) };
            if f.is_const(b) {
                (a, Some(b))
            } else if f.is_const(a) {
                (b, Some(a))
            } else {
                return Ok(());
            }
        }
        _ => (scaled, None),
    };
    let Op::Matmul(Matmul { transpose_x: false, transpose_y: true }) = f.op(scores) else { return Ok(()) };
    let [query, key] = f.operands(scores)[..] else { return Ok(()) };
    if !s.depends(key) || !s.depends(value) || f.ty(key).rank() != 4 || axis != 3 || s.options.window_frames == 0 {
        return Ok(());
    }

    let scope = f.node(v).scope.to_string();
    let own = f.shape(key)[2];
    if !own.is_multiple_of(s.frames) {
        return Err(SplitError::Tokens { scope, tokens: own, frames: s.frames });
    }
    let per_frame = own / s.frames;
    let window = s.options.window_frames * per_frame;
    let keys = extend(s, &scope, "keys", key, window)?;
    let values = extend(s, &scope, "values", value, window)?;

    let mask_ty = TensorType::new(DType::F32, [1, 1, 1, window + own]);
    let kind = HostInput::WindowMask { window_tokens: window, tokens_per_frame: per_frame, own_tokens: own };
    let mask = s.host_input(&format!("mask_{own}"), kind, &mask_ty);
    let f = &mut s.f;
    let mut y = f.add(Matmul { transpose_x: false, transpose_y: true }.into(), &[query, keys], &scope)?;
    if let Some(scale) = scale {
        y = f.add(Binary::Mul.into(), &[y, scale], &scope)?;
    }
    let y = f.add(Binary::Add.into(), &[y, mask], &scope)?;
    let y = f.add(Softmax { axis }.into(), &[y], &scope)?;
    let y = f.add(Matmul { transpose_x: false, transpose_y: false }.into(), &[y, values], &scope)?;
    f.replace_uses(v, y);
    Ok(())
}

/// `[window own]` along the tokens; the window moves on by keeping the last tokens.
fn extend(s: &mut Splitter, scope: &str, what: &str, own: ValueId, window: usize) -> Result<ValueId, SplitError> {
    let mut ty = s.f.ty(own).clone();
    ty.shape[2] = window;
    let (name, past) = s.state(scope, what, StateKind::Window, &ty)?;
    let all = s.f.add(Concat { axis: 2 }.into(), &[past, own], scope)?;
    let tokens = s.f.shape(all)[2];
    let last = Slice::axis(s.f.shape(all), 2, tokens - window, tokens);
    let last = s.f.add(last.into(), &[all], scope)?;
    s.updates.push((name, last));
    Ok(all)
}
