//! Latent sizes, and the token grids that follow from them.

use std::fmt;
use std::str::FromStr;

use s2dit_files::problems::{Problem, Problems, quoted};

/// Size of a latent video: frames, rows, columns. On the command line `3x36x64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LatentSize {
    /// Latent frames `F`.
    pub frames: usize,
    /// Latent rows `H`.
    pub rows: usize,
    /// Latent columns `W`.
    pub cols: usize,
}

/// No phone, and no server, gets near these; they keep every product of sizes far from overflow, and tables that have a
/// row for each token small.
const LARGEST_SIDE: usize = 16_384;
const MOST_TOKENS: usize = 1 << 20;
/// Elements of one value: 8.6 GB in fp32. What is larger is refused before anything asks the system for the memory.
const MOST_ELEMENTS: usize = 1 << 31;

impl FromStr for LatentSize {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let sides: Option<Vec<usize>> = text.split(['x', 'X', '×']).map(|side| side.trim().parse().ok()).collect();
        match sides.as_deref() {
            Some(&[frames, rows, cols]) => Ok(LatentSize { frames, rows, cols }),
            _ => Err(Problem {
                place: "latent size".into(),
                found: quoted(text),
                expected: "FRAMESxROWSxCOLUMNS, such as 3x36x64".into(),
            }),
        }
    }
}

impl fmt::Display for LatentSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.frames, self.rows, self.cols)
    }
}

/// The grid that tokens lie on, in (frame, row, column) order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Frames.
    pub frames: usize,
    /// Rows of tokens.
    pub rows: usize,
    /// Columns of tokens.
    pub cols: usize,
}

impl Grid {
    /// Number of tokens.
    #[must_use]
    pub fn tokens(self) -> usize {
        self.frames * self.rows * self.cols
    }

    /// The grid inside an SSA stage: a token for each `stride`×`stride` tokens, the last row and column of which may be padded.
    #[must_use]
    pub fn strided(self, stride: usize) -> Grid {
        Grid { frames: self.frames, rows: self.rows.div_ceil(stride), cols: self.cols.div_ceil(stride) }
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{}×{}", self.frames, self.rows, self.cols)
    }
}

/// The widths of a video transformer that bound what a latent may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widths {
    /// Patch (frames, rows, columns); the first is 1.
    pub patch_size: [usize; 3],
    /// Channels of the input latent.
    pub in_channels: usize,
    /// Channels of the result.
    pub out_channels: usize,
    /// Hidden width.
    pub hidden: usize,
    /// Hidden width of the feed-forward layers.
    pub ffn_dim: usize,
    /// Text tokens.
    pub text_len: usize,
    /// Width of the text embeddings.
    pub text_dim: usize,
}

impl Widths {
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
            let gigabytes = tokens as f64 * self.hidden as f64 * 2.0 / 1e9;
            return Err(Problems::one(
                format!("latent {latent}"),
                format!(
                    "{tokens} tokens ({grid}), {gigabytes:.1} GB in fp16 for one activation of width {}",
                    self.hidden
                ),
                format!("at most {MOST_TOKENS} tokens"),
            ));
        }
        self.check_values(latent, tokens)?;
        Ok(grid)
    }

    /// Checks the largest values of a step.
    fn check_values(&self, latent: LatentSize, tokens: usize) -> Result<(), Problems> {
        let positions = latent.frames * latent.rows * latent.cols;
        let mut problems = Problems::new();
        for (what, factors) in [
            ("the latent (in_channels × frames × rows × columns)", [self.in_channels, positions]),
            ("the velocity (out_channels × frames × rows × columns)", [self.out_channels, positions]),
            ("the tokens (tokens × width)", [tokens, self.hidden]),
            ("the feed-forward layer (tokens × ffn_dim)", [tokens, self.ffn_dim]),
            ("the text (text_len × text_dim)", [self.text_len, self.text_dim]),
            ("the text's keys (text_len × width)", [self.text_len, self.hidden]),
        ] {
            let elements = factors[0].saturating_mul(factors[1]);
            if elements > MOST_ELEMENTS {
                let found = format!("{elements} elements, {:.1} GB in fp32", elements as f64 * 4.0 / 1e9);
                problems.push(format!("latent {latent}: {what}"), found, format!("at most {MOST_ELEMENTS} elements"));
            }
        }
        problems.into_result()
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
