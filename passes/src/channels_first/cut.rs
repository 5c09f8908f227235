//! Products of more channels than an axis has on the engine, of which every use takes some channels.
//!
//! ```text
//! %y = linear(%x, %w) : f32[1, 18432]                  %a = conv(%x, %w[0..15360])     : f32[1, 15360, 1, 1]
//! %r = reshape(%y)    : f32[1, 6, 3072]                %b = conv(%x, %w[15360..18432]) : f32[1, 3072, 1, 1]
//! %0 = slice(%r), …   : f32[1, 1, 3072]            →   %0 = slice(%a), …, %5 = %b
//! ```
//! The modulations of a block of an MMDiT are such a product.

use std::ops::Range;

use s2dit_ir::ops::{OpError, Slice};
use s2dit_ir::{Op, ValueId};

use super::form::natural;
use super::products::product;
use super::{LARGEST_EXTENT, Rewriter, Stored, TOKENS};

/// A use of a product: what takes some of its channels, and which.
struct Taken {
    value: ValueId,
    channels: Range<usize>,
}

impl Rewriter<'_> {
    /// Computes what takes channels of the product `v` of `x`, already in its form, as products of fewer channels; whether it did. Nothing else needs `v` then.
    pub(super) fn cut(
        &mut self,
        v: ValueId,
        x: ValueId,
        weight: ValueId,
        bias: Option<ValueId>,
    ) -> Result<bool, OpError> {
        let Some(&channels) = self.dims(v).last().filter(|channels| **channels > LARGEST_EXTENT) else {
            return Ok(false);
        };
        let Some(mut taken) = self.taken(v, channels) else { return Ok(false) };
        taken.sort_by_key(|use_of| (use_of.channels.start, use_of.channels.end));
        let mut runs: Vec<(Range<usize>, Vec<Taken>)> = Vec::new();
        for use_of in taken {
            match runs.last_mut() {
                Some((run, uses))
                    if use_of.channels.end.max(run.end) - run.start <= LARGEST_EXTENT
                        && use_of.channels.start <= run.end =>
                {
                    run.end = run.end.max(use_of.channels.end);
                    uses.push(use_of);
                }
                _ => runs.push((use_of.channels.clone(), vec![use_of])),
            }
        }
        if runs.iter().any(|(run, _)| run.len() > LARGEST_EXTENT) {
            return Ok(false);
        }
        for (run, uses) in runs {
            let whole = self.at(v, |b| {
                let weight = b.slice(weight, 0, run.start, run.end)?;
                let bias = bias.map(|bias| b.slice(bias, 0, run.start, run.end)).transpose()?;
                product(b, x, weight, bias)
            })?;
            for Taken { value, channels } in uses {
                let part = match channels == run {
                    true => whole,
                    false => {
                        let (begin, end) = (channels.start - run.start, channels.end - run.start);
                        self.at(value, |b| b.slice(whole, 1, begin, end))?
                    }
                };
                let order = if self.dims(v).len() == 3 { TOKENS.to_vec() } else { natural(self.dims(value).len()) };
                self.keep(value, Stored { value: part, order });
            }
        }
        Ok(true)
    }

    /// Every use of a product: slices of tokens' channels, or of the rows that a vector's channels are.
    fn taken(&self, v: ValueId, channels: usize) -> Option<Vec<Taken>> {
        let f = self.old;
        if f.leaves(v) {
            return None;
        }
        let mut taken = Vec::new();
        for (user, _) in f.users(v) {
            match (f.op(user), self.dims(v), self.dims(user)) {
                (Op::Slice(slice), &[batch, tokens, _], _) => {
                    taken.push(Taken { value: user, channels: along(slice, &[batch, tokens, channels], 2)? });
                }
                // One vector for each clip: the channels of a row lie beside each other.
                (Op::Reshape(_), &[batch, _], &[rows_of, rows, width])
                    if batch == rows_of && rows * width == channels =>
                {
                    if f.leaves(user) {
                        return None;
                    }
                    for (part, _) in f.users(user) {
                        let Op::Slice(slice) = f.op(part) else { return None };
                        let rows = along(slice, &[batch, rows, width], 1)?;
                        if rows.len() != 1 {
                            return None;
                        }
                        taken.push(Taken { value: part, channels: rows.start * width..rows.end * width });
                    }
                }
                _ => return None,
            }
        }
        (!taken.is_empty()).then_some(taken)
    }
}

/// What a slice takes along `axis`, if it takes all along the others.
fn along(slice: &Slice, dims: &[usize], axis: usize) -> Option<Range<usize>> {
    let whole = |a: usize| a == axis || (slice.begin[a], slice.end[a]) == (0, dims[a]);
    let plain = slice.stride.iter().all(|&stride| stride == 1) && (0..dims.len()).all(whole);
    plain.then(|| slice.begin[axis]..slice.end[axis])
}
