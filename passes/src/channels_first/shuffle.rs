//! Channels that become pixels.

use s2dit_ir::ops::{OpError, PixelShuffle};
use s2dit_ir::{Op, ValueId};

use super::products::product;
use super::{Rewriter, Stored, TOKENS};

impl Rewriter<'_> {
    /// A product whose channels (row, column, c) become pixels of a plane: the reshape `[R, w, s, s·C]`, the transpose that puts
    /// a pixel's rows before the columns, and the reshape that joins them. The weights' rows are put in the order (c, row, column) of
    /// `pixel_shuffle`, which then is all that is left.
    pub(super) fn shuffled(&mut self, v: ValueId) -> Result<Option<Stored>, OpError> {
        let Op::Reshape(_) = self.old.op(v) else { return Ok(None) };
        let transpose = self.old.operands(v)[0];
        let Op::Transpose(t) = self.old.op(transpose) else { return Ok(None) };
        let split = self.old.operands(transpose)[0];
        let (Op::Reshape(_), [0, 2, 1, 3]) = (self.old.op(split), &t.perm[..]) else { return Ok(None) };
        let linear = self.old.operands(split)[0];
        let (Op::Linear(_), &[rows, cols, s, rest]) = (self.old.op(linear), self.dims(split)) else { return Ok(None) };
        let &[1, tokens, outputs] = self.dims(linear) else { return Ok(None) };
        let operands = self.old.operands(linear);
        if s < 2 || rows * cols != tokens || rest % s != 0 || !operands[1..].iter().all(|&o| self.is_const(o)) {
            return Ok(None);
        }
        let channels = rest / s;
        // As tokens again, or as frames of an image with the channels last.
        let order = match *self.dims(v) {
            [1, n, c] if (n, c) == (tokens * s * s, channels) => TOKENS.to_vec(),
            [frames, h, w, c] if (frames * h, w, c) == (rows * s, cols * s, channels) => vec![3, 0, 1, 2],
            _ => return Ok(None),
        };
        let x = self.in_form(operands[0], &TOKENS)?;
        let weight = self.plain(operands[1])?;
        let bias = operands.get(2).map(|&b| self.plain(b)).transpose()?;
        let inputs = self.dims(operands[1])[1];
        let value = self.at(linear, |b| {
            let mut by_channel = |w: ValueId, shape: &[usize]| {
                let w = b.reshape(w, &[s * s, channels, shape[1..].iter().product()])?;
                let w = b.transpose(w, &[1, 0, 2])?;
                b.reshape(w, shape)
            };
            let weight = by_channel(weight, &[outputs, inputs])?;
            let bias = bias.map(|bias| by_channel(bias, &[outputs])).transpose()?;
            product(b, x, weight, bias)
        })?;
        let value = self.at(v, |b| {
            let plane = b.reshape(value, &[1, outputs, rows, cols])?;
            b.op(PixelShuffle { factor: s }, &[plane])
        })?;
        Ok(Some(Stored { value, order }))
    }
}
