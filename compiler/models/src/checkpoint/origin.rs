//! Where a checkpoint is and how it is read, as the command line says it, and what lies there.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use s2dit_backends::foreign::Foreign;
use s2dit_files::problems::{Problem, Problems, quoted};
use s2dit_files::{SafetensorsFile, WEIGHTS, index_of};
use s2dit_import::{Ask, GivenInput, Importer, importer_of};
use s2dit_ir::Interface;
use s2dit_runtime::pipeline::{Contract, FILE};

use super::{CONFIG_FILE, PipelineFolder};

/// Where a checkpoint is and how it is read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    /// A folder with a configuration and weights, a pipeline folder, or one file of weights.
    pub path: PathBuf,
    /// The configuration, if it is not `config.json` in the folder of the weights.
    pub config: Option<PathBuf>,
    /// Which dictionary of tensors to take of a file of `torch.save`.
    pub state_dict: Option<String>,
    /// Adapters that are merged into the weights, in order.
    pub loras: Vec<Lora>,
    /// What is said of a graph: roles and symbolic sizes.
    pub ask: Ask,
}

/// The weights in the folder or file, with nothing else said.
impl From<&Path> for Origin {
    fn from(path: &Path) -> Self {
        Origin { path: path.to_owned(), ..Origin::default() }
    }
}

impl Origin {
    /// The same with the roles that an artifact says the inputs have, if a graph lies there and none was given.
    #[must_use]
    pub fn with_roles_of(&self, interface: &Interface) -> Origin {
        let mut origin = self.clone();
        if origin.ask.inputs.is_empty() && importer_of(&origin.path).is_some() {
            let said = interface.inputs.iter();
            origin.ask.inputs = said.map(|i| GivenInput { name: i.name.clone(), role: i.role.clone() }).collect();
        }
        origin
    }
}

/// `wan.pt --lora fast.safetensors:0.5`
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        self.loras.iter().try_for_each(|lora| write!(f, " --lora {lora}"))
    }
}

/// An adapter and how much of it is added.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// The file, or the folder in which PEFT saved one.
    pub path: PathBuf,
    /// The multiple of the adapter that is added: 1 adds it as it was trained.
    pub scale: f64,
}

impl fmt::Display for Lora {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.scale)
    }
}

/// `FILE` or `FILE:SCALE`.
impl FromStr for Lora {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let problem = || Problem {
            place: "--lora".into(),
            found: quoted(text),
            expected: "FILE or FILE:SCALE with a finite number, such as fast.safetensors:0.8".into(),
        };
        let (path, scale) = match text.rsplit_once(':').map(|(path, scale)| (path, scale.trim().parse::<f64>())) {
            Some((path, Ok(scale))) => (path, scale),
            _ => (text, 1.0),
        };
        match scale.is_finite() && !path.is_empty() {
            true => Ok(Lora { path: path.into(), scale }),
            false => Err(problem()),
        }
    }
}

/// What lies at an [`Origin`].
#[derive(Debug)]
pub(super) enum Place {
    /// A folder with weights as diffusers or transformers names them.
    Folder { dir: PathBuf, config: PathBuf },
    /// One file of weights.
    File { file: PathBuf, config: PathBuf },
    /// A graph with its weights.
    Graph { file: PathBuf, importer: &'static dyn Importer },
}

impl Place {
    /// Looks for a checkpoint.
    ///
    /// # Errors
    /// Nothing there; a pipeline folder; a file without a configuration.
    pub(super) fn find(origin: &Origin) -> Result<Place, Problems> {
        let Origin { path, .. } = origin.clone();
        let place = path.display().to_string();
        let expected =
            "a checkpoint folder with config.json and safetensors, a file of weights with --config, or a graph";
        let is_dir = match std::fs::metadata(&path) {
            Err(error) => return Err(Problems::one(place, error.to_string(), expected)),
            Ok(meta) => meta.is_dir(),
        };
        if is_dir {
            if let Some(pipeline) = PipelineFolder::open(&path)? {
                return Place::find(&Origin { path: pipeline.only_transformer()?, ..origin.clone() });
            }
            if let Some(name) = &origin.state_dict {
                return Err(Problems::one(
                    place,
                    format!("a folder, and --state-dict {}", quoted(name)),
                    "a file of torch.save: name the file, with --config",
                ));
            }
            if origin.config.is_none() && Contract::is_in(&path) {
                return Err(Problems::one(
                    place,
                    format!("the folder of a compiled pipeline ({FILE})"),
                    "what it was compiled from: a checkpoint, or a pipeline folder of diffusers",
                ));
            }
            let config = origin.config.clone().unwrap_or_else(|| path.join(CONFIG_FILE));
            return Ok(Place::Folder { dir: path, config });
        }
        if let Some(importer) = importer_of(&path) {
            if origin.config.is_some() || origin.state_dict.is_some() {
                return Err(Problems::one(
                    place,
                    "a graph, and --config or --state-dict",
                    "neither: a graph says itself what its weights are for",
                ));
            }
            return Ok(Place::Graph { file: path, importer });
        }
        let found = Foreign::of(&path).ok().flatten();
        if let Some(other) = found.filter(|found| !WEIGHTS.contains(found)) {
            return Err(Problems::one(place, other.to_string(), expected));
        }
        if let Some((what, instead)) = other_tensors(&path) {
            return Err(Problems::one(place, what, instead));
        }
        let beside = Some(path.with_file_name(CONFIG_FILE)).filter(|beside| beside.is_file());
        match origin.config.clone().or(beside) {
            Some(config) => Ok(Place::File { file: path, config }),
            None => Err(Problems::one(
                place,
                format!("{} without a {CONFIG_FILE} beside it", found.map_or("a file", Foreign::name)),
                "--config FILE: the configuration that the weights were made with",
            )),
        }
    }

