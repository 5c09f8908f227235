//! The seam where a model comes in: a [`Family`] reads configurations, and a [`Model`] is one of them.
//!
//! The rest of the compiler knows models through these traits and through the [`s2dit_ir::Interface`] of the graphs that they build.
//! Capabilities that a model may lack, such as a sampler or streaming, are asked for and refused by name.

use std::fmt::{self, Debug};
use std::ops::Range;
use std::sync::Arc;

use s2dit_ir::{Module, WeightSource};
use s2dit_runtime::sampler::euler_sigmas;
use s2dit_runtime::stream::contract::StateWrite;
use serde_json::Value;

use crate::graph::Graph;
use crate::layers::BuildError;
use crate::size::{Grid, LatentSize, Size};
use crate::tensor::TensorSpec;
use s2dit_files::problems::{Problem, Problems};
use s2dit_files::{TRANSFORMERS_FILE, WEIGHTS_FILE};

/// What a model does in a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// One step of diffusion: a latent, a time and a text to a velocity.
    Step,
    /// Token ids to embeddings.
    TextEncoder,
    /// A latent to a video.
    Decoder,
}

impl Part {
    /// The field of `config.json` that names the class: transformers has text encoders, diffusers all else.
    #[must_use]
    pub fn class_field(self) -> &'static str {
        match self {
            Part::TextEncoder => "architectures",
            Part::Step | Part::Decoder => "_class_name",
        }
    }

    /// What the library of the class calls the weights, if they are one file.
    #[must_use]
    pub fn weights_file(self) -> &'static str {
        match self {
            Part::TextEncoder => TRANSFORMERS_FILE,
            Part::Step | Part::Decoder => WEIGHTS_FILE,
        }
    }
}

/// `step`
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Step => "step",
            Part::TextEncoder => "text encoder",
            Part::Decoder => "decoder",
        })
    }
}

/// A family of models: the classes of diffusers or transformers that it reads, and its presets.
pub trait Family: Debug + Sync {
    /// Name for people, such as `Wan 2.1`.
    fn name(&self) -> &'static str;

    /// What its models do in a pipeline.
    fn part(&self) -> Part {
        Part::Step
    }

    /// The class that its configurations name, in the field [`Part::class_field`].
    fn class(&self) -> &'static str;

    /// The `_class_name` of the model's own repository, if its configurations are read as well.
    fn original_class(&self) -> Option<&'static str> {
        None
    }

    /// The names that tensors have in the model's own repository, where they differ: of a name, the first line that fits counts.
    fn original(&self) -> &'static [Renaming] {
        &[]
    }

    /// What its lists of blocks are called in the model's own repository, where that differs.
    fn original_blocks(&self) -> Option<Renaming> {
        None
    }

    /// Layers that the model's own repository has as one, whose weights lie one below the other.
    fn joined(&self) -> &'static [Joined] {
        &[]
    }

    /// Names of its presets.
    fn presets(&self) -> Vec<&'static str>;

    /// The model of a preset; `None` for a name that is not in [`Family::presets`].
    fn preset(&self, name: &str) -> Option<Arc<dyn Model>>;

    /// Fields of its `config.json`, in the order in which they are written.
    fn fields(&self) -> &'static [&'static str];

    /// The fields that its sampler comes from.
    fn sampler_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// Fields that the transformer's `config.json` of diffusers does not have: a pipeline folder keeps them elsewhere, or nowhere.
    fn pipeline_fields(&self) -> &'static [PipelineField] {
        &[]
    }

    /// Reads the entries of a configuration; `place` names it in problems. A field whose name starts with `_` is metadata.
    ///
    /// # Errors
    /// Every problem of the configuration.
    fn parse(&self, entries: Vec<(String, Value)>, place: &str) -> Result<Arc<dyn Model>, Problems>;
}

/// A field of a configuration that a pipeline folder keeps beside the transformer.
#[derive(Clone, Copy, Debug)]
pub struct PipelineField {
    /// Name of the field.
    pub field: &'static str,
    /// The file that has it, under the first of these names that is there; `None` for a default of the pipeline's code.
    pub kept: Option<(PipelineFile, &'static [&'static str])>,
    /// What the code of pipelines has for it, if it is not the family's default: the class of the pipeline, and the value as JSON.
    pub code: &'static [(&'static str, &'static str)],
}

