//! The time: its embedding, and the modulations that follow from it, of all tokens alike or of each token.

use s2dit_ir::ops::Unary;
use s2dit_ir::{DType, TensorType, ValueId};

use super::block::Modulation;
use super::builder::{BuildError, Built, Layers};

impl Layers<'_> {
    /// Timestep `[1]` → (`temb [1, D]`, modulations of all tokens alike).
    pub(crate) fn time(&mut self, t: ValueId) -> Result<(ValueId, Modulation), BuildError> {
        let width = self.dims.width();
        self.within("condition_embedder", |m| {
            let e = m.sinusoid(t)?;
            let (temb, tproj) = m.time_embedder(e)?;
            Ok((temb, Modulation::OfAll(m.b.reshape(tproj, &[1, 6, width])?)))
        })
    }

    /// Timesteps `[1, N]` → (`temb [1, N, D]`, modulations of each token). Of the `[1, N, 6, D]` of diffusers each of the six is sliced
    /// once, for all blocks.
    pub(crate) fn time_per_token(&mut self, t: ValueId) -> Result<(ValueId, Modulation), BuildError> {
        let width = self.dims.width();
        self.within("condition_embedder", |m| {
            let e = m.sinusoid(t)?;
            let tokens = m.b.shape(e)[0];
            let e = m.b.reshape(e, &[1, tokens, m.dims.freq_dim])?;
            let (temb, tproj) = m.time_embedder(e)?;
            let mut parts = [tproj; 6];
            for (i, part) in parts.iter_mut().enumerate() {
                *part = m.b.slice(tproj, 2, i * width, (i + 1) * width)?;
            }
            Ok((temb, Modulation::OfEach(parts)))
        })
    }

    /// The sinusoid `[…, freq_dim]` → (`temb […, D]`, `[…, 6·D]`).
    fn time_embedder(&mut self, sinusoid: ValueId) -> Result<(ValueId, ValueId), BuildError> {
        let temb = self.within("time_embedder", |m| {
            let y = m.linear("linear_1", sinusoid)?;
            let y = m.b.unary(Unary::Silu, y)?;
            m.linear("linear_2", y)
        })?;
        let y = self.b.unary(Unary::Silu, temb)?;
        Ok((temb, self.linear("time_proj", y)?))
    }

    /// `concat(cos(t·ω), sin(t·ω))`, `ωᵢ = 10000^(−i/(freq_dim/2))` (diffusers' `Timesteps` with `flip_sin_to_cos`), a row for each
    /// timestep.
    pub(crate) fn sinusoid(&mut self, t: ValueId) -> Built {
        let half = self.dims.freq_dim / 2;
        let count = self.b.shape(t).iter().product();
        let omega = (0..half).map(|i| 10000f64.powf(-(i as f64) / half as f64)).collect();
        let t = self.b.reshape(t, &[count, 1])?;
        let omega = self.b.literal(&TensorType::new(DType::F32, [1, half]), omega)?;
        let angle = self.b.mul(t, omega)?;
        let cos = self.b.unary(Unary::Cos, angle)?;
        let sin = self.b.unary(Unary::Sin, angle)?;
        Ok(self.b.concat(&[cos, sin], 1)?)
    }

    /// The six modulations of a block, whose own table has six rows: each `[1, 1, D]`, or `[1, N, D]`.
    pub(crate) fn block_modulation(&mut self, time: Modulation) -> Result<[ValueId; 6], BuildError> {
        let table = self.scale_shift_table(6)?;
        match time {
            Modulation::OfAll(time) => {
                let sums = self.b.add(table, time)?;
                self.rows(sums)
            }
            Modulation::OfEach(parts) => {
                let mut rows = self.rows(table)?;
                for (row, part) in rows.iter_mut().zip(parts) {
                    *row = self.b.add(*row, part)?;
                }
                Ok(rows)
            }
        }
    }

    /// Shift and scale of the head: each `[1, 1, D]` of `temb [1, D]`, or `[1, N, D]` of `[1, N, D]`.
    pub(super) fn head_modulation(&mut self, temb: ValueId) -> Result<[ValueId; 2], BuildError> {
        let width = self.dims.width();
        let table = self.scale_shift_table(2)?;
        if self.b.shape(temb).len() == 2 {
            let temb = self.b.reshape(temb, &[1, 1, width])?;
            let sums = self.b.add(table, temb)?;
            return self.rows(sums);
        }
        let mut rows = self.rows(table)?;
        for row in &mut rows {
            *row = self.b.add(*row, temb)?;
        }
        Ok(rows)
    }

    /// The table `[1, rows, D]` of the current module, which a checkpoint may have as `[rows, D]`.
    fn scale_shift_table(&mut self, rows: usize) -> Built {
        let table = self.param("scale_shift_table")?;
        let shape = [1, rows, self.dims.width()];
        if self.b.shape(table) == shape { Ok(table) } else { Ok(self.b.reshape(table, &shape)?) }
    }

    /// The rows of `[1, R, D]`, each `[1, 1, D]`.
    fn rows<const R: usize>(&mut self, x: ValueId) -> Result<[ValueId; R], BuildError> {
        let mut rows = [x; R];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = self.b.slice(x, 1, i, i + 1)?;
        }
        Ok(rows)
    }
}
