//! Softmax attention over the chunk, a window of the past, and the stream's first frames.

use s2dit_ir::ops::{Binary, Concat, Matmul, Reshape, Slice, Softmax};
use s2dit_ir::{DType, Function, Op, TensorType, ValueId};

use super::{HostInput, SplitError, Splitter, StateKind};

/// The operands of softmax attention.
pub(super) struct Attention {
    pub query: ValueId,
    pub key: ValueId,
    pub value: ValueId,
    /// A constant factor of the scores.
    scale: Option<ValueId>,
    /// Axis of the softmax.
    axis: usize,
}

/// `matmul(softmax(scale·q·kᵀ), v)` of heads `[1, A, N, d]`, if `v` is its root. The scale may be a factor on either side, or absent.
pub(super) fn find(f: &Function, v: ValueId) -> Option<Attention> {
    let Op::Matmul(Matmul { transpose_x: false, transpose_y: false }) = f.op(v) else { return None };
    let [weights, value] = f.operands(v)[..] else { return None };
    let Op::Softmax(Softmax { axis: 3 }) = f.op(weights) else { return None };
    let scaled = f.operands(weights)[0];
    let (scores, scale) = match f.op(scaled) {
        Op::Binary(Binary::Mul) => {
            let [a, b] = f.operands(scaled)[..] else { return None };
            if f.is_const(b) {
                (a, Some(b))
            } else if f.is_const(a) {
                (b, Some(a))
            } else {
                return None;
            }
        }
        _ => (scaled, None),
    };
    let Op::Matmul(Matmul { transpose_x: false, transpose_y: true }) = f.op(scores) else { return None };
    let [query, key] = f.operands(scores)[..] else { return None };
    (f.ty(key).rank() == 4).then_some(Attention { query, key, value, scale, axis: 3 })
}

/// Fires on softmax attention whose keys and values have the tokens of the chunk: self-attention.
pub(super) fn rewrite(s: &mut Splitter, v: ValueId) -> Result<(), SplitError> {
    let Some(Attention { query, key, value, scale, axis }) = find(&s.f, v) else { return Ok(()) };
    let frames_of_past = s.options.sink_frames + s.options.window_frames;
    if !s.has_frames(key, 2) || !s.has_frames(value, 2) || frames_of_past == 0 {
        return Ok(());
    }
    let f = &s.f;
    let scope = f.node(v).scope.to_string();
    let own = f.shape(key)[2];
    let per_frame = own / s.frames;
    let past = Past {
        sink_tokens: s.options.sink_frames * per_frame,
        window_tokens: s.options.window_frames * per_frame,
        tokens_per_frame: per_frame,
    };
    let keys = extend(s, &scope, "keys", key, past)?;
    let values = extend(s, &scope, "values", value, past)?;

    let Past { sink_tokens, window_tokens, tokens_per_frame } = past;
    let mask_ty = TensorType::new(DType::F32, [1, 1, 1, past.tokens() + own]);
    let kind = HostInput::WindowMask { sink_tokens, window_tokens, tokens_per_frame, own_tokens: own };
    let mask = s.host_input(&format!("mask_{own}"), kind, &mask_ty);
    let f = &mut s.f;
    let mut y = f.add(Matmul { transpose_x: false, transpose_y: true }.into(), &[query, keys], &scope)?;
    if let Some(scale) = scale {
        y = f.add(Binary::Mul.into(), &[y, scale], &scope)?;
    }
    let y = f.add(Binary::Add.into(), &[y, mask], &scope)?;
    let y = f.add(Softmax { axis }.into(), &[y], &scope)?;
    let y = f.add(Matmul { transpose_x: false, transpose_y: false }.into(), &[y, values], &scope)?;
    s.replace(v, y);
    Ok(())
}

/// Tokens of the past.
#[derive(Clone, Copy)]
struct Past {
    sink_tokens: usize,
    window_tokens: usize,
    tokens_per_frame: usize,
}

impl Past {
    fn tokens(self) -> usize {
        self.sink_tokens + self.window_tokens
    }
}

/// `[sinks window own]` along the tokens. The window moves on by keeping the last tokens; the sinks stay.
fn extend(s: &mut Splitter, scope: &str, what: &str, own: ValueId, past: Past) -> Result<ValueId, SplitError> {
    let mut ty = s.f.ty(own).clone();
    ty.shape[2] = past.tokens();
    let (name, state) = s.state(scope, what, StateKind::Window, &ty)?;
    let all = s.f.add(Concat { axis: 2 }.into(), &[state, own], scope)?;
    let tokens = s.f.shape(all)[2];
    let mut next = Vec::new();
    if past.sink_tokens > 0 {
        next.push(sinks(s, scope, all, own, past)?);
    }
    if past.window_tokens > 0 {
        next.push(tokens_of(s, scope, all, tokens - past.window_tokens, tokens)?);
    }
    let next = match next[..] {
        [one] => one,
        _ => s.f.add(Concat { axis: 2 }.into(), &next, scope)?,
    };
    s.updates.push((name, next));
    Ok(all)
}

/// The sinks after the chunk. Slot i waits for frame i of the stream, which is frame i mod F of its chunk of F frames: so the chunk's frames,
/// repeated, lie under the slots that may wait for them, and the host's mask is 1 where they do. Until then a slot is zero.
fn sinks(s: &mut Splitter, scope: &str, all: ValueId, own: ValueId, past: Past) -> Result<ValueId, SplitError> {
    let slots = past.sink_tokens;
    let so_far = tokens_of(s, scope, all, 0, slots)?;
    let copies = slots.div_ceil(s.f.shape(own)[2]);
    let repeated = match copies {
        1 => own,
        _ => s.f.add(Concat { axis: 2 }.into(), &vec![own; copies], scope)?,
    };
    let candidates = tokens_of(s, scope, repeated, 0, slots)?;
    let kind = HostInput::SinkMask { sink_tokens: slots, tokens_per_frame: past.tokens_per_frame };
    let name = format!("sinks_{}", s.f.shape(own)[2]);
    let mask = s.host_input(&name, kind, &TensorType::new(DType::F32, [1, 1, 1, slots]));
    let mask = s.f.add(Reshape { shape: vec![1, 1, slots, 1] }.into(), &[mask], scope)?;
    let new = s.f.add(Binary::Mul.into(), &[candidates, mask], scope)?;
    Ok(s.f.add(Binary::Add.into(), &[so_far, new], scope)?)
}

/// Tokens `from` to `to` of `[1, A, N, d]`.
fn tokens_of(s: &mut Splitter, scope: &str, x: ValueId, from: usize, to: usize) -> Result<ValueId, SplitError> {
    let slice = Slice::axis(s.f.shape(x), 2, from, to);
    Ok(s.f.add(slice.into(), &[x], scope)?)
}
