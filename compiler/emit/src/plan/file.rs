//! The plan: how each large weight is stored and why, as a TOML file that a person can read and change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};
use s2dit_backends::input::read_text;
use s2dit_ir::TensorType;
use serde::{Deserialize, Serialize};

use super::Storage;
use s2dit_files::problems::{Problems, nearest, quoted, shown};
use s2dit_files::toml_text;
use s2dit_models::size::{LatentSize, Size};

/// The value of a plan's field `format`.
pub const FORMAT: &str = "s2ditc.quantize-plan";
/// The version that is written and read.
pub const VERSION: u32 = 1;
/// What a text is that is read as a plan.
const EXPECTED: &str = "a plan as `s2ditc quantize` writes it";
/// What a plan says in place of a latent, of a model that has one size only and no latent.
const ONE_SIZE: &str = "one size";
/// Limit for a plan's file, far above any plan.
pub const LARGEST_FILE: u64 = 16 << 20;

/// A plan, as it is in its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// `blake3:` and the hash of the checkpoint's tensors.
    pub checkpoint: String,
    /// The checkpoint's configuration, as JSON; plans of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// The latent that it was measured at, or `one size` of a model that has one only; none of a text encoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latent: Option<String>,
    /// The text tokens that it was measured at, of a text encoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Goal that was asked for.
    pub goal: String,
    /// Bytes of all weights of the fp16 package, these and the others.
    pub weight_bytes: u64,
    /// SNR of the whole model in dB, run with every weight as planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snr_db: Option<f64>,
    /// The statistics that codes are chosen with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// Schemes by pattern, before those of the entries; of several patterns that match, the longest counts.
    #[serde(default, rename = "override")]
    pub overrides: BTreeMap<String, Storage>,
    /// Entries, one for each weight.
    #[serde(default)]
    pub weight: Vec<Entry>,
}

/// The statistics of a plan: their file, and how they were made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// A safetensors file beside the plan.
    pub file: String,
    /// `blake3:` and the hash of that file.
    pub hash: String,
    /// Samples that they were collected on.
    pub samples: usize,
    /// Origin of the samples.
    pub source: String,
    /// Samples that the SNR was measured on, none of them used for the statistics; 0 if it was measured on these.
    pub held_out: usize,
}

/// A weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The checkpoint's tensor.
    pub name: String,
    /// Storage of the weight.
    pub scheme: Storage,
    /// Bytes, with scales and palettes.
    pub bytes: u64,
    /// ‖stored − weight‖ / ‖weight‖ of the nearest codes; of a large weight in a search, of some of its rows.
    pub error: f64,
    /// Whose input's statistics its codes are chosen with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<String>,
    /// The scale at which its input is int8 too; counts only where the weight is int8, or a palette that was planned with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_scale: Option<f64>,
    /// Why this scheme.
    pub why: String,
}

impl Plan {
    /// Reads a plan.
    ///
    /// # Errors
    /// A file that cannot be read; text that is no plan, with the line.
    pub fn read(path: &Path) -> Result<Plan, Problems> {
        let place = path.display().to_string();
        let text = read_text(path, LARGEST_FILE)
            .map_err(|e| Problems::one(&place, e.to_string(), "a readable file: a plan"))?;
        Plan::parse(&text, &place)
    }

    /// Reads a plan from text; problems start with `place`.
    ///
    /// # Errors
    /// See [`Plan::read`].
    pub fn parse(text: &str, place: &str) -> Result<Plan, Problems> {
        // The version first: another one may have other fields.
        let table: toml::Table = toml_text::parse(text, place, EXPECTED)?;
        let format = table.get("format").and_then(toml::Value::as_str).map_or("none".into(), quoted);
        if format != quoted(FORMAT) {
            let expected = format!("{} of a plan as `s2ditc quantize` writes it", quoted(FORMAT));
            return Err(Problems::one(format!("{place}: format"), format, expected));
        }
        let version = table.get("version").map_or("none".to_string(), ToString::to_string);
        if version != VERSION.to_string() {
            let expected = format!("{VERSION}: the plan is of another s2ditc; make it again with `s2ditc quantize`");
            return Err(Problems::one(format!("{place}: version"), shown(&version), expected));
        }
        let plan: Plan = toml_text::parse(text, place, EXPECTED)?;
        let latent = plan.latent.as_deref().filter(|latent| *latent != ONE_SIZE);
        match (latent.map(str::parse::<LatentSize>), plan.tokens) {
            (Some(Ok(_)), None) | (None, Some(_)) => {}
            (None, None) if plan.latent.is_some() => {}
            (Some(Err(problem)), _) => {
                return Err(Problems::one(format!("{place}: latent"), problem.found, problem.expected));
            }
            (latent, _) => {
                let found = if latent.is_some() { "both of them" } else { "none of them" };
                return Err(Problems::one(
                    format!("{place}: latent or tokens"),
                    found,
                    "the one that it was measured at",
                ));
            }
        }
        if let Some(db) = plan.snr_db.filter(|db| !db.is_finite()) {
            return Err(Problems::one(format!("{place}: snr_db"), db.to_string(), "a number of decibels"));
        }
        for w in &plan.weight {
            if let Some(scale) = w.input_scale.filter(|scale| !scale.is_finite() || *scale <= 0.0) {
                let at = format!("{place}: weight {}: input_scale", quoted(&w.name));
                return Err(Problems::one(at, scale.to_string(), "a scale above 0, as `s2ditc quantize` measures it"));
            }
        }
        let mut seen = BTreeSet::new();
        let twice = plan.weight.iter().find(|w| !seen.insert(&w.name));
        match twice {
            Some(w) => {
                Err(Problems::one(format!("{place}: weight {}", quoted(&w.name)), "two entries", "one for each weight"))
            }
            None => Ok(plan),
        }
    }

