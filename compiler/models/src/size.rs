//! The sizes that graphs are built for, and the token grids that follow from them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use s2dit_files::problems::{Problem, Problems, quoted};

/// The size that a graph is built for. A model takes one kind of size, and refuses the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Size {
    /// Of what takes a latent: a step, a decoder.
    Latent(StepSize),
    /// Of a text encoder: text tokens, padding included.
    Tokens(usize),
    /// Of a graph that was exported: the only size that it has.
    Only,
}

impl Size {
    /// The latent of one clip.
    ///
    /// # Errors
    /// A number of tokens; none.
    pub fn latent(self) -> Result<LatentSize, Problems> {
        self.step().map(|step| step.latent)
    }

    /// The latent, and how many there are.
    ///
    /// # Errors
    /// A number of tokens; none.
    pub fn step(self) -> Result<StepSize, Problems> {
        match self {
            Size::Latent(step) => Ok(step),
            Size::Tokens(tokens) => {
                let expected = "a latent, --latent FRAMESxROWSxCOLUMNS such as 3x36x64: the model is no text encoder";
                Err(Problems::one("size", format!("{tokens} tokens"), expected))
            }
            Size::Only => Err(Problems::one("size", "none", "a latent, --latent FRAMESxROWSxCOLUMNS such as 3x36x64")),
        }
    }

    /// The number of tokens.
    ///
    /// # Errors
    /// A latent.
    pub fn tokens(self) -> Result<usize, Problems> {
        match self {
            Size::Tokens(tokens) => Ok(tokens),
            Size::Latent(StepSize { latent, .. }) => {
                let expected = "a number of text tokens, --tokens N such as 77: the model is a text encoder";
                Err(Problems::one("size", format!("latent {latent}"), expected))
            }
            Size::Only => Err(Problems::one("size", "none", "a number of text tokens, --tokens N such as 77")),
        }
    }

    /// What artifacts say of the size that they were compiled for, if there are others: the name of a field, and its text.
    #[must_use]
    pub fn metadata(self) -> Option<(String, String)> {
        match self {
            Size::Latent(StepSize { latent, .. }) => Some((LATENT_FIELD.into(), latent.to_string())),
            Size::Tokens(tokens) => Some((TOKENS_FIELD.into(), tokens.to_string())),
            Size::Only => None,
        }
    }

    /// The size that an artifact says; `None` if it does not.
    #[must_use]
    pub fn of_metadata(metadata: &BTreeMap<String, String>) -> Option<Size> {
        let latent = metadata.get(LATENT_FIELD).and_then(|text| text.parse::<LatentSize>().ok()).map(Size::from);
        latent.or_else(|| Some(Size::Tokens(metadata.get(TOKENS_FIELD)?.parse().ok()?)))
    }
}

const LATENT_FIELD: &str = "s2ditc.latent";
const TOKENS_FIELD: &str = "s2ditc.tokens";

impl From<LatentSize> for Size {
    fn from(latent: LatentSize) -> Self {
        Size::Latent(latent.into())
    }
}

impl From<StepSize> for Size {
    fn from(step: StepSize) -> Self {
        Size::Latent(step)
    }
}

/// `3x36x64` or `77`
impl FromStr for Size {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        match text.trim().parse() {
            Ok(tokens) => Ok(Size::Tokens(tokens)),
            Err(_) => text.parse::<LatentSize>().map(Size::from),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::Latent(StepSize { latent, .. }) => latent.fmt(f),
            Size::Tokens(tokens) => tokens.fmt(f),
            Size::Only => f.write_str("one size"),
        }
    }
}

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
