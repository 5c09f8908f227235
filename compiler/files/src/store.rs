//! The weight store of a folder: which safetensors file holds each tensor, whole or sharded.
//!
//! Files are not trusted: everything that a header or an index says is checked before it is used. Nor are other processes:
//! [`WeightStore::check_unchanged`] tells whether one wrote to the files meanwhile.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::OnceLock;

use s2dit_backends::stamp::Changed;
use s2dit_ir::{DType, FileRegion, TensorType, WeightError, WeightSource};

use crate::hash::Hashes;
use crate::problems::{Problems, quoted};
use crate::{SafetensorsFile, TensorInfo, index};

/// The weights, in one file.
pub const WEIGHTS_FILE: &str = "diffusion_pytorch_model.safetensors";
/// The index of sharded weights.
pub const INDEX_FILE: &str = "diffusion_pytorch_model.safetensors.index.json";

/// Weight files, and which of them holds each tensor. A store knows no model.
#[derive(Debug, Default)]
pub struct WeightStore {
    pub(crate) files: Vec<SafetensorsFile>,
    /// Tensor name to index in `files`.
    pub(crate) tensors: BTreeMap<String, usize>,
    /// Tensors that are there, but with a problem that is told already.
    pub(crate) damaged: BTreeSet<String>,
    hashes: OnceLock<Hashes>,
    hash: OnceLock<blake3::Hash>,
}

impl WeightStore {
    /// Opens the weights of a folder, whole or sharded.
    ///
    /// # Errors
    /// Every problem of the files.
    pub fn open(dir: &Path) -> Result<Self, Problems> {
        let (store, problems) = Self::open_damaged(dir)?;
        problems.into_result().map(|()| store)
    }

    /// Opens the weights of a folder with what is wrong with them: a store with problems is good for finding more of
    /// them, and its data must not be read.
    ///
    /// # Errors
    /// No weights, or none that can be read.
    pub fn open_damaged(dir: &Path) -> Result<(Self, Problems), Problems> {
        let whole = dir.join(WEIGHTS_FILE);
        let index = dir.join(INDEX_FILE);
        match (whole.exists(), index.exists()) {
            (true, false) => {
                let (file, problems) = SafetensorsFile::open_damaged(&whole)?;
                let tensors = file.tensors().map(|(name, _)| (name.to_owned(), 0)).collect();
                let damaged = file.damaged().map(str::to_owned).collect();
                Ok((WeightStore { files: vec![file], tensors, damaged, ..WeightStore::default() }, problems))
            }
            (false, true) => index::open(dir, &index),
            (true, true) => Err(Problems::one(
                dir.display().to_string(),
                format!("both {WEIGHTS_FILE} and {INDEX_FILE}"),
                "one of them",
            )),
            (false, false) => Err(Problems::one(
                dir.display().to_string(),
                weights_by_another_name(dir),
                format!("{WEIGHTS_FILE}, or shards with {INDEX_FILE}"),
            )),
        }
    }

    /// The weight files.
    #[must_use]
    pub fn files(&self) -> &[SafetensorsFile] {
        &self.files
    }

    /// Checks that no weight file has changed since it was opened.
    ///
    /// # Errors
    /// The first file that has.
    pub fn check_unchanged(&self) -> Result<(), Changed> {
        self.files.iter().try_for_each(SafetensorsFile::check_unchanged)
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Type and place of a tensor.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.file_of(name)?.get(name)
    }

    /// The file that holds a tensor.
    #[must_use]
    pub fn file_of(&self, name: &str) -> Option<&SafetensorsFile> {
        self.tensors.get(name).map(|file| &self.files[*file])
    }

    /// Whether a tensor has a problem that [`WeightStore::open_damaged`] told.
    #[must_use]
    pub fn is_damaged(&self, name: &str) -> bool {
        self.damaged.contains(name)
    }

    /// Elements of all tensors.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.infos().map(|info| info.ty.elements() as u64).sum()
    }

    /// Bytes of all tensors, as stored.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.infos().map(|info| info.ty.bytes() as u64).sum()
    }

    /// The element types in use, with the number of tensors of each.
    #[must_use]
    pub fn dtypes(&self) -> BTreeMap<DType, usize> {
        let mut counts = BTreeMap::new();
        for info in self.infos() {
            *counts.entry(info.ty.dtype).or_default() += 1;
        }
        counts
    }

    /// The hash of the tensors: names, types and contents, however they are spread over files. Computed once, on rayon's threads, of
    /// what was not hashed when it was [visited](WeightSource::visit); may run beside other readers.
    pub fn content_hash(&self) -> blake3::Hash {
        *self.hash.get_or_init(|| self.hashes().of_all(self))
    }

    fn hashes(&self) -> &Hashes {
        self.hashes.get_or_init(|| Hashes::new(self))
    }

    fn infos(&self) -> impl Iterator<Item = &TensorInfo> {
        self.files.iter().flat_map(|file| file.tensors().map(|(_, info)| info))
    }
}

impl WeightSource for WeightStore {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.get(name).map(|info| info.ty.clone())
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        match self.file_of(name) {
            Some(file) => WeightSource::bytes(file, name),
            None => Err(WeightError::Missing { name: name.to_owned() }),
        }
    }

    fn region(&self, name: &str) -> Option<FileRegion> {
        self.file_of(name)?.region(name)
    }

    fn visit(&self, name: &str, offset: u64, bytes: &[u8]) {
        if let Some(info) = self.get(name)
            && self.hash.get().is_none()
        {
            self.hashes().visit(name, info.ty.bytes(), offset as usize, bytes);
        }
    }

    fn done(&self, name: &str) {
        if let Some(file) = self.file_of(name) {
            file.done(name);
        }
    }
}

/// The weight files of other names in a folder, for the error message.
fn weights_by_another_name(dir: &Path) -> String {
    let endings = [".safetensors", ".safetensors.index.json", ".bin", ".pt", ".pth", ".ckpt", ".gguf"];
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| endings.iter().any(|ending| name.ends_with(ending)))
        .collect();
    names.sort();
    match names.as_slice() {
        [] => "no weights".to_owned(),
        [only] => format!("only {}", quoted(only)),
        [first, ..] => format!("only {} and {} more weight files", quoted(first), names.len() - 1),
    }
}
