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

use crate::problems::{Problems, quoted};
use crate::{GgufFile, SafetensorsFile, TorchFile};

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

/// What a file of weights is expected to be.
const EXPECTED: &str = "a file of weights: safetensors, torch.save's since PyTorch 1.6, or GGUF";

/// Opens a file of weights by what it holds, whatever it is called, with what is wrong with it. `state_dict` chooses one of several
/// dictionaries of tensors in a file of `torch.save`.
///
/// # Errors
/// A file of another format, or one that cannot be read; a `state_dict` for a format that has none.
pub fn open(path: &Path, state_dict: Option<&str>) -> Result<(Box<dyn Door>, Problems), Problems> {
    let place = path.display().to_string();
    let found = Foreign::of(path).map_err(|error| Problems::one(&place, error.to_string(), EXPECTED))?;
    if let Some(name) = state_dict
        && found != Some(Foreign::TorchCheckpoint)
    {
        let found = found.map_or("a file", Foreign::name);
        return Err(Problems::one(
            place,
            format!("{found}, and --state-dict {}", quoted(name)),
            "a PyTorch checkpoint (torch.save): other files have one list of tensors, and need no --state-dict",
        ));
    }
    match found {
        Some(Foreign::TorchCheckpoint) => Ok((Box::new(TorchFile::open(path, state_dict)?), Problems::new())),
        Some(Foreign::Gguf) => Ok((Box::new(GgufFile::open(path)?), Problems::new())),
        Some(Foreign::Safetensors) | None => {
            let (file, problems) = SafetensorsFile::open_damaged(path)?;
            Ok((Box::new(file), problems))
        }
        Some(Foreign::Pickle) => Err(Problems::one(
            place,
            "a pickle without a zip file around it (torch.save before PyTorch 1.6, perhaps)",
            "torch.save's zip file: load it with torch.load(FILE, weights_only=True) and torch.save it again",
        )),
        Some(other) => Err(Problems::one(place, other.to_string(), EXPECTED)),
    }
}