    /// The configuration's file; of a graph the graph's.
    pub(super) fn config(&self) -> &Path {
        let (Place::Folder { config: file, .. } | Place::File { config: file, .. } | Place::Graph { file, .. }) = self;
        file
    }

    /// The files of text: the configuration, and the index of shards if there is one.
    pub(super) fn texts(&self) -> Vec<PathBuf> {
        let index = match self {
            Place::Folder { dir, .. } => index_of(dir),
            Place::File { .. } | Place::Graph { .. } => None,
        };
        std::iter::once(self.config().to_owned()).chain(index).collect()
    }

    /// The folder or file of the weights.
    pub(super) fn path(&self) -> &Path {
        match self {
            Place::Folder { dir, .. } => dir,
            Place::File { file, .. } | Place::Graph { file, .. } => file,
        }
    }
}

/// What a safetensors file is that holds no checkpoint, and what it is given to; `None` if it may be one.
fn other_tensors(path: &Path) -> Option<(&'static str, &'static str)> {
    const LORA: [&str; 6] =
        [".lora_A.weight", ".lora_B.weight", ".lora_down.weight", ".lora_up.weight", ".diff", ".diff_b"];
    const CLIPS: [&str; 12] = [
        "latent",
        "velocity",
        "timestep",
        "text",
        "text_mask",
        "pooled",
        "image",
        "condition",
        "noise",
        "stream.noise",
        "stream.latents",
        "guidance",
    ];
    let file = SafetensorsFile::open(path).ok()?;
    let mut names = file.tensors().map(|(name, _)| name).peekable();
    names.peek()?;
    let is_block = |name: &str| name.strip_prefix("block").is_some_and(|n| n.parse::<u32>().is_ok());
    let (mut adapter, mut clip) = (false, true);
    for name in names {
        adapter |= LORA.iter().any(|end| name.ends_with(end));
        clip &= CLIPS.contains(&name) || is_block(name);
    }
    if adapter {
        Some(("a LoRA", "the checkpoint that it is for, with --lora FILE"))
    } else if clip {
        Some((
            "latents, a prompt or a golden",
            "a checkpoint: `s2ditc stream` makes and takes such files, and `s2ditc verify --golden` takes one",
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_follows_a_colon() {
        let parsed = |text: &str| text.parse::<Lora>().map(|lora| (lora.path.display().to_string(), lora.scale));
        assert_eq!(parsed("a.safetensors").unwrap(), ("a.safetensors".into(), 1.0));
        assert_eq!(parsed("a.safetensors:0.5").unwrap(), ("a.safetensors".into(), 0.5));
        assert_eq!(parsed("a:b:-2").unwrap(), ("a:b".into(), -2.0));
        assert_eq!(parsed("C:\\a.safetensors").unwrap(), ("C:\\a.safetensors".into(), 1.0));
        for text in ["", ":1", "a:nan", "a:inf"] {
            assert!(parsed(text).unwrap_err().to_string().contains("--lora"), "{text}");
        }
    }
}
