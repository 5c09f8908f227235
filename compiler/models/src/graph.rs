//! An imported graph as a model: it has the one size that it was exported for. It has neither sampler nor stream but those that somebody
//! [gives](Graph::streaming_as) it.

use std::sync::Arc;

use s2dit_files::problems::{Problem, Problems, quoted};
use s2dit_import::Imported;
use s2dit_ir::interface::InputRole;
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
    stream: Option<GraphStream>,
}

/// How a graph of one chunk makes a stream: what the configuration of a checkpoint says, and a graph does not.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphStream {
    /// What is kept of the past. `chunk_frames` are the frames of the graph's latent.
    pub streaming: Streaming,
    /// Noise levels of the sampler, from high to low, above 0.
    pub sigmas: Vec<f64>,
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
            stream: None,
        }
    }

    /// The graph as that of a chunk of a stream.
    ///
    /// # Errors
    /// Another number of frames than the latent has; roles that a stream needs and that no input or result has; a batch; noise levels that
    /// are none.
    pub fn streaming_as(&self, stream: GraphStream) -> Result<Graph, Problems> {
        let mut problems = Problems::new();
        let interface = &self.module.interface;
        let missing = [
            (interface.latent().is_none(), "a latent", "latent"),
            (interface.time().is_none(), "a time", "time"),
            (interface.text().is_none(), "a text", "text"),
        ];
        for (_, what, role) in missing.into_iter().filter(|(missing, ..)| *missing) {
            problems.push(
                "stream",
                format!("no input that is {what}"),
                format!("one: --input {role}=NAME says which it is"),
            );
        }
        if let Some(name) = interface.time()
            && let Some(InputRole::Time { low, high }) = interface.role(name)
            && (*low, *high) != (0.0, 1000.0)
        {
            problems.push(
                "stream",
                format!("a time from {low} to {high}"),
                format!(
                    "one from 0 to 1000, which a sampler of streams counts in: multiply it in the model, and export it again; \
                     --input time={name}:0:1000 says that the model does count so"
                ),
            );
        }
        let Some(f) = self.module.functions.first() else { return Err(problems) };
        let shape = |name: &str| f.by_name(name).map(|v| f.shape(v));
        let latent = interface.latent().and_then(shape);
        if let Some(&[batch, _, frames, _, _]) = latent {
            let asked = stream.streaming.chunk_frames;
            if frames != asked {
                let expected = format!(
                    "{frames}, the latent frames that the graph was exported for: export it with a latent of {asked}, or give another with --bind \
                     if the size is symbolic"
                );
                problems.push("--chunk", asked.to_string(), expected);
            }
            if batch != 1 {
                problems.push("stream", format!("a batch of {batch}"), "1: a stream's states are those of one video");
            }
        } else if latent.is_some() {
            problems.push("stream", "a latent of another rank than 5", "[1, C, F, H, W]");
        }
        match &f.results[..] {
            [(_, v)] if latent.is_none_or(|latent| f.shape(*v) == latent) => {}
            [(name, v)] => problems.push(
                format!("stream: result {}", quoted(name)),
                f.ty(*v).to_string(),
                "the latent's shape: a stream feeds its own output back",
            ),
            several => problems.push(
                "stream",
                format!("{} results", several.len()),
                "one, the velocity: export a model that returns nothing else",
            ),
        }
        if stream.sigmas.is_empty()
            || !stream.sigmas.iter().all(|s| *s > 0.0 && *s <= 1.0 + 1e-9)
            || !stream.sigmas.is_sorted_by(|a, b| a > b)
        {
            problems.push(
                "--sample-steps",
                format!("noise levels {:?}", stream.sigmas),
                "timesteps from 1000 down to above 0, such as 1000,750,500,250, and a shift that leaves them apart",
            );
        }
        problems.into_result()?;
        Ok(Graph { stream: Some(stream), ..self.clone() })
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
        let given = self.stream.as_ref().map(|stream| Sampler::fixed(stream.sigmas.clone()));
        given.ok_or_else(|| self.lacks("sampler"))
    }

    fn streaming(&self) -> Result<Streaming, Problem> {
        self.stream.as_ref().map(|stream| stream.streaming).ok_or_else(|| self.lacks("stream"))
    }
}
