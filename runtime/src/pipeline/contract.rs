//! The contract of a pipeline: `pipeline.json`, all that a host needs to make a video from a prompt.
//!
//! These types are the format's one definition: the compiler writes with them what hosts read with them.

use std::path::Path;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Cleaning;
use crate::Error;
use crate::contract_file::ContractFile;
use crate::error::refuse;
use crate::ports::is_name;
use crate::sampler::{Sampler, Spacing, of_scheduler};
use crate::stream::contract::{Precision, Target};

/// The contract's file in the folder of a pipeline.
pub const FILE: &str = "pipeline.json";
/// The value of the field `format`.
pub const FORMAT: &str = "s2dit-video-pipeline";
/// The version that this build writes and reads.
pub const VERSION: u32 = 2;

const IS: ContractFile = ContractFile {
    file: FILE,
    format: FORMAT,
    version: VERSION,
    what: "pipeline",
    expected: "expected the folder of a pipeline, as `s2ditc compile PIPELINE --size COLSxROWS` makes it",
};
/// Files that say that a folder is no pipeline, where a `pipeline.json` is somebody else's.
const OTHERS: [&str; 4] = ["config.json", "model_index.json", "Manifest.json", crate::stream::contract::FILE];
/// Most rows or columns of pixels, and most frames.
const LARGEST_SIDE: usize = 1 << 16;
/// Most text tokens, and the greatest width of an embedding.
const LARGEST_TEXT: usize = 1 << 20;

/// A pipeline's contract.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// Compiler of the pipeline: `s2ditc 0.1.0`.
    pub compiler: String,
    /// Identity of the compile: [`Contract::identity`] of all that the contract says, `blake3:…`.
    pub id: String,
    /// Class of the pipeline in diffusers, such as `WanPipeline`.
    pub class: String,
    /// Format of the artifacts.
    pub target: Target,
    /// Whether the transformer makes a clip or a stream.
    pub mode: Mode,
    /// The latent that the transformer makes.
    pub latent: Latent,
    /// The video that the decoder makes of it.
    pub video: Video,
    /// The text that the transformer takes.
    pub text: Text,
    /// The scheduler of the pipeline folder.
    pub scheduler: Scheduler,
    /// How to sample unless somebody says otherwise.
    pub sampling: Sampling,
    /// The artifacts and the tokenizer.
    pub assets: Assets,
    /// Where the weights are from.
    pub source: Source,
}

/// What the transformer makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A whole clip, one call a step: the transformer is an artifact, a partition or a pair of experts.
    Clip,
    /// A stream of chunks: the transformer is a kernel folder.
    Stream,
}

/// The latent `[1, channels, frames, rows, cols]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latent {
    /// Latent channels.
    pub channels: usize,
    /// Latent frames: of the clip, or of a chunk of a stream.
    pub frames: usize,
    /// Latent rows.
    pub rows: usize,
    /// Latent columns.
    pub cols: usize,
}

impl Latent {
    /// `[1, C, F, H, W]`
    #[must_use]
    pub const fn shape(&self) -> [usize; 5] {
        [1, self.channels, self.frames, self.rows, self.cols]
    }
}

/// The video.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Video {
    /// Frames of the clip; a stream has any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<usize>,
    /// Rows of pixels.
    pub rows: usize,
    /// Columns of pixels.
    pub cols: usize,
    /// Frames in a second.
    pub fps: f64,
    /// Frames that a latent frame becomes; the first latent frame of a video becomes one.
    pub temporal_scale: usize,
    /// Rows, and columns, that one of the latent becomes.
    pub spatial_scale: usize,
}

/// The text: what the tokenizer makes, and how the text encoder and the transformer take it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Tokens, padding included: a longer prompt is cut.
    pub tokens: usize,
    /// Width of an embedding.
    pub width: usize,
    /// Token ids that the text encoder knows, from 0 on.
    pub vocabulary: usize,
    /// The token id that fills up a prompt.
    pub padding: u32,
    /// What is done to a prompt before it is tokenized.
    pub cleaning: Cleaning,
    /// The mask that the text encoder is called with.
    pub encoder_mask: EncoderMask,
    /// Whether embeddings are 0 where the text is padding. The compiled text encoder sees to it.
    pub zero_padding: bool,
    /// Whether the transformer takes `text_mask`: 1 where a token counts, 0 where it is padding.
    pub step_mask: bool,
    /// Whether the transformer takes `pooled`, the text encoder's one embedding of the whole text.
    pub pooled: bool,
}

