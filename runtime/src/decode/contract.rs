//! The contract of a decoder that streams: `contract.json`, all that a host needs to decode with the folder of a decoder.
//!
//! These types are the format's one definition: the compiler writes with them what the session reads with them.

use std::path::Path;

use anyhow::{Result, bail};
use s2dit_ir::Interface;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::contract_file::ContractFile;
use crate::ports::is_name;
pub use crate::stream::contract::{
    Chunk, FILE, Function, FunctionsPolicy, Packed, Port, Precision, State, StateKind, StatesPolicy, Target,
};

/// The value of the field `format`.
pub const FORMAT: &str = "s2dit-decoder";
/// The version that this build writes and reads.
pub const VERSION: u32 = 1;

const IS: ContractFile = ContractFile {
    file: FILE,
    format: FORMAT,
    version: VERSION,
    what: "decoder",
    expected: "expected the folder of a decoder, as `s2ditc compile --mode stream` makes of one",
};

/// A decoder folder's contract.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contract {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// Compiler of the decoder: `s2ditc 0.1.0`.
    pub compiler: String,
    /// Format of the artifacts.
    pub target: Target,
    /// Arithmetic of the artifacts.
    pub precision: Precision,
    /// The engine that packages are meant for, `ane`, `gpu` or `any` [Core ML].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<String>,
    /// Place of the states between calls.
    pub states_policy: StatesPolicy,
    /// Spread of the functions over artifacts.
    pub functions_policy: FunctionsPolicy,
    /// Content hash of the checkpoint: `blake3:…`.
    pub checkpoint: String,
    /// The checkpoint's `config.json`.
    pub config: Value,
    /// The latent that one call takes, as the diffusion model makes it.
    pub chunk: Chunk,
    /// Roles of the functions' inputs and results.
    pub interface: Interface,
    /// Frames that the calls make.
    pub video: Video,
    /// The functions.
    pub functions: Functions,
    /// The states, as the functions declare them. They start as zeros.
    pub states: Vec<State>,
    /// Places of the decoder's buffers in packed states.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packing: Vec<Packed>,
}

/// The frames that the calls make, `[1, 3, frames, rows, cols]` in −1 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Video {
    /// Frames of the first chunk of a video.
    pub first_frames: usize,
    /// Frames of each other chunk.
    pub next_frames: usize,
    /// Rows of pixels.
    pub rows: usize,
    /// Columns of pixels.
    pub cols: usize,
}

impl Video {
    /// The shape of what the call for a chunk makes.
    #[must_use]
    pub const fn shape(&self, is_first: bool) -> [usize; 5] {
        [1, 3, if is_first { self.first_frames } else { self.next_frames }, self.rows, self.cols]
    }
}

/// The functions of a decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Functions {
    /// Decodes the first chunk of a video; reads no state and writes the states that the next call needs.
    pub first: Function,
    /// Decodes any other chunk; reads and writes the states.
    pub next: Function,
}

impl Functions {
    /// The functions under their names in the contract.
    #[must_use]
    pub fn all(&self) -> [(&'static str, &Function); 2] {
        [("first", &self.first), ("next", &self.next)]
    }
}

impl Contract {
    /// The name of the latent, which a contract that was checked has.
    #[must_use]
    pub fn latent(&self) -> &str {
        self.interface.latent().unwrap_or_default()
    }

    /// The name of the video, which a contract that was checked has.
    #[must_use]
    pub fn output(&self) -> &str {
        self.interface.output().unwrap_or_default()
    }

    /// Whether a folder has a contract of this format.
    #[must_use]
    pub fn is_in(dir: &Path) -> bool {
        IS.is_in(dir)
    }

    /// Reads the contract of the decoder folder `dir`.
    ///
    /// # Errors
    /// Not a decoder folder; a contract of another format or version, or one that contradicts itself.
    pub fn read(dir: &Path) -> Result<Contract, Error> {
        IS.read(dir, |contract| Ok(Contract::check(contract)?))
    }

    /// The artifacts, each once.
    #[must_use]
    pub fn files(&self) -> Vec<&str> {
        let [(_, first), (_, next)] = self.functions.all();
        if first.file == next.file { vec![&first.file] } else { vec![&first.file, &next.file] }
    }

    /// The contract as the text of [`FILE`].
    ///
    /// # Errors
    /// A number that JSON lacks.
    pub fn to_json(&self) -> Result<String, Error> {
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::input(error.into()))?;
        Ok(text + "\n")
    }

    /// Checks that the contract fits itself.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self) -> Result<(), Error> {
        self.fits_itself().map_err(Error::artifact)
    }

    fn fits_itself(&self) -> Result<()> {
        if self.interface.latent().is_none() || self.interface.output().is_none() {
            bail!("field `interface`: expected an input that is the latent, and a result");
        }
        let mut shapes = vec![("field `chunk`".to_owned(), self.chunk.shape().to_vec())];
        shapes.extend(self.states.iter().map(|s| (format!("state `{}`", s.name), s.shape.clone())));
        for (name, function) in self.functions.all() {
            if !is_name(&function.file) {
                bail!("function `{name}`: found file `{}`, expected a name in the folder", function.file);
            }
            if !function.parts.is_empty() {
                bail!("function `{name}`: found `parts`, expected none: a decoder is not spread over packages");
            }
            let ports = function.inputs.iter().chain(&function.outputs);
            shapes.extend(ports.map(|p| (format!("function `{name}`: `{}`", p.name), p.shape.clone())));
            let made = function.outputs.iter().find(|p| p.name == self.output());
            let expected = self.video.shape(name == "first");
            if made.is_none_or(|p| p.shape != expected) {
                bail!(
                    "function `{name}`: expected an output `{}` of shape {expected:?}, as `video` says",
                    self.output()
                );
            }
        }
        for (place, shape) in shapes {
            let elements = shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent));
            if elements.is_none_or(|n| n == 0 || n > MOST_ELEMENTS) {
                bail!("{place}: found shape {shape:?}, expected 1 to {MOST_ELEMENTS} elements");
            }
        }
        Ok(())
    }
}

/// No tensor of a decoder has more elements.
const MOST_ELEMENTS: usize = 1 << 31;
