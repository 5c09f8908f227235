//! How large weights are stored: one scheme for all, or a plan that chooses one for each.

mod file;
mod open;
mod storage;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result};
use s2dit_backends::stamp::Changed;
use s2dit_files::SafetensorsFile;
use s2dit_files::problems::Problems;
use s2dit_ir::compress::{EXPECTED, Scheme};
use s2dit_ir::{FileRegion, Module, TensorType, WeightError, WeightSource};
use s2dit_models::checkpoint::Checkpoint;
use s2dit_passes::quantize as pass;
use serde::{Serialize, Serializer};

pub use file::{Calibration, Entry, FORMAT, LARGEST_FILE, Plan, VERSION};
pub use open::OpenPlan;
pub use storage::Storage;

/// The storage of large weights as the command line says it: a scheme, `fp16`, or a plan's file.
#[derive(Clone, Debug)]
pub enum How {
    /// All the same.
    Every(Storage),
    /// Storage by the plan in this file.
    Plan(PathBuf),
}

impl FromStr for How {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(storage) => Ok(How::Every(storage)),
            Err(_) if text.ends_with(".toml") => Ok(How::Plan(text.into())),
            Err(_) if [W8A8, W4A8].contains(&text) => Err(format!(
                "{text} needs the ranges of activations: make a plan with `s2ditc quantize --scheme {text}` and name that"
            )),
            Err(_) => Err(format!("expected a plan's file (NAME.toml), fp16, {EXPECTED}")),
        }
    }
}

impl How {
    /// The file of the plan, if it is one.
    #[must_use]
    pub fn plan(&self) -> Option<&PathBuf> {
        match self {
            How::Plan(path) => Some(path),
            How::Every(_) => None,
        }
    }

    /// Opens the plan, if it is one; `None` for `fp16`.
    ///
    /// # Errors
    /// See [`OpenPlan::open`].
    pub fn open(&self, checkpoint: &Checkpoint) -> Result<Option<Quantize>, Problems> {
        Ok(match self {
            How::Every(Storage::Whole) => None,
            How::Every(Storage::Compressed(scheme)) => Some(Quantize::Uniform(*scheme)),
            How::Plan(path) => Some(Quantize::Plan(Arc::new(OpenPlan::open(path, checkpoint)?))),
        })
    }
}

/// The storage of large weights.
#[derive(Clone, Debug)]
pub enum Quantize {
    /// All of them in one scheme.
    Uniform(Scheme),
    /// Storage by a plan.
    Plan(Arc<OpenPlan>),
}

impl fmt::Display for Quantize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Quantize::Uniform(scheme) => scheme.fmt(f),
            Quantize::Plan(plan) => write!(f, "plan {}…", &plan.hash[..16.min(plan.hash.len())]),
        }
    }
}

impl Serialize for Quantize {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Prefix of the tensors in a plan's statistics that weigh input channels; no tensor of a checkpoint has it.
pub const IMPORTANCE: &str = "importance:";
/// Prefix of the tensors in a plan's statistics for error feedback; no tensor of a checkpoint has it.
pub const FEEDBACK: &str = "feedback:";

/// The name of int8 weights with int8 activations.
pub const W8A8: &str = "w8a8";
/// The name of palettes of 4 and 8 bits with int8 activations, as the paper of S2DiT has them.
pub const W4A8: &str = "w4a8";

impl Quantize {
    /// Compresses the large weights of a module that is otherwise finished.
    ///
    /// # Errors
    /// A scheme that a weight does not fit; a plan that is not the module's.
    pub fn apply(&self, module: &mut Module, checkpoint: &Checkpoint) -> Result<usize> {
        match self {
            Quantize::Uniform(scheme) => {
                pass::uniform(module, *scheme).with_context(|| format!("cannot quantize to {scheme}"))
            }
            Quantize::Plan(plan) => plan.apply(module, |name| checkpoint.weights().has(name)),
        }
    }