/// The mask of text tokens that a text encoder is called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EncoderMask {
    /// It takes none.
    None,
    /// 1 where a token counts, 0 where it is padding.
    Tokens,
    /// 1 everywhere: the pipeline's text encoder sees padding.
    Ones,
}

/// The scheduler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scheduler {
    /// The kind.
    pub kind: SchedulerKind,
    /// Its class in diffusers, such as `UniPCMultistepScheduler`; empty for the sampler of a kernel.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub class: String,
    /// The fields of `scheduler_config.json`; one that is left out has the default of the class in diffusers.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub config: Map<String, Value>,
}

/// Kinds of schedulers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SchedulerKind {
    /// `UniPCMultistepScheduler` on flow matching.
    Unipc,
    /// `FlowMatchEulerDiscreteScheduler`.
    FlowMatchEuler,
    /// `DPMSolverMultistepScheduler` on flow matching.
    DpmSolver,
    /// The few noise levels that the kernel's `contract.json` lists.
    Kernel,
}

/// Defaults of sampling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Steps of a clip, or of each chunk.
    pub steps: usize,
    /// The noise levels that the scheduler starts from.
    pub levels: Levels,
    /// Prompts of a call of the transformer: 2 if a call serves a prompt and its negative.
    pub batch: usize,
    /// Strength of guidance `g`: `uncond + g·(cond − uncond)`; 1 or less is none.
    pub guidance: f64,
    /// The same below the boundary of two experts, if it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_2: Option<f64>,
    /// The negative prompt.
    pub negative: String,
}

impl Sampling {
    /// Whether a clip is made with guidance, unless somebody asks for another strength.
    #[must_use]
    pub fn is_guided(&self) -> bool {
        self.guidance > 1.0
    }

    /// How the transformer is called in a step, in words.
    #[must_use]
    pub fn calls(&self) -> &'static str {
        match (self.is_guided(), self.batch) {
            (false, 1) => "one call a step",
            (false, _) => "one call a step, with room for a second prompt",
            (true, 1) => "two calls a step: of the prompt and of its negative",
            (true, _) => "one call a step for the prompt and its negative",
        }
    }
}

/// Noise levels that a scheduler is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Levels {
    /// The pipeline gives a number of steps, and the scheduler makes the levels.
    Scheduler,
    /// The pipeline gives n levels from 1 to 1/n in equal steps, and the scheduler shifts them.
    Linear,
}

/// What the folder has. A pipeline may be compiled in part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assets {
    /// The tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerAsset>,
    /// The text encoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_encoder: Option<Asset>,
    /// The transformer, or both of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transformer: Option<Asset>,
    /// The decoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<Asset>,
}

/// A part of a pipeline that has weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Token ids to embeddings.
    TextEncoder,
    /// A latent, a time and embeddings to a velocity.
    Transformer,
    /// A latent to a video.
    Decoder,
}

impl Part {
    /// All of them, in the order in which they are called.
    pub const ALL: [Part; 3] = [Part::TextEncoder, Part::Transformer, Part::Decoder];

    /// The name in the contract and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Part::TextEncoder => "text_encoder",
            Part::Transformer => "transformer",
            Part::Decoder => "decoder",
        }
    }

    /// The name of the artifact or folder, without an extension.
    #[must_use]
    pub const fn stem(self) -> &'static str {
        match self {
            Part::TextEncoder => "TextEncoder",
            Part::Transformer => "Transformer",
            Part::Decoder => "Decoder",
        }
    }
}

impl Assets {
    /// The asset of a part.
    #[must_use]
    pub fn of(&self, part: Part) -> Option<&Asset> {
        match part {
            Part::TextEncoder => self.text_encoder.as_ref(),
            Part::Transformer => self.transformer.as_ref(),
            Part::Decoder => self.decoder.as_ref(),
        }
    }

    /// The parts that are there, in the order in which they are called.
    pub fn parts(&self) -> impl Iterator<Item = (Part, &Asset)> {
        Part::ALL.into_iter().filter_map(|part| Some((part, self.of(part)?)))
    }

    /// All files, the tokenizer's first.
    pub fn files(&self) -> impl Iterator<Item = &AssetFile> {
        let tokenizer = self.tokenizer.iter().flat_map(|tokenizer| &tokenizer.files);
        tokenizer.chain(self.parts().flat_map(|(_, asset)| &asset.files))
    }
}