/// A file of a pipeline folder that says something of its transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipelineFile {
    /// `model_index.json`
    Index,
    /// `scheduler/scheduler_config.json`
    Scheduler,
}

/// A run of segments in the names of tensors, between dots, that is called otherwise in the model's own repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renaming {
    /// The segments there, such as `self_attn.q`.
    pub original: &'static str,
    /// The segments in the names of diffusers, such as `attn1.to_q`.
    pub name: &'static str,
}

/// A layer of the model's own repository that is several here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The segments there, such as `attn.qkv`.
    pub original: &'static str,
    /// The segments in the names of diffusers, from the first rows on.
    pub names: &'static [&'static str],
}

impl Renaming {
    /// A name with the first such run replaced; `None` if the name has none.
    #[must_use]
    pub fn applied(&self, name: &str) -> Option<String> {
        let dotted = format!(".{name}.");
        let (before, after) = dotted.split_once(&format!(".{}.", self.original))?;
        Some(format!("{before}.{}.{after}", self.name).trim_matches('.').to_owned())
    }
}

/// A model: a configuration of a [`Family`] and all that follows from it.
pub trait Model: Debug + Send + Sync {
    /// The family.
    fn family(&self) -> &'static dyn Family;

    /// The configuration, every field of the family in order.
    fn config(&self) -> Value;

    /// The tensors that a checkpoint must have, in the order of the forward pass.
    fn tensors(&self) -> Vec<TensorSpec>;

    /// Whether a tensor that [`Model::tensors`] does not list may lie in a checkpoint all the same: what older programs wrote and none
    /// reads.
    fn is_idle(&self, _tensor: &str) -> bool {
        false
    }

    /// The grid of the tokens that its blocks see; those of a text are one row.
    ///
    /// # Errors
    /// A size that does not fit the model; values that no machine would hold.
    fn grid(&self, size: Size) -> Result<Grid, Problems>;

    /// The size where nobody names one: of a model that takes a latent the nearest to `latent` that fits, of a text encoder the tokens
    /// that pipelines pad a text to.
    fn usual_size(&self, latent: LatentSize) -> Size;

    /// The model as one function `main` with its interface, every value f32 but for token ids of i32, in plain tensor ops as PyTorch would
    /// trace it. Ops have the module paths of the checkpoint as provenance.
    ///
    /// # Errors
    /// A size that does not fit; a tensor that the weights lack.
    fn build(&self, weights: &dyn WeightSource, size: Size) -> Result<Module, BuildError>;

    /// The imported graph, if the model is one.
    fn graph(&self) -> Option<&Graph> {
        None
    }

    /// The layers, as `inspect` draws them.
    fn outline(&self) -> Outline;

    /// The sampler that the checkpoint was made for.
    ///
    /// # Errors
    /// A model that has none: the field or the class that says so.
    fn sampler(&self) -> Result<Sampler, Problem> {
        Err(lacks(self.family(), "a model of diffusion, which has a sampler"))
    }

    /// Frames of video that a latent frame becomes: the stride in time of the autoencoder whose latents the model makes.
    fn temporal_scale(&self) -> usize {
        4
    }

    /// What a stream of the model keeps.
    ///
    /// # Errors
    /// A model that does not stream: the field or the class that says so.
    fn streaming(&self) -> Result<Streaming, Problem> {
        Err(lacks(self.family(), "an autoregressive model, which streams; compile this one with --mode clip"))
    }

    /// A decoder that makes a video chunk by chunk, as two functions that share states: `first` for the first chunk of a video and `next` for each of the
    /// others. Both take a latent of the size `chunk`. States start as zeros; `first` reads none.
    ///
    /// # Errors
    /// A model that is no decoder, or one whose frames see frames that follow; a size that does not fit; a tensor that the weights lack.
    fn build_chunks(&self, _weights: &dyn WeightSource, _chunk: LatentSize) -> Result<Module, BuildError> {
        let expected = "a decoder whose frames see only frames before them; compile this one with --mode clip";
        Err(Problems::from(lacks(self.family(), expected)).into())
    }
}

