//! An imported graph as a model: it has the one size that it was exported for, and neither sampler nor stream.

use std::sync::Arc;

use s2dit_files::problems::{Problem, Problems};
use s2dit_import::Imported;
use s2dit_ir::{Module, WeightSource};
use serde_json::{Value, json};

use crate::layers::BuildError;
use crate::model::{Family, Layer, Model, Outline, Sampler, Streaming};
use crate::size::{Grid, LatentSize, Size, StepSize};
use crate::tensor::{Role, TensorSpec};

/// The family of imported graphs. It reads no configuration: a graph comes with its file.
#[derive(Debug)]
pub struct Graphs;

const CLASS: &str = "Graph";

impl Family for Graphs {
    fn name(&self) -> &'static str {
        "an imported graph"
    }

    fn class(&self) -> &'static str {
        CLASS
    }

    fn presets(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn preset(&self, _: &str) -> Option<Arc<dyn Model>> {
        None
    }

    fn fields(&self) -> &'static [&'static str] {
        &["_class_name", "format", "graph"]
    }

    fn parse(&self, _: Vec<(String, Value)>, place: &str) -> Result<Arc<dyn Model>, Problems> {
        Err(Problems::one(place, "the configuration of an imported graph", "the graph's file itself"))
    }
}

/// A graph that was imported.
#[derive(Clone, Debug)]
pub struct Graph {
    module: Module,
    importer: &'static str,
    format: String,
    guessed: Vec<String>,
    hash: blake3::Hash,
    tensors: Vec<TensorSpec>,
}

impl Graph {
    /// The model of an imported graph.
    #[must_use]
    pub fn new(imported: &Imported) -> Graph {
        let tensors = imported.weights.names().filter_map(|name| {
            let shape = imported.weights.ty(name)?.shape;
            Some(TensorSpec { name: name.to_owned(), shape, role: Role::LinearWeight, group: "weights" })
        });
        Graph {
            tensors: tensors.collect(),
            module: imported.module.clone(),
            importer: imported.importer,
            format: imported.format.clone(),
            guessed: imported.guessed.clone(),
            hash: imported.hash,
        }
    }

    /// Name of the importer that read it, such as `onnx`.
    #[must_use]
    pub fn importer(&self) -> &'static str {
        self.importer
    }

    /// Names of its inputs and of its results, in the file's order.
    #[must_use]
    pub fn names(&self) -> (Vec<&str>, Vec<&str>) {
        let Some(f) = self.module.functions.first() else { return (Vec::new(), Vec::new()) };
        let inputs = f.params().iter().filter_map(|p| f.node(*p).name.as_deref());
        (inputs.collect(), f.results.iter().map(|(name, _)| name.as_str()).collect())
    }

    /// The format and its producer, such as `PT2 of torch 2.7.1`.
    #[must_use]
    pub fn format(&self) -> &str {
        &self.format
    }

    /// Inputs and results whose roles were guessed.
    #[must_use]
    pub fn guessed(&self) -> &[String] {
        &self.guessed
    }

    /// The size of its latent, if one of its inputs is one.
    fn latent(&self) -> Option<LatentSize> {
        let f = self.module.functions.first()?;
        match f.shape(f.by_name(self.module.interface.latent()?)?) {
            &[_, _, frames, rows, cols] => Some(LatentSize { frames, rows, cols }),
            _ => None,
        }
    }

    /// The size that it was exported for.
    #[must_use]
    pub fn size(&self) -> Size {
        let step = |latent| Size::Latent(StepSize { latent, batch: self.batch().unwrap_or(1) });
        self.latent().map_or(Size::Only, step)
    }

    /// Clips in its latent, if one of its inputs is one.
    fn batch(&self) -> Option<usize> {
        let f = self.module.functions.first()?;
        f.shape(f.by_name(self.module.interface.latent()?)?).first().copied()
    }

    fn check(&self, size: Size) -> Result<(), Problems> {
        let StepSize { latent, batch } = match size {
            Size::Only => return Ok(()),
            Size::Latent(step) => step,
            Size::Tokens(tokens) => {
                let expected = "none: the graph has the size that it was exported for";
                return Err(Problems::one("text tokens (--tokens)", tokens.to_string(), expected));
            }
        };
        match self.latent() {
            Some(own) if own != latent => Err(Problems::one(
                "latent size",
                latent.to_string(),
                format!("{own}, which the graph was exported for: export it for another, or leave --latent out"),
            )),
            None => Err(Problems::one(
                "latent size",
                latent.to_string(),
                "none: no input of the graph is a latent (--input latent=NAME says which is)",
            )),
            Some(_) => match self.batch() {
                Some(own) if own != batch => Err(Problems::one(
                    "batch",
                    batch.to_string(),
                    format!("{own}, which the graph was exported for: export it for another"),
                )),
                _ => Ok(()),
            },
        }
    }

    fn lacks(&self, what: &str) -> Problem {
        Problem {
            place: "graph".into(),
            found: format!("no {what} in {}", self.format),
            expected: "a checkpoint of a model family, which knows it".into(),
        }
    }
}

impl Model for Graph {
    fn family(&self) -> &'static dyn Family {
        &Graphs
    }

    fn config(&self) -> Value {
        json!({ "_class_name": CLASS, "format": self.importer, "graph": format!("blake3:{}", self.hash.to_hex()) })
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        self.tensors.clone()
    }

    fn grid(&self, size: Size) -> Result<Grid, Problems> {
        self.check(size)?;
        let latent = self.latent().unwrap_or(LatentSize { frames: 1, rows: 1, cols: 1 });
        Ok(Grid { frames: latent.frames, rows: latent.rows, cols: latent.cols })
    }

    fn usual_size(&self, _: LatentSize) -> Size {
        self.size()
    }

    fn build(&self, _: &dyn WeightSource, size: Size) -> Result<Module, BuildError> {
        self.check(size)?;
        Ok(self.module.clone())
    }

    fn graph(&self) -> Option<&Graph> {
        Some(self)
    }

    fn outline(&self) -> Outline {
        let blocks = self.module.interface.milestones.len();
        let layer = Layer { kind: "block", blocks: 0..blocks, stride: 1, stage: None };
        Outline { width: 0, heads: 0, head_dim: 0, layers: vec![layer] }
    }

    fn sampler(&self) -> Result<Sampler, Problem> {
        Err(self.lacks("sampler"))
    }

    fn streaming(&self) -> Result<Streaming, Problem> {
        Err(self.lacks("stream"))
    }
}
