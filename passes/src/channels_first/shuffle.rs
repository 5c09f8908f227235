//! Channels that become pixels.

use s2dit_ir::ops::{DepthToSpace, OpError};
use s2dit_ir::{Op, ValueId};

use super::{Rewriter, Stored, TOKENS};

impl Rewriter<'_> {
    /// Tokens whose channels (row, column, c) become pixels of a plane: the reshape `[R, w, s, s·C]`, the transpose that puts
    /// a pixel's rows before the columns, and the reshape that joins them are one `depth_to_space`.
    pub(super) fn shuffled(&mut self, v: ValueId) -> Result<Option<Stored>, OpError> {
        let Op::Reshape(_) = self.old.op(v) else { return Ok(None) };
        let transpose = self.old.operands(v)[0];
        let Op::Transpose(t) = self.old.op(transpose) else { return Ok(None) };
        let split = self.old.operands(transpose)[0];
        let (Op::Reshape(_), [0, 2, 1, 3]) = (self.old.op(split), &t.perm[..]) else { return Ok(None) };
        let x = self.old.operands(split)[0];
        let (&[batch, tokens, outputs], &[rows, cols, s, rest]) = (self.dims(x), self.dims(split)) else {
            return Ok(None);
        };
        if s < 2 || rows * cols != batch * tokens || !rows.is_multiple_of(batch) || rest % s != 0 || !self.is_stored(x)
        {
            return Ok(None);
        }
        let channels = rest / s;
        // As tokens again, or as frames of an image with the channels last.
        let order = match *self.dims(v) {
            [b, n, c] if (b, n, c) == (batch, tokens * s * s, channels) => TOKENS.to_vec(),
            // As planes of clips, frames below each other.
            [b, h, w, c] if (b, b * h, w, c) == (batch, rows * s, cols * s, channels) => vec![0, 3, 1, 2],
            [frames, h, w, c] if batch == 1 && (frames * h, w, c) == (rows * s, cols * s, channels) => vec![3, 0, 1, 2],
            _ => return Ok(None),
        };
        let plane = self.ordered(x, &TOKENS, &[batch, outputs, rows / batch, cols])?;
        let value = self.at(v, |b| b.op(DepthToSpace { block: s }, &[plane]))?;
        Ok(Some(Stored { value, order }))
    }
}