    /// Says which size it was measured at.
    #[must_use]
    pub fn at(self, size: Size) -> Plan {
        let (latent, tokens) = match size {
            Size::Latent(_) => (Some(size.to_string()), None),
            Size::Tokens(tokens) => (None, Some(tokens)),
            Size::Only => (Some(ONE_SIZE.into()), None),
        };
        Plan { latent, tokens, ..self }
    }

    /// The size that it was measured at, in words.
    #[must_use]
    pub fn measured_at(&self) -> String {
        let latent = || format!("latent {}", self.latent.as_deref().unwrap_or_default());
        self.tokens.map_or_else(latent, |tokens| format!("{tokens} tokens"))
    }

    /// The text of the plan.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let head = "# How s2ditc stores each large weight; used by `s2ditc compile --quantize THIS`. To change a choice, add a\n\
                    # line such as `\"blocks.0.*\" = \"fp16\"` under [override]: * stands for any text, ? for a character, [01] for one of\n\
                    # these, and the longest pattern that matches counts. `error` is ‖stored − weight‖ / ‖weight‖.\n";
        Ok(format!("{head}{}", toml::to_string(self)?))
    }

    /// The patterns of the overrides, compiled, longest first.
    ///
    /// # Errors
    /// A pattern that is none.
    pub(super) fn patterns(&self, place: &str) -> Result<Vec<(GlobMatcher, Storage)>, Problems> {
        let mut globs: Vec<(&String, &Storage)> = self.overrides.iter().collect();
        globs.sort_by_key(|(pattern, _)| (std::cmp::Reverse(pattern.len()), *pattern));
        let compiled = globs.into_iter().map(|(pattern, storage)| {
            let glob = GlobBuilder::new(pattern).build().map_err(|e| {
                let place = format!("{place}: override {}", quoted(pattern));
                Problems::one(place, e.kind().to_string(), "a pattern such as \"blocks.0.*\"")
            })?;
            Ok((glob.compile_matcher(), *storage))
        });
        compiled.collect()
    }

    /// Checks the plan against the weights of the graph that it is for, and returns how each is stored.
    ///
    /// # Errors
    /// Every weight without an entry, entry or pattern without a tensor (`exists` knows those of the checkpoint), and scheme
    /// that does not fit.
    pub fn resolve(
        &self,
        place: &str,
        weights: &[(String, TensorType)],
        exists: impl Fn(&str) -> bool,
    ) -> Result<BTreeMap<String, Storage>, Problems> {
        let patterns = self.patterns(place)?;
        let entries: BTreeMap<&str, &Entry> = self.weight.iter().map(|w| (w.name.as_str(), w)).collect();
        let mut problems = Problems::new();
        for name in entries.keys().filter(|name| !exists(name) && !weights.iter().any(|(n, _)| n == *name)) {
            let meant = nearest(name, weights.iter().map(|(n, _)| n.as_str()));
            let expected = meant.map_or("a tensor of the checkpoint".into(), quoted);
            problems.push(format!("{place}: weight {}", quoted(name)), "no such tensor", expected);
        }
        for (glob, _) in &patterns {
            let known = entries.keys().copied().chain(weights.iter().map(|(n, _)| n.as_str()));
            if !known.into_iter().any(|name| glob.is_match(name)) {
                let place = format!("{place}: override {}", quoted(glob.glob().glob()));
                problems.push(place, "no weight that it matches", "the name of a weight, or a pattern of names");
            }
        }
        let mut chosen = BTreeMap::new();
        for (name, ty) in weights {
            let at = format!("{place}: weight {}", quoted(name));
            let overridden = patterns.iter().find(|(glob, _)| glob.is_match(name)).map(|(_, storage)| *storage);
            let Some(storage) = overridden.or_else(|| entries.get(name.as_str()).map(|w| w.scheme)) else {
                problems.push(at, "no entry", "one for each weight of the model; make the plan again");
                continue;
            };
            if let Err(error) = storage.bytes(&ty.shape) {
                problems.push(format!("{at}: scheme"), error, format!("one that fits {ty}"));
                continue;
            }
            // A scheme that was changed in its entry leaves figures behind that are no longer true.
            if let Some(entry) = entries.get(name.as_str())
                && let Ok(bytes) = entry.scheme.bytes(&ty.shape)
                && bytes != entry.bytes
            {
                let found = format!("{} with {} bytes", entry.scheme, entry.bytes);
                problems.push(at, found, format!("{bytes} bytes; change schemes under [override]"));
                continue;
            }
            chosen.insert(name.clone(), storage);
        }
        problems.into_result().map(|()| chosen)
    }

    /// The entry of a weight.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.weight.iter().find(|w| w.name == name)
    }
}
