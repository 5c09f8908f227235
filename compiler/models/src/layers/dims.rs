//! The numbers that make a video transformer, and the latents that fit it.

use serde::{Deserialize, Serialize};

use crate::size::{Grid, LatentSize};
use s2dit_files::problems::Problems;

/// No phone, and no server, gets near these; they keep every product of sizes far from overflow, and tables that have a
/// row for each token small.
pub(super) const LARGEST_SIDE: usize = 16_384;
const MOST_TOKENS: usize = 1 << 20;
/// Elements of one value: 8.6 GB in fp32. What is larger is refused before anything asks the system for the memory.
const MOST_ELEMENTS: usize = 1 << 31;

/// The extent of the RMS norm of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum QkNorm {
    /// The whole hidden size; gain `[D]`.
    #[serde(rename = "rms_norm_across_heads")]
    AcrossHeads,
    /// Each head alone; gain `[d]`, shared by the heads.
    #[serde(rename = "rms_norm_per_head")]
    PerHead,
}

impl QkNorm {
    /// Every extent.
    pub const ALL: [QkNorm; 2] = [QkNorm::AcrossHeads, QkNorm::PerHead];

    /// The name in `config.json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            QkNorm::AcrossHeads => "rms_norm_across_heads",
            QkNorm::PerHead => "rms_norm_per_head",
        }
    }
}

/// The numbers that make a video transformer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dims {
    /// Attention heads A.
    pub heads: usize,
    /// Width of a head, d.
    pub head_dim: usize,
    /// Hidden width of the feed-forward layers.
    pub ffn_dim: usize,
    /// Text tokens, L.
    pub text_len: usize,
    /// Width of the text embeddings.
    pub text_dim: usize,
    /// Patch (frames, rows, columns); the first is 1.
    pub patch_size: [usize; 3],
    /// Channels of the input latent.
    pub in_channels: usize,
    /// Channels of the velocity.
    pub out_channels: usize,
    /// Width of the sinusoidal time embedding, even.
    pub freq_dim: usize,
    /// Base of the RoPE frequencies.
    pub rope_theta: f64,
    /// Extent of the RMS norm of queries and keys.
    pub qk_norm: QkNorm,
    /// The ε of layer norms.
    pub eps: f64,
    /// The ε of the norms of queries and keys.
    pub qk_eps: f64,
}

impl Dims {
    /// Hidden width D.
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Head width given to (frames, rows, columns) by RoPE.
    pub fn rope_split(&self) -> [usize; 3] {
        let space = 2 * (self.head_dim / 6);
        [self.head_dim - 2 * space, space, space]
    }

    /// Values of one output patch.
    pub fn patch_values(&self) -> usize {
        self.out_channels * self.patch_size.iter().product::<usize>()
    }

    /// Width of the gains of the query and key norms.
    pub fn qk_norm_width(&self) -> usize {
        match self.qk_norm {
            QkNorm::AcrossHeads => self.width(),
            QkNorm::PerHead => self.head_dim,
        }
    }
}

/// Checks the largest values of a step, each two factors of its number of elements.
///
/// # Errors
/// A value that no machine would hold.
pub(crate) fn check_values(latent: LatentSize, values: &[(&str, [usize; 2])]) -> Result<(), Problems> {
    let mut problems = Problems::new();
    for (what, factors) in values {
        let elements = factors[0].saturating_mul(factors[1]);
        if elements > MOST_ELEMENTS {
            let found = format!("{elements} elements, {:.1} GB in fp32", elements as f64 * 4.0 / 1e9);
            problems.push(format!("latent {latent}: {what}"), found, format!("at most {MOST_ELEMENTS} elements"));
        }
    }
    problems.into_result()
}

impl Dims {
    /// The token grid of a latent.
    ///
    /// # Errors
    /// A side is zero, or not a multiple of the patch; more tokens than make sense; a value that no machine would hold.
    pub fn grid(&self, latent: LatentSize) -> Result<Grid, Problems> {
        let mut problems = Problems::new();
        let mut check = |side: &str, size: usize, patch: usize| {
            if size == 0 || size > LARGEST_SIDE {
                problems.push(format!("latent {side}"), size.to_string(), format!("1 to {LARGEST_SIDE}"));
            } else if !size.is_multiple_of(patch) {
                let below = size / patch * patch;
                let near = if below == 0 { format!("{patch}") } else { format!("{below} or {}", below + patch) };
                problems.push(
                    format!("latent {side}"),
                    size.to_string(),
                    format!("a multiple of {patch} (the patch size), such as {near}"),
                );
            }
        };
        let [_, patch_rows, patch_cols] = self.patch_size;
        check("frames", latent.frames, 1);
        check("rows", latent.rows, patch_rows);
        check("columns", latent.cols, patch_cols);
        problems.into_result()?;
        let grid = Grid { frames: latent.frames, rows: latent.rows / patch_rows, cols: latent.cols / patch_cols };
        let tokens = grid.tokens();
        if tokens > MOST_TOKENS {
            let gigabytes = tokens as f64 * self.width() as f64 * 2.0 / 1e9;
            return Err(Problems::one(
                format!("latent {latent}"),
                format!(
                    "{tokens} tokens ({grid}), {gigabytes:.1} GB in fp16 for one activation of width {}",
                    self.width()
                ),
                format!("at most {MOST_TOKENS} tokens"),
            ));
        }
        let positions = latent.frames * latent.rows * latent.cols;
        let largest = [
            ("the latent (in_channels × frames × rows × columns)", [self.in_channels, positions]),
            ("the velocity (out_channels × frames × rows × columns)", [self.out_channels, positions]),
            ("the tokens (tokens × width)", [tokens, self.width()]),
            ("the feed-forward layer (tokens × ffn_dim)", [tokens, self.ffn_dim]),
            ("the text (text_len × text_dim)", [self.text_len, self.text_dim]),
            ("the text's keys (text_len × width)", [self.text_len, self.width()]),
        ];
        check_values(latent, &largest)?;
        Ok(grid)
    }

    /// Checks that RoPE has an angle for each frame, row and column of a latent's grid: at most `most`.
    ///
    /// # Errors
    /// A side that has more.
    pub fn check_sides(latent: LatentSize, grid: Grid, most: usize) -> Result<(), Problems> {
        if grid.frames.max(grid.rows).max(grid.cols) <= most {
            return Ok(());
        }
        Err(Problems::one(
            format!("latent {latent}"),
            format!("a grid of {grid} tokens"),
            format!("at most {most} tokens on a side (rope_max_seq_len of config.json)"),
        ))
    }

    /// [`Dims::nearest_latent`] of a grid with at most `most` tokens on a side.
    #[must_use]
    pub fn nearest_latent_within(&self, wanted: LatentSize, most: usize) -> LatentSize {
        let LatentSize { frames, rows, cols } = self.nearest_latent(wanted);
        let [_, patch_rows, patch_cols] = self.patch_size;
        LatentSize { frames: frames.min(most), rows: rows.min(most * patch_rows), cols: cols.min(most * patch_cols) }
    }

    /// The latent nearest to `wanted` that fits: rows and columns are multiples of the patch.
    #[must_use]
    pub fn nearest_latent(&self, wanted: LatentSize) -> LatentSize {
        let nearest = |size: usize, patch: usize| ((size + patch / 2) / patch).max(1) * patch;
        let [_, patch_rows, patch_cols] = self.patch_size;
        let (rows, cols) = (nearest(wanted.rows, patch_rows), nearest(wanted.cols, patch_cols));
        LatentSize { frames: wanted.frames, rows, cols }
    }
}