/// What a model of a family is not.
fn lacks(family: &dyn Family, expected: &str) -> Problem {
    let found = format!("{} (a {})", family.class(), family.part());
    Problem { place: family.part().class_field().into(), found, expected: expected.into() }
}

/// The steps of a sampler of flow matching.
#[derive(Clone, Debug, PartialEq)]
pub enum Sampler {
    /// A few fixed noise levels, each re-noised from the estimate before it: an autoregressive model.
    Fixed {
        /// Noise levels σ after the shift, from high to low, above 0.
        sigmas: Vec<f64>,
        /// The timestep that the network is called with at each.
        timesteps: Vec<f64>,
    },
    /// Euler steps from σ = 1 to 0.
    Euler {
        /// Number of steps unless somebody asks for another.
        steps: usize,
        /// Shift of the noise levels: `s·σ / (1 + (s − 1)·σ)`.
        shift: f64,
    },
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sampler::Fixed { sigmas, .. } => write!(f, "{} fixed noise levels {sigmas:?}", sigmas.len()),
            Sampler::Euler { steps, shift } => write!(f, "{steps} Euler steps of shift {shift}"),
        }
    }
}

impl Sampler {
    /// Fixed noise levels, the network called with 1000·σ.
    #[must_use]
    pub fn fixed(sigmas: Vec<f64>) -> Sampler {
        Sampler::Fixed { timesteps: sigmas.iter().map(|s| 1000.0 * s).collect(), sigmas }
    }

    /// The noise levels at which the network is called, from high to low.
    #[must_use]
    pub fn sigmas(&self) -> Vec<f64> {
        match self {
            Sampler::Fixed { sigmas, .. } => sigmas.clone(),
            Sampler::Euler { steps, shift } => {
                let mut sigmas = euler_sigmas(*steps, *shift);
                sigmas.truncate(*steps);
                sigmas
            }
        }
    }

    /// The timesteps that the network is called with, in fp32, in the sampler's order: 1000·σ of Euler steps.
    #[must_use]
    pub fn timesteps(&self) -> Vec<f64> {
        let exact = match self {
            Sampler::Fixed { timesteps, .. } => timesteps.clone(),
            Sampler::Euler { .. } => self.sigmas().into_iter().map(|s| 1000.0 * s).collect(),
        };
        exact.into_iter().map(|t| f64::from(t as f32)).collect()
    }
}

/// What a stream of an autoregressive model keeps from chunk to chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streaming {
    /// Latent frames of a chunk.
    pub chunk_frames: usize,
    /// Latent frames in the key/value windows, without the current chunk.
    pub window_frames: usize,
    /// Latent frames at the start of a stream that never leave the windows: an attention sink.
    pub sink_frames: usize,
    /// Convolutions along time see frames of the chunk that follow, and zeros behind its last.
    pub ahead: bool,
    /// The pass over a chunk that writes the states.
    pub state_write: StateWrite,
}

/// The layers of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Hidden width.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Runs of blocks of one kind, in order.
    pub layers: Vec<Layer>,
}

/// A run of blocks of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Kind of every block in it, such as `full`.
    pub kind: &'static str,
    /// The blocks.
    pub blocks: Range<usize>,
    /// Spatial stride of the grid that its blocks run on; 1 for the token grid.
    pub stride: usize,
    /// Number of the low-resolution stage, if the run is one.
    pub stage: Option<usize>,
}

impl Outline {
    /// Number of blocks.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.layers.iter().map(|layer| layer.blocks.len()).sum()
    }

    /// The layers in one line: `4×lcha, 3×ssa, 5×lcha`.
    #[must_use]
    pub fn sandwich(&self) -> String {
        let layers: Vec<String> = self.layers.iter().map(|l| format!("{}×{}", l.blocks.len(), l.kind)).collect();
        layers.join(", ")
    }

    /// The kind of a block.
    #[must_use]
    pub fn kind(&self, block: usize) -> Option<&'static str> {
        self.layers.iter().find(|layer| layer.blocks.contains(&block)).map(|layer| layer.kind)
    }
}
