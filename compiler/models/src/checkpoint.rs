//! Checkpoints: a configuration and the memory-mapped weights of a folder or a file, under the names that the model calls for.

mod beside;
mod lora;
mod naming;
mod origin;
mod pipeline;
mod repository;
mod validate;

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use s2dit_backends::stamp::{Changed, Stamp};
use s2dit_files::problems::{Problem, Problems};
use s2dit_files::{StateDict, WeightStore};
use s2dit_import::Importer;
use s2dit_ir::{FileRegion, TensorType, WeightError, WeightSource};

pub use beside::FieldOrigin;
pub use lora::Merged;
pub use naming::Naming;
pub use origin::{Lora, Origin};
pub use pipeline::{CONFIG_FILE, PIPELINE_FILE, PipelineFolder};
pub use repository::{Wanted, locate};

use self::naming::Names;
use self::origin::Place;
use crate::graph::{Graph, GraphStream};
use crate::model::{Model, Sampler, Streaming};

/// An open checkpoint: a valid configuration, and exactly the tensors that it calls for.
#[derive(Debug)]
pub struct Checkpoint {
    place: Place,
    model: Arc<dyn Model>,
    /// Fields that may come from beside the configuration.
    origins: Vec<FieldOrigin>,
    /// The files of the configuration and the index, as they were read.
    texts: Vec<Stamp>,
    weights: WeightStore,
    naming: Naming,
    loras: Vec<lora::Open>,
}

impl Checkpoint {
    /// Opens a checkpoint folder, that of the one transformer of a pipeline folder, or a file of weights with `config.json` beside it, and checks it: configuration, files, tensors.
    ///
    /// # Errors
    /// See [`Checkpoint::open_from`].
    pub fn open(path: &Path) -> Result<Self, Problems> {
        Checkpoint::open_from(&path.into())
    }

    /// Opens a checkpoint and checks it: configuration, files, tensors, adapters.
    ///
    /// # Errors
    /// Every problem found. Tensors are compared with the configuration only when both could be read.
    pub fn open_from(origin: &Origin) -> Result<Self, Problems> {
        let place = Place::find(origin)?;
        if let Place::Graph { importer, .. } = place {
            return Checkpoint::import(place, importer, origin);
        }
        if !origin.ask.is_empty() {
            return Err(Problems::one(
                place.path().display().to_string(),
                "a checkpoint, and --input, --result or --bind",
                "none of them: the model family knows the roles of its inputs",
            ));
        }
        // Before they are read: what changes meanwhile has changed.
        let said = place.texts().into_iter().chain(beside::files(place.config(), place.path()));
        let texts = said.filter_map(|path| Stamp::now(&path).ok()).collect();
        let mut problems = Problems::new();
        let read = problems.absorb(beside::read(place.config(), place.path()));
        let names = read.as_ref().map(|read| Names::new(&*read.model));
        let knows = |name: &str| names.as_ref().is_some_and(|names| names.knows(name));
        let meant = origin.state_dict.as_deref().map_or(StateDict::Known(&knows), StateDict::Named);
        let weights = match &place {
            Place::Folder { dir, .. } => WeightStore::open_damaged(dir, meant),
            // What is no file of weights has no configuration either.
            Place::File { file, .. } | Place::Graph { file, .. } => Ok(WeightStore::open_file(file, meant)?),
        };
        let weights = problems.absorb(weights).map(|(weights, damage)| {
            problems.extend(damage);
            weights
        });
        let (Some(read), Some(names), Some(mut weights)) = (read, names, weights) else { return Err(problems) };
        let beside::Read { model, origins } = read;
        let naming = problems.absorb(names.apply(&mut weights)).unwrap_or_default();
        let mut checkpoint = Checkpoint { place, model, origins, texts, weights, naming, loras: Vec::new() };
        problems.absorb(checkpoint.validate(&*checkpoint.model));
        problems.into_result()?;
        checkpoint.merge(&origin.loras, &names)?;
        Ok(checkpoint)
    }