/// A compiled model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asset {
    /// The file, package or folder beside the contract.
    pub path: String,
    /// The class of the model, such as `WanTransformer3DModel`.
    pub class: String,
    /// Its checkpoints, one unless it is a pair of experts.
    pub checkpoints: Vec<Checkpoint>,
    /// Arithmetic of the artifact.
    pub precision: Precision,
    /// The engine that a package is meant for: `ane`, `gpu` or `any` [Core ML].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<String>,
    /// Compression of its weights, as `--quantize` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    /// Bytes of its weights.
    pub weight_bytes: u64,
    /// Its files.
    pub files: Vec<AssetFile>,
}

/// What a model was compiled from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The component of the pipeline folder, such as `text_encoder` or `vae`.
    pub component: String,
    /// Content hash of its tensors: `blake3:…`.
    pub hash: String,
}

/// A file of an asset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssetFile {
    /// Path from the contract's folder, with slashes.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// The blake3 of its contents, 64 hexadecimal digits.
    pub blake3: String,
}

/// The tokenizer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerAsset {
    /// The folder beside the contract, with `tokenizer.json`.
    pub path: String,
    /// The class that transformers names, such as `T5TokenizerFast`.
    pub class: String,
    /// Its files.
    pub files: Vec<AssetFile>,
}

/// Where the weights are from, as far as the pipeline folder says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The name that the folder gives itself, such as that of its repository.
    pub name: Option<String>,
    /// The licence that its README names.
    pub licence: Option<String>,
}

impl Contract {
    /// The identity of a compile: the blake3 of the contract's text with an empty `id`. The contract names every file with its hash, so that another file, and
    /// any other change of the description, makes another identity.
    ///
    /// # Errors
    /// A number that JSON lacks.
    pub fn identity(&self) -> Result<String, Error> {
        let text = Contract { id: String::new(), ..self.clone() }.to_json()?;
        Ok(format!("blake3:{}", blake3::hash(text.as_bytes()).to_hex()))
    }

    /// The sampler of a pipeline that makes clips; `place` names the file in errors.
    ///
    /// # Errors
    /// The sampler of a kernel; a scheduler that is not supported.
    pub fn sampler(&self, place: &str) -> Result<Box<dyn Sampler>, Error> {
        let Scheduler { kind, class, config } = &self.scheduler;
        if *kind == SchedulerKind::Kernel {
            refuse!(
                Artifact,
                "{place}: scheduler.kind: found \"kernel\", expected a scheduler of diffusers, as clips have"
            );
        }
        let spacing = match self.sampling.levels {
            Levels::Scheduler => Spacing::Scheduler,
            Levels::Linear => Spacing::Linear,
        };
        of_scheduler(class, config, spacing, &format!("{place}: scheduler"))
    }

    /// Whether a folder is that of a pipeline, whole or damaged: it has a file of the contract's name, and nothing that makes it another folder.
    #[must_use]
    pub fn is_in(dir: &Path) -> bool {
        let has = |file: &str| dir.join(file).symlink_metadata().is_ok();
        has(FILE) && (IS.is_in(dir) || !OTHERS.iter().any(|file| has(file)))
    }

    /// Reads the contract of the folder `dir`.
    ///
    /// # Errors
    /// Not the folder of a pipeline; a contract of another format or version, or one that contradicts itself.
    pub fn read(dir: &Path) -> Result<Contract, Error> {
        let has = |file: &str| dir.join(file).is_file();
        if !has(FILE) && has("model_index.json") {
            refuse!(
                Artifact,
                "`{}`: found a pipeline folder of diffusers, expected a compiled pipeline: make one with s2ditc compile {} --size COLSxROWS",
                dir.display(),
                dir.display()
            );
        }
        let above = dir.parent().map(|above| if above.as_os_str().is_empty() { Path::new(".") } else { above });
        if let Some(above) = above.filter(|above| !has(FILE) && Contract::is_in(above)) {
            refuse!(
                Artifact,
                "`{}`: found a part of a compiled pipeline, expected the whole folder, `{}`",
                dir.display(),
                above.display()
            );
        }
        IS.read(dir, Contract::fits_itself)
    }

