//! Doors: the file formats that weights come in through.
//!
//! A door lists the tensors of one file with their types, and gives their bytes: mapped where they lie in the file as they are, computed
//! a part at a time where they do not. It knows its format, and no model.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use s2dit_backends::foreign::Foreign;
use s2dit_backends::stamp::Changed;
use s2dit_ir::WeightSource;

/// An open file of weights.
pub trait Door: WeightSource + Debug + Send {
    /// The file.
    fn path(&self) -> &Path;

    /// What the file is, such as `safetensors`.
    fn format(&self) -> String;

    /// The names of its tensors, sorted.
    fn names(&self) -> Vec<&str>;

    /// What a file of safetensors says about itself.
    fn metadata(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Tensors that are there with a problem that was told when the file was opened.
    fn damaged(&self) -> Vec<&str> {
        Vec::new()
    }

    /// Checks that nobody has written to the file since it was opened.
    ///
    /// # Errors
    /// Somebody has, or the path leads to another file now.
    fn check_unchanged(&self) -> Result<(), Changed>;
}

/// Formats that a file of weights may have: those that are read, and pickles, which torch can make one of.
pub const WEIGHTS: [Foreign; 4] = [Foreign::Safetensors, Foreign::TorchCheckpoint, Foreign::Gguf, Foreign::Pickle];
