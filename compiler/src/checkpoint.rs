//! Checkpoints in diffusers layout: a folder of `config.json` and memory-mapped safetensors, whole or sharded.
//!
//! Files are not trusted: everything that a header or an index says is checked before it is used. (What cannot be
//! checked: a file that another process shortens while it is mapped kills the reader, as with any memory map.)

mod file;
mod hash;
mod header;
mod index;
mod validate;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

use s2dit_ir::{DType, FileRegion, TensorType, WeightError, WeightSource};

pub use file::{SafetensorsFile, TensorInfo};

use crate::config::S2ditConfig;
use crate::problems::{Problem, Problems, quoted};

/// The configuration.
pub const CONFIG_FILE: &str = "config.json";
/// The weights, in one file.
pub const WEIGHTS_FILE: &str = "diffusion_pytorch_model.safetensors";
/// The index of sharded weights.
pub const INDEX_FILE: &str = "diffusion_pytorch_model.safetensors.index.json";

/// The element types that a checkpoint may have, by the names of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatType {
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    Fp16,
    /// IEEE single precision.
    Fp32,
}

impl FloatType {
    /// Every type.
    pub const ALL: [FloatType; 3] = [FloatType::Bf16, FloatType::Fp16, FloatType::Fp32];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FloatType::Bf16 => "bf16",
            FloatType::Fp16 => "fp16",
            FloatType::Fp32 => "fp32",
        }
    }

    /// The same type in the IR.
    #[must_use]
    pub const fn dtype(self) -> DType {
        match self {
            FloatType::Bf16 => DType::BF16,
            FloatType::Fp16 => DType::F16,
            FloatType::Fp32 => DType::F32,
        }
    }
}

impl fmt::Display for FloatType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FloatType {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        FloatType::ALL.into_iter().find(|ty| ty.name() == text).ok_or_else(|| Problem {
            place: "dtype".into(),
            found: quoted(text),
            expected: "\"bf16\", \"fp16\" or \"fp32\"".into(),
        })
    }
}

/// An open checkpoint: a valid configuration, and exactly the tensors that it calls for.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    config: S2ditConfig,
    weights: Weights,
    hash: OnceLock<blake3::Hash>,
}

/// The weight files of a checkpoint, and which of them holds each tensor.
#[derive(Debug)]
struct Weights {
    files: Vec<SafetensorsFile>,
    /// Tensor name to index in `files`.
    tensors: BTreeMap<String, usize>,
    /// Tensors that are there, but with a problem that is told already.
    damaged: BTreeSet<String>,
}

impl Checkpoint {
    /// Opens a checkpoint folder and checks it: configuration, files, tensors.
    ///
    /// # Errors
    /// Every problem found. Tensors are compared with the configuration only when both could be read.
    pub fn open(dir: &Path) -> Result<Self, Problems> {
        let place = dir.display().to_string();
        let folder = "a checkpoint folder with config.json and safetensors";
        match std::fs::metadata(dir) {
            Err(error) => return Err(Problems::one(place, error.to_string(), folder)),
            Ok(meta) if !meta.is_dir() => return Err(Problems::one(place, "a file", folder)),
            Ok(_) => {}
        }
        let mut problems = Problems::new();
        let config = problems.absorb(S2ditConfig::read(&dir.join(CONFIG_FILE)));
        let weights = problems.absorb(Weights::open(dir));
        let weights = weights.map(|(weights, damage)| {
            problems.extend(damage);
            weights
        });
        let (Some(config), Some(weights)) = (config, weights) else { return Err(problems) };
        let checkpoint = Checkpoint { dir: dir.to_owned(), config, weights, hash: OnceLock::new() };
        problems.absorb(checkpoint.validate(&checkpoint.config));
        problems.into_result().map(|()| checkpoint)
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &S2ditConfig {
        &self.config
    }

    /// The weight files.
    #[must_use]
    pub fn files(&self) -> &[SafetensorsFile] {
        &self.weights.files
    }

    /// The tensors, by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &str> {
        self.weights.tensors.keys().map(String::as_str)
    }

    /// Type and place of a tensor.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.file_of(name)?.get(name)
    }

    /// Parameters of the model.
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

    /// Compares the tensors with those a configuration calls for.
    ///
    /// # Errors
    /// Every tensor that is missing, extra, misshapen or of a wrong element type.
    pub fn validate(&self, config: &S2ditConfig) -> Result<(), Problems> {
        validate::validate(&self.dir.display().to_string(), &self.weights, config)
    }

    /// The hash of the tensors: names, types and contents, however they are spread over files. Computed once, on
    /// rayon's threads; may run beside other readers.
    pub fn content_hash(&self) -> blake3::Hash {
        *self.hash.get_or_init(|| hash::content_hash(&self.weights))
    }

    fn file_of(&self, name: &str) -> Option<&SafetensorsFile> {
        self.weights.file_of(name)
    }

    fn infos(&self) -> impl Iterator<Item = &TensorInfo> {
        self.weights.files.iter().flat_map(|file| file.tensors().map(|(_, info)| info))
    }
}

impl WeightSource for Checkpoint {
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

    fn done(&self, name: &str) {
        if let Some(file) = self.file_of(name) {
            file.done(name);
        }
    }
}

impl Weights {
    fn file_of(&self, name: &str) -> Option<&SafetensorsFile> {
        self.tensors.get(name).map(|file| &self.files[*file])
    }

    /// Opens the weights of a folder, whole or sharded, with what is wrong with them: if that is anything, they are good
    /// for finding more, and nothing else.
    fn open(dir: &Path) -> Result<(Self, Problems), Problems> {
        let whole = dir.join(WEIGHTS_FILE);
        let index = dir.join(INDEX_FILE);
        match (whole.exists(), index.exists()) {
            (true, false) => {
                let (file, problems) = SafetensorsFile::open_damaged(&whole)?;
                let tensors = file.tensors().map(|(name, _)| (name.to_owned(), 0)).collect();
                let damaged = file.damaged().map(str::to_owned).collect();
                Ok((Weights { files: vec![file], tensors, damaged }, problems))
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
}

/// What a folder without weights has instead, for the error message.
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

#[cfg(test)]
mod tests;