    /// The contract as the text of [`FILE`].
    ///
    /// # Errors
    /// A number that JSON lacks.
    pub fn to_json(&self) -> Result<String, Error> {
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::input(error.into()))?;
        Ok(text + "\n")
    }

    fn fits_itself(&self) -> Result<()> {
        let Contract { latent, video, text, sampling, assets, .. } = self;
        let sides = [
            ("latent.channels", latent.channels, LARGEST_SIDE),
            ("latent.frames", latent.frames, LARGEST_SIDE),
            ("latent.rows", latent.rows, LARGEST_SIDE),
            ("latent.cols", latent.cols, LARGEST_SIDE),
            ("video.rows", video.rows, LARGEST_SIDE),
            ("video.cols", video.cols, LARGEST_SIDE),
            ("video.temporal_scale", video.temporal_scale, LARGEST_SIDE),
            ("video.spatial_scale", video.spatial_scale, LARGEST_SIDE),
            ("text.tokens", text.tokens, LARGEST_TEXT),
            ("text.width", text.width, LARGEST_TEXT),
            ("sampling.steps", sampling.steps, LARGEST_SIDE),
        ];
        for (field, found, most) in sides {
            if found == 0 || found > most {
                bail!("field `{field}`: found {found}, expected 1 to {most}");
            }
        }
        for (field, found, expected) in [
            ("video.rows", video.rows, latent.rows * video.spatial_scale),
            ("video.cols", video.cols, latent.cols * video.spatial_scale),
        ] {
            if found != expected {
                bail!("field `{field}`: found {found}, expected {expected}, as `latent` and `video.spatial_scale` say");
            }
        }
        let frames = (self.mode == Mode::Clip).then(|| 1 + (latent.frames - 1) * video.temporal_scale);
        if video.frames != frames {
            let shown = |frames: Option<usize>| frames.map_or("none".to_owned(), |frames| frames.to_string());
            bail!(
                "field `video.frames`: found {}, expected {}, as `mode`, `latent` and `video.temporal_scale` say",
                shown(video.frames),
                shown(frames)
            );
        }
        for (field, found) in [
            ("video.fps", video.fps),
            ("sampling.guidance", sampling.guidance),
            ("sampling.guidance_2", sampling.guidance_2.unwrap_or(1.0)),
        ] {
            if !(found > 0.0 && found <= 1000.0) {
                bail!("field `{field}`: found {found}, expected a number above 0 and at most 1000");
            }
        }
        if !(1..=if self.mode == Mode::Clip { 2 } else { 1 }).contains(&sampling.batch) {
            bail!("field `sampling.batch`: found {}, expected 1, or 2 of a clip", sampling.batch);
        }
        if assets.tokenizer.is_some() && text.padding as usize >= text.vocabulary {
            bail!(
                "field `text.padding`: found {}, expected a token id below {}, as `text.vocabulary` says",
                text.padding,
                text.vocabulary
            );
        }
        if (self.mode == Mode::Stream) != (self.scheduler.kind == SchedulerKind::Kernel) {
            bail!("field `scheduler.kind`: found {:?}, which does not go with the `mode`", self.scheduler.kind);
        }
        self.check_files()?;
        let id = self.identity()?;
        if self.id != id {
            bail!(
                "field `id`: found {:?}, expected {id:?}, the hash of all that this file says: it was edited, or the parts are not of one compile; compile the \
                 pipeline again",
                self.id
            );
        }
        Ok(())
    }

    /// Checks that every file lies in its asset, and no file is there twice.
    fn check_files(&self) -> Result<()> {
        let Assets { tokenizer, .. } = &self.assets;
        let tokenizer = tokenizer.iter().map(|tokenizer| ("tokenizer", &tokenizer.path, &tokenizer.files));
        let parts = self.assets.parts().map(|(part, asset)| (part.name(), &asset.path, &asset.files));
        let mut seen: Vec<&str> = Vec::new();
        for (name, path, files) in tokenizer.chain(parts) {
            if !is_name(path) {
                bail!("field `assets.{name}.path`: found {path:?}, expected a plain name of something beside it");
            }
            if files.is_empty() {
                bail!("field `assets.{name}.files`: found none, expected at least one");
            }
            for file in files {
                let inside = file.path.strip_prefix(path.as_str()).is_some_and(|rest| {
                    rest.is_empty() || rest.starts_with('/') || (rest.starts_with('.') && !rest.contains('/'))
                });
                let plain = file.path.split('/').all(is_name);
                if !inside || !plain || seen.contains(&file.path.as_str()) {
                    bail!("field `assets.{name}.files`: found {:?}, expected a file of `{path}`, once", file.path);
                }
                if file.blake3.len() != 64 || !file.blake3.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                    bail!("`{}`: field `blake3`: found {:?}, expected 64 hexadecimal digits", file.path, file.blake3);
                }
                seen.push(&file.path);
            }
        }
        for (part, asset) in self.assets.parts() {
            let most = if part == Part::Transformer { 2 } else { 1 };
            if asset.checkpoints.is_empty() || asset.checkpoints.len() > most {
                let (name, found) = (part.name(), asset.checkpoints.len());
                bail!("field `assets.{name}.checkpoints`: found {found}, expected 1 to {most}");
            }
        }
        Ok(())
    }
}