    /// The metadata of artifacts that are stored this way.
    #[must_use]
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let mut metadata = BTreeMap::from([("s2ditc.quantize".into(), self.to_string())]);
        if let Quantize::Plan(plan) = self {
            if plan.plan.weight.iter().any(|w| w.input_scale.is_some()) {
                metadata.insert(ACTIVATIONS.into(), "int8".into());
            }
            metadata.insert("s2ditc.quantize.plan".into(), plan.hash.clone());
            if let Some(snr) = plan.plan.snr_db.filter(|_| plan.plan.overrides.is_empty()) {
                metadata.insert("s2ditc.quantize.snr_db".into(), format!("{snr:.2}"));
            }
        }
        metadata
    }

    fn statistics(&self) -> Option<&SafetensorsFile> {
        match self {
            Quantize::Uniform(_) => None,
            Quantize::Plan(plan) => plan.statistics.as_ref(),
        }
    }
}

/// The tensors of a checkpoint, and the statistics of a plan.
pub struct Sources<'a> {
    checkpoint: &'a Checkpoint,
    statistics: Option<&'a SafetensorsFile>,
}

impl<'a> Sources<'a> {
    /// The sources of the constants of a graph that is stored this way.
    #[must_use]
    pub fn new(checkpoint: &'a Checkpoint, quantize: Option<&'a Quantize>) -> Self {
        Sources::with_statistics(checkpoint, quantize.and_then(Quantize::statistics))
    }

    /// The tensors of a checkpoint, and a file of statistics.
    #[must_use]
    pub fn with_statistics(checkpoint: &'a Checkpoint, statistics: Option<&'a SafetensorsFile>) -> Self {
        Sources { checkpoint, statistics }
    }

    /// Checks that nobody has written to the files since they were opened.
    ///
    /// # Errors
    /// The first file that has changed.
    pub fn check_unchanged(&self) -> Result<(), Changed> {
        self.checkpoint.check_unchanged()?;
        self.statistics.map_or(Ok(()), SafetensorsFile::check_unchanged)
    }

    fn of(&self, name: &str) -> &'a dyn WeightSource {
        match self.statistics {
            Some(file) if name.starts_with(IMPORTANCE) || name.starts_with(FEEDBACK) => file,
            _ => self.checkpoint,
        }
    }
}

impl WeightSource for Sources<'_> {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.of(name).ty(name)
    }
    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        self.of(name).bytes(name)
    }
    fn part(&self, name: &str, range: Range<usize>) -> Option<Result<Vec<u8>, WeightError>> {
        self.of(name).part(name, range)
    }
    fn region(&self, name: &str) -> Option<FileRegion> {
        self.of(name).region(name)
    }
    fn visit(&self, name: &str, offset: u64, bytes: &[u8]) {
        self.of(name).visit(name, offset, bytes);
    }
    fn done(&self, name: &str) {
        self.of(name).done(name);
    }
}

/// Metadata key of int8 activations.
const ACTIVATIONS: &str = "s2ditc.quantize.activations";

/// Whether an artifact and the checkpoint's graph, stored the same way, compute the same numbers but for rounding. Not with int8
/// activations: the least difference takes some to the next step, and a step is as large as the error of the whole scheme.
#[must_use]
pub fn is_exact(metadata: &BTreeMap<String, String>) -> bool {
    !metadata.contains_key(ACTIVATIONS)
}

/// Decibels below its plan's SNR at which a quantized artifact fails: other inputs and fp16 may cost some.
const SLACK: f64 = 3.0;

/// The bar of an artifact: the one that was asked for; for a quantized artifact what its plan measured, less 3 dB; else
/// `usual`. `None` for a quantized artifact of which nothing was measured.
#[must_use]
pub fn bar(metadata: &BTreeMap<String, String>, asked: Option<f64>, usual: f64) -> Option<f64> {
    let measured = metadata.get("s2ditc.quantize.snr_db").and_then(|db| db.parse::<f64>().ok());
    match (asked, metadata.get("s2ditc.quantize")) {
        (Some(asked), _) => Some(asked),
        (None, None) => Some(usual),
        (None, Some(_)) => measured.filter(|db| db.is_finite()).map(|db| usual.min(db - SLACK)),
    }
}
