//! Opens the door of a file's format.

use std::path::Path;

use s2dit_backends::foreign::Foreign;

use crate::problems::{Problems, quoted};
use crate::{Door, GgufFile, SafetensorsFile, StateDict, TorchFile};

/// What a file of weights is expected to be.
const EXPECTED: &str = "a file of weights: safetensors, torch.save's since PyTorch 1.6, or GGUF";

/// Opens a file of weights by what it holds, whatever it is called, with what is wrong with it. `state_dict` chooses one of several
/// dictionaries of tensors in a file of `torch.save`.
///
/// # Errors
/// A file of another format, or one that cannot be read; a `state_dict` for a format that has none.
pub fn open(path: &Path, state_dict: StateDict<'_>) -> Result<(Box<dyn Door>, Problems), Problems> {
    let place = path.display().to_string();
    let found = Foreign::of(path).map_err(|error| Problems::one(&place, error.to_string(), EXPECTED))?;
    if let StateDict::Named(name) = state_dict
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
        None if path.extension().is_some_and(|ending| ending != "safetensors") => {
            Err(Problems::one(place, "a file of none of these formats", EXPECTED))
        }
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