    /// Opens a graph with its weights.
    fn import(place: Place, importer: &'static dyn Importer, origin: &Origin) -> Result<Self, Problems> {
        let texts = Stamp::now(place.path()).ok().into_iter().collect();
        let imported = s2dit_import::import(importer, place.path(), &origin.ask)?;
        let model = Arc::new(Graph::new(&imported));
        let names = Names::new(&*model);
        let (weights, naming) = (imported.weights, Naming::default());
        let mut checkpoint =
            Checkpoint { place, model, origins: Vec::new(), texts, weights, naming, loras: Vec::new() };
        checkpoint.merge(&origin.loras, &names)?;
        Ok(checkpoint)
    }

    /// Takes the graph that was imported for that of a chunk of a stream.
    ///
    /// # Errors
    /// A checkpoint, whose own configuration says how it streams; see [`Graph::streaming_as`].
    pub fn stream_as(&mut self, stream: GraphStream) -> Result<(), Problems> {
        let place = self.path().display().to_string();
        let Some(graph) = self.model.graph() else {
            return Err(Problems::one(
                place,
                "a checkpoint",
                "a graph: a checkpoint's configuration says how it streams",
            ));
        };
        self.model = Arc::new(graph.streaming_as(stream)?);
        Ok(())
    }

    /// Merges adapters into the weights, in order.
    fn merge(&mut self, loras: &[Lora], names: &Names) -> Result<(), Problems> {
        let mut problems = Problems::new();
        for lora in loras {
            self.loras.extend(problems.absorb(lora::merge(&mut self.weights, lora, names)));
        }
        problems.into_result()
    }

    /// The folder or the file of the weights.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// The file of the configuration.
    #[must_use]
    pub fn config_file(&self) -> &Path {
        self.place.config()
    }

    /// Every file that the checkpoint is read from.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let doors = self.weights.doors().iter().map(|door| door.path());
        let loras = self.loras.iter().map(|lora| lora.door.path());
        self.place.texts().into_iter().chain(doors.chain(loras).map(Path::to_owned)).collect()
    }

    /// What its files are: `safetensors`, or another format.
    #[must_use]
    pub fn format(&self) -> String {
        match self.model.graph() {
            Some(graph) => graph.format().to_owned(),
            None => self.weights.doors().first().map(|door| door.format()).unwrap_or_default(),
        }
    }

    /// How the names in its files became those of the model.
    #[must_use]
    pub fn naming(&self) -> &Naming {
        &self.naming
    }

    /// The adapters that are merged into its weights, in order.
    pub fn loras(&self) -> impl ExactSizeIterator<Item = &Merged> {
        self.loras.iter().map(|lora| &lora.merged)
    }

    /// The model that the configuration describes.
    #[must_use]
    pub fn model(&self) -> &dyn Model {
        &*self.model
    }

    /// The fields that a pipeline's transformer does not have in its own configuration, and where their values are from.
    #[must_use]
    pub fn origins(&self) -> &[FieldOrigin] {
        &self.origins
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
        Problem { place: format!("{}: {}", self.config_file().display(), problem.place), ..problem }
    }

    /// The weights.
    #[must_use]
    pub fn weights(&self) -> &WeightStore {
        &self.weights
    }

    /// Compares the tensors with those a model calls for.
    ///
    /// # Errors
    /// Every tensor that is missing, extra, misshapen or of a wrong element type.
    pub fn validate(&self, model: &dyn Model) -> Result<(), Problems> {
        validate::validate(&self.path().display().to_string(), &self.weights, model)
    }

    /// Checks that no file of the checkpoint has changed since it was opened: what was computed from it meanwhile would be of no
    /// checkpoint at all.
    ///
    /// # Errors
    /// The first file that has.
    pub fn check_unchanged(&self) -> Result<(), Changed> {
        self.texts.iter().try_for_each(Stamp::check)?;
        self.loras.iter().try_for_each(lora::Open::check_unchanged)?;
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

    fn part(&self, name: &str, range: Range<usize>) -> Option<Result<Vec<u8>, WeightError>> {
        self.weights.part(name, range)
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
