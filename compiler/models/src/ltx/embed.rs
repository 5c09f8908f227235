//! Into and out of the token stream: the latent, coordinates, head.

use s2dit_ir::ValueId;
use s2dit_ir::ops::{FractionalRopeTable, RopePart};

use super::config::LtxConfig;
use crate::layers::{BuildError, Built, Layers, Rope};
use crate::size::{Grid, LatentSize};

/// The autoencoder's compression of frames, rows and columns.
const COMPRESSION: [f64; 3] = [8.0, 32.0, 32.0];
/// The longest video that coordinates are fractions of: seconds, rows and columns of pixels.
const LONGEST: [f64; 3] = [20.0, 2048.0, 2048.0];

impl LtxConfig {
    /// `[B, C, F, H, W]` → `[B, N, D]`, tokens in (frame, row, column) order: the pipeline packs, a linear layer embeds.
    pub(super) fn patches(&self, m: &mut Layers<'_>, x: ValueId, grid: Grid) -> Built {
        let batch = m.b.shape(x)[0];
        let x = m.b.reshape(x, &[batch, self.in_channels, grid.tokens()])?;
        let x = m.b.transpose(x, &[0, 2, 1])?;
        m.linear("proj_in", x)
    }

    /// RoPE tables `[N, D/2]`. A width that is no multiple of 6 leaves pairs at its start that are not rotated.
    pub(super) fn rope(&self, m: &mut Layers<'_>, grid: Grid) -> Result<Rope, BuildError> {
        let width = self.hidden_size();
        let table = |part| FractionalRopeTable {
            part,
            coordinates: self.coordinates(grid),
            frequencies: width / 6,
            unrotated: width % 6 / 2,
            theta: LtxConfig::ROPE_THETA,
        };
        let (cos, sin) = (table(RopePart::Cos), table(RopePart::Sin));
        m.within("rope", |m| Ok(Rope { cos: m.b.op(cos, &[])?, sin: m.b.op(sin, &[])? }))
    }

    /// The coordinates of frames, rows and columns, as fractions of the longest video. A latent frame stands for 8 frames of the video; with
    /// causal positions the first one stands for one frame alone, and the others come 7 frames earlier.
    fn coordinates(&self, grid: Grid) -> [Vec<f64>; 3] {
        let [frames, rows, cols] = COMPRESSION;
        let first = if self.causal_temporal_positioning { frames - 1.0 } else { 0.0 };
        let seconds = |i: usize| (i as f64 * frames - first).max(0.0) / self.frame_rate / LONGEST[0];
        let pixels = |axis: usize, size: f64| move |i: usize| i as f64 * size / LONGEST[axis];
        [
            (0..grid.frames).map(seconds).collect(),
            (0..grid.rows).map(pixels(1, rows)).collect(),
            (0..grid.cols).map(pixels(2, cols)).collect(),
        ]
    }

    /// `[1, N, D]` → velocity `[1, C, F, H, W]`.
    pub(super) fn head(&self, m: &mut Layers<'_>, x: ValueId, embedded: ValueId, latent: LatentSize) -> Built {
        let width = self.hidden_size();
        let table = m.param("scale_shift_table")?;
        let table = m.b.reshape(table, &[1, 2, width])?;
        let embedded = m.b.reshape(embedded, &[1, 1, width])?;
        let both = m.b.add(table, embedded)?;
        let (shift, scale) = (m.b.slice(both, 1, 0, 1)?, m.b.slice(both, 1, 1, 2)?);
        let x = m.modulated_norm(x, shift, scale)?;
        let y = m.linear("proj_out", x)?;
        let (y, batch) = (m.b.transpose(y, &[0, 2, 1])?, m.b.shape(x)[0]);
        Ok(m.b.reshape(y, &[batch, self.out_channels, latent.frames, latent.rows, latent.cols])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ltx::config::LtxConfig;

    #[test]
    fn coordinates_are_seconds_and_pixels() {
        let config = LtxConfig { frame_rate: 25.0, ..LtxConfig::defaults() };
        let grid = Grid { frames: 3, rows: 2, cols: 3 };
        let [frames, rows, cols] = config.coordinates(grid);
        // Frames 0, 1 and 9 of the video, of the 500 that 20 seconds have.
        assert_eq!(frames, [0.0, 1.0 / 25.0 / 20.0, 9.0 / 25.0 / 20.0]);
        assert_eq!((rows, cols), (vec![0.0, 1.0 / 64.0], vec![0.0, 1.0 / 64.0, 2.0 / 64.0]));
        let plain = LtxConfig { causal_temporal_positioning: false, frame_rate: 40.0, ..config };
        assert_eq!(plain.coordinates(grid)[0], [0.0, 0.01, 0.02]);
    }
}
