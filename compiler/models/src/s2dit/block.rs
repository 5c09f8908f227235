//! One transformer block: self-attention, cross-attention, feed-forward.

use s2dit_ir::ValueId;
use s2dit_ir::ops::Unary;

use super::rope::Rope;
use super::{Imported, Importer};
use crate::s2dit::config::{BlockKind, Grid};

impl Importer<'_> {
    /// `x [1, N, D]` → `[1, N, D]`; `tproj [1, 6, D]`, `text [1, L, D]`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn block(
        &mut self,
        index: usize,
        kind: BlockKind,
        x: ValueId,
        tproj: ValueId,
        text: ValueId,
        rope: Rope,
        grid: Grid,
    ) -> Imported {
        self.within(&format!("blocks.{index}"), |m| {
            let table = m.param("scale_shift_table")?;
            let modulation = m.b.add(table, tproj)?;
            let mut part = |i| m.b.slice(modulation, 1, i, i + 1);
            let (shift1, scale1, gate1) = (part(0)?, part(1)?, part(2)?);
            let (shift2, scale2, gate2) = (part(3)?, part(4)?, part(5)?);

            let u = m.modulated_norm(x, shift1, scale1)?;
            let y = match kind {
                BlockKind::Lcha => m.lcha(u, rope, grid)?,
                BlockKind::Ssa | BlockKind::Full => m.self_attention(u, rope)?,
            };
            let y = m.b.mul(gate1, y)?;
            let x = m.b.add(x, y)?;

            let u = m.within("norm2", |m| {
                let (gain, bias) = (m.param("weight")?, m.param("bias")?);
                Ok(m.b.layer_norm(x, &[2], m.config.eps, Some((gain, bias)))?)
            })?;
            let y = m.cross_attention(u, text)?;
            let x = m.b.add(x, y)?;

            let u = m.modulated_norm(x, shift2, scale2)?;
            let y = m.within("ffn", |m| {
                let y = m.linear("net.0.proj", u)?;
                let y = m.b.unary(Unary::GeluTanh, y)?;
                m.linear("net.2", y)
            })?;
            let y = m.b.mul(gate2, y)?;
            Ok(m.b.add(x, y)?)
        })
    }
}
