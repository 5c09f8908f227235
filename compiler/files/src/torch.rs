//! Files of `torch.save` since PyTorch 1.6: a zip file with a pickle, which says what the tensors are, and an entry for each storage.
//!
//! Nothing of a pickle is executed. The machine in `pickle` knows the opcodes and the few globals that dictionaries of tensors are made
//! of; anything else is an error that names it. The tensors' bytes are mapped where they lie. The crate `zip` reads the directory; no
//! crate for the rest fits: `serde-pickle` knows no persistent ids, which storages are, and `pytorch-reader` (a pre-release) copies every
//! tensor and does not say where in the file it lies.

mod archive;
mod pickle;
mod state_dict;
mod tensor;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use s2dit_backends::stamp::Changed;
use s2dit_ir::{FileRegion, TensorType, WeightError, WeightSource};

use self::archive::Archive;
use self::pickle::Pickle;
pub use self::state_dict::StateDict;
pub use self::tensor::StridedTensor;
use crate::Door;
use crate::mapped::Mapped;
use crate::problems::Problems;

/// A mapped file with tensors as torch lays them: views of storages. An open file of `torch.save` is one of its dictionaries of tensors.
#[derive(Debug)]
pub struct TorchFile {
    file: Mapped,
    tensors: BTreeMap<String, StridedTensor>,
    format: String,
}

impl TorchFile {
    /// Opens a file; `state_dict` chooses one of several dictionaries of tensors.
    ///
    /// # Errors
    /// A file that cannot be read or is damaged; a pickle with anything but tensors and plain values; several dictionaries of tensors
    /// that may be meant; a tensor beyond its storage.
    pub fn open(path: &Path, state_dict: StateDict<'_>) -> Result<Self, Problems> {
        let place = path.display().to_string();
        let file = Mapped::open(path, "a file of torch.save")?;
        let (tensors, state_dict) = {
            let archive = Archive::open(file.bytes(), &place)?;
            let pickle = Pickle::read(archive.pickle(), &format!("{place}: {}", archive.pickle_name()))?;
            let (state_dict, named) = state_dict::choose(&pickle, state_dict, &place)?;
            let keys: BTreeSet<&str> = named.iter().map(|(_, view)| view.storage.key).collect();
            archive.check_storages(keys, &place)?;
            let mut problems = Problems::new();
            let mut tensors = BTreeMap::new();
            for (name, view) in named {
                let stored =
                    StridedTensor::of_view(&view, &archive, &format!("{place}: {}", crate::problems::shown(name)));
                tensors.extend(problems.absorb(stored).map(|stored| (name.to_owned(), stored)));
            }
            problems.into_result()?;
            (tensors, state_dict)
        };
        let format = match state_dict.as_str() {
            "" => "a PyTorch checkpoint".into(),
            keys => format!("a PyTorch checkpoint, its \"{keys}\""),
        };
        Ok(TorchFile { file, tensors, format })
    }

    /// Tensors of a file of another format, which says where they lie.
    ///
    /// # Errors
    /// A tensor that lies beyond the end of the file.
    pub fn of(file: Mapped, tensors: BTreeMap<String, StridedTensor>, format: String) -> Result<Self, Problems> {
        let size = file.bytes().len();
        match tensors.iter().find(|(_, tensor)| tensor.end() > size) {
            Some((name, _)) => {
                let place = format!("{}: {}", file.path().display(), crate::problems::shown(name));
                Err(Problems::one(
                    place,
                    "elements beyond the end of the file",
                    format!("a whole file; it has {size} bytes"),
                ))
            }
            None => Ok(TorchFile { file, tensors, format }),
        }
    }
}

/// The tensors of a dictionary that lies at the top of a file of `torch.save`, by name; other values of it are left out. The file lies in
/// `file`, from byte `begin` on: a program of `torch.export` has such files inside.
///
/// # Errors
/// See [`TorchFile::open`]; something else at the top.
pub fn named_tensors(
    file: &[u8],
    range: Range<usize>,
    place: &str,
) -> Result<BTreeMap<String, StridedTensor>, Problems> {
    let begin = range.start;
    let Some(bytes) = file.get(range) else {
        return Err(Problems::one(place, "an entry beyond the end of the file", "a whole file"));
    };
    let archive = Archive::open(bytes, place)?;
    let pickle = Pickle::read(archive.pickle(), &format!("{place}: {}", archive.pickle_name()))?;
    let mut problems = Problems::new();
    let mut tensors = BTreeMap::new();
    for (name, view) in state_dict::top(&pickle, place)? {
        let stored = StridedTensor::of_view(&view, &archive, &format!("{place}: {}", crate::problems::shown(name)));
        tensors.extend(problems.absorb(stored).map(|stored| (name.to_owned(), stored.inside(begin))));
    }
    problems.into_result().map(|()| tensors)
}

impl WeightSource for TorchFile {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.tensors.get(name).map(|stored| stored.ty.clone())
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        let stored = self.tensors.get(name).ok_or_else(|| WeightError::Missing { name: name.to_owned() })?;
        Ok(match stored.is_plain() {
            true => Cow::Borrowed(&self.file.bytes()[stored.span()]),
            false => Cow::Owned(stored.gathered(self.file.bytes(), 0..stored.ty.elements())),
        })
    }

    fn part(&self, name: &str, range: Range<usize>) -> Option<Result<Vec<u8>, WeightError>> {
        let stored = self.tensors.get(name).filter(|stored| !stored.is_plain())?;
        let size = stored.ty.dtype.size();
        let elements = range.start / size..range.end / size;
        if elements.end > stored.ty.elements() || elements.start > elements.end {
            let message = format!("no bytes {} to {} in {}", range.start, range.end, stored.ty);
            return Some(Err(WeightError::Read { name: name.to_owned(), message }));
        }
        Some(Ok(stored.gathered(self.file.bytes(), elements)))
    }

    fn region(&self, name: &str) -> Option<FileRegion> {
        let stored = self.tensors.get(name).filter(|stored| stored.is_plain())?;
        let span = stored.span();
        Some(FileRegion { path: self.file.path().to_owned(), offset: span.start as u64, len: span.len() as u64 })
    }

    fn done(&self, name: &str) {
        // The elements of a view may lie among those of others.
        if let Some(stored) = self.tensors.get(name).filter(|stored| stored.is_plain()) {
            self.file.drop_pages(stored.span());
        }
    }
}

impl Door for TorchFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn format(&self) -> String {
        self.format.clone()
    }

    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn check_unchanged(&self) -> Result<(), Changed> {
        self.file.check_unchanged()
    }
}

#[cfg(test)]
mod tests;
