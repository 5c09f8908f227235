//! Latent sizes, and the token grids that follow from them.

use std::fmt;
use std::str::FromStr;

use s2dit_files::problems::{Problem, quoted};

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

/// What a step is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSize {
    /// The latent of one clip.
    pub latent: LatentSize,
    /// Clips that a step takes at once, B: each has a latent and a text of its own, and all have the same timestep.
    pub batch: usize,
}

impl From<LatentSize> for StepSize {
    fn from(latent: LatentSize) -> Self {
        StepSize { latent, batch: 1 }
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
