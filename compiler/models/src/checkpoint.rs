//! Checkpoints in diffusers layout: a folder of `config.json` and memory-mapped safetensors, whole or sharded.

mod pipeline;
mod validate;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use s2dit_backends::stamp::{Changed, Stamp};
use s2dit_files::problems::{Problem, Problems};
use s2dit_files::{INDEX_FILE, TensorInfo, WeightStore};
use s2dit_ir::{FileRegion, TensorType, WeightError, WeightSource};

pub use pipeline::pipeline_problem;

use crate::config;
use crate::model::{Model, Sampler, Streaming};

/// The configuration.
pub const CONFIG_FILE: &str = "config.json";

/// An open checkpoint: a valid configuration, and exactly the tensors that it calls for.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    model: Arc<dyn Model>,
    /// The configuration's file and the index, as they were read.
    texts: Vec<Stamp>,
    weights: WeightStore,
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
        if let Some(problem) = pipeline_problem(dir) {
            return Err(problem.into());
        }
        // Before they are read: what changes meanwhile has changed.
        let texts = [CONFIG_FILE, INDEX_FILE].iter().filter_map(|name| Stamp::now(&dir.join(name)).ok()).collect();
        let mut problems = Problems::new();
        let model = problems.absorb(config::read(&dir.join(CONFIG_FILE)));
        let weights = problems.absorb(WeightStore::open_damaged(dir));
        let weights = weights.map(|(weights, damage)| {
            problems.extend(damage);
            weights
        });
        let (Some(model), Some(weights)) = (model, weights) else { return Err(problems) };
        let checkpoint = Checkpoint { dir: dir.to_owned(), model, texts, weights };
        problems.absorb(checkpoint.validate(&*checkpoint.model));
        problems.into_result().map(|()| checkpoint)
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The model that the configuration describes.
    #[must_use]
    pub fn model(&self) -> &dyn Model {
        &*self.model
    }

    /// The sampler that the checkpoint was made for.
    ///
    /// # Errors
    /// A model without one; the problem names the file and the field.
    pub fn sampler(&self) -> Result<Sampler, Problem> {
        self.model.sampler().map_err(|problem| self.in_config(problem))
    }

    /// What a stream of the model keeps.
    ///
    /// # Errors
    /// A model that does not stream; the problem names the file and the field.
    pub fn streaming(&self) -> Result<Streaming, Problem> {
        self.model.streaming().map_err(|problem| self.in_config(problem))
    }

    fn in_config(&self, problem: Problem) -> Problem {
        Problem { place: format!("{}: {}", self.dir.join(CONFIG_FILE).display(), problem.place), ..problem }
    }

    /// The weights.
    #[must_use]
    pub fn weights(&self) -> &WeightStore {
        &self.weights
    }

    /// Type and place of a tensor.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.weights.get(name)
    }

    /// Compares the tensors with those a model calls for.
    ///
    /// # Errors
    /// Every tensor that is missing, extra, misshapen or of a wrong element type.
    pub fn validate(&self, model: &dyn Model) -> Result<(), Problems> {
        validate::validate(&self.dir.display().to_string(), &self.weights, model)
    }

    /// Checks that no file of the checkpoint has changed since it was opened: what was computed from it meanwhile would be of no
    /// checkpoint at all.
    ///
    /// # Errors
    /// The first file that has.
    pub fn check_unchanged(&self) -> Result<(), Changed> {
        self.texts.iter().try_for_each(Stamp::check)?;
        self.weights.check_unchanged()
    }

    /// The hash of the tensors, see [`WeightStore::content_hash`].
    pub fn content_hash(&self) -> blake3::Hash {
        self.weights.content_hash()
    }
}

impl WeightSource for Checkpoint {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.weights.ty(name)
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        self.weights.bytes(name)
    }

    fn region(&self, name: &str) -> Option<FileRegion> {
        self.weights.region(name)
    }

    fn visit(&self, name: &str, offset: u64, bytes: &[u8]) {
        self.weights.visit(name, offset, bytes);
    }

    fn done(&self, name: &str) {
        self.weights.done(name);
    }
}

#[cfg(test)]
mod tests;
