//! What both kinds of block share: modulations, the heads of a projection, attention of text and video together.

use s2dit_ir::ValueId;

use super::config::OpenSoraConfig;
use crate::layers::{BuildError, Built, Layers, Rope};

impl OpenSoraConfig {
    /// The modulation `name` of a block, R vectors of `[B, 1, D]`: shift, scale and gate, once or twice. `vector` is `[B, D]`, behind its SiLU.
    pub(super) fn modulation<const R: usize>(
        &self,
        m: &mut Layers<'_>,
        name: &str,
        vector: ValueId,
    ) -> Result<[ValueId; R], BuildError> {
        m.within(name, |m| {
            let rows = m.linear("lin", vector)?;
            let batch = m.b.shape(rows)[0];
            let rows = m.b.reshape(rows, &[batch, R, self.hidden_size])?;
            let mut parts = [rows; R];
            for (i, part) in parts.iter_mut().enumerate() {
                *part = m.b.slice(rows, 1, i, i + 1)?;
            }
            Ok(parts)
        })
    }

    /// Columns of `[1, N, …]`, as many for each part as `widths` says.
    pub(super) fn columns<const P: usize>(
        &self,
        m: &mut Layers<'_>,
        x: ValueId,
        widths: [usize; P],
    ) -> Result<[ValueId; P], BuildError> {
        let (mut parts, mut begin) = ([x; P], 0);
        for (part, width) in parts.iter_mut().zip(widths) {
            *part = m.b.slice(x, 2, begin, begin + width)?;
            begin += width;
        }
        Ok(parts)
    }

    /// Queries, keys and values `[1, N, D]` as heads `[1, A, N, d]`, the first two after the norms of the current module.
    pub(super) fn normed_heads(&self, m: &mut Layers<'_>, [q, k, v]: [ValueId; 3]) -> Result<[ValueId; 3], BuildError> {
        let normed = |m: &mut Layers<'_>, name: &str, x| {
            let x = m.split_heads(x)?;
            let x = m.within(name, |m| {
                let gain = m.param("scale")?;
                let y = m.root_mean_square_norm(x, OpenSoraConfig::EPS)?;
                Ok(m.b.mul(y, gain)?)
            })?;
            Ok::<_, BuildError>(m.b.transpose(x, &[0, 2, 1, 3])?)
        };
        m.within("norm", |m| {
            let (q, k) = (normed(m, "query_norm", q)?, normed(m, "key_norm", k)?);
            Ok([q, k, m.heads(v)?])
        })
    }

    /// Softmax attention of text and video `[1, A, L + N, d]`, heads merged: `[1, L + N, D]`.
    pub(super) fn joint_attention(&self, m: &mut Layers<'_>, [q, k, v]: [ValueId; 3], rope: Rope) -> Built {
        let rotated = |m: &mut Layers<'_>, x| match self.use_liger_rope {
            true => m.rotate_halves(x, rope),
            false => m.rotate(x, rope),
        };
        let (q, k) = (rotated(m, q)?, rotated(m, k)?);
        m.softmax_attention(q, k, v, None)
    }
}
