//! A plan that is ready to be used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use s2dit_ir::compress::Scheme;
use s2dit_ir::{Module, TensorType};
use s2dit_passes::quantize::{self as pass, Choice};
use s2dit_runtime::first_difference;
use serde_json::Value;

use super::{FEEDBACK, IMPORTANCE, Plan, Storage};
use s2dit_files::problems::{Problems, quoted};
use s2dit_files::{SafetensorsFile, hash_of};
use s2dit_models::checkpoint::Checkpoint;

/// A plan with the files that it needs, checked against its checkpoint.
#[derive(Debug)]
pub struct OpenPlan {
    /// The file, for errors.
    pub place: String,
    /// Contents of the plan.
    pub plan: Plan,
    /// blake3 of the plan's file.
    pub hash: String,
    /// The file of its statistics.
    pub statistics: Option<SafetensorsFile>,
}

impl OpenPlan {
    /// Opens a plan with its statistics.
    ///
    /// # Errors
    /// A plan or statistics that cannot be read, that changed since they were made, or that are of another checkpoint.
    pub fn open(path: &Path, checkpoint: &Checkpoint) -> Result<OpenPlan, Problems> {
        let plan = Plan::read(path)?;
        let hash = hash_of(path)?;
        OpenPlan::new(plan, path, hash, checkpoint)
    }

    /// See [`OpenPlan::open`]; the statistics are looked for beside `path`.
    ///
    /// # Errors
    /// See [`OpenPlan::open`].
    pub fn new(plan: Plan, path: &Path, hash: String, checkpoint: &Checkpoint) -> Result<OpenPlan, Problems> {
        let place = path.display().to_string();
        let found = format!("blake3:{}", checkpoint.content_hash().to_hex());
        if plan.checkpoint != found {
            let (is, dir) = (quoted(&plan.checkpoint), checkpoint.path().display());
            let expected = format!("\"{found}\", which `{dir}` is; make the plan again");
            return Err(Problems::one(format!("{place}: checkpoint"), is, expected));
        }
        let config = plan.config.as_deref().map(|text| {
            serde_json::from_str::<Value>(text).map_err(|e| {
                Problems::one(format!("{place}: config"), e.to_string(), "JSON, as the plan was made with")
            })
        });
        let ours = checkpoint.model().config();
        if let Some(d) = config.transpose()?.and_then(|config| first_difference(&ours, &config)) {
            let at = format!("`{}`: field `{}`", checkpoint.config_file().display(), d.field);
            return Err(Problems::one(at, d.found, format!("{}, which `{place}` was made with", d.expected)));
        }
        let statistics = match &plan.calibration {
            None => None,
            Some(calibration) => {
                let field = format!("{place}: calibration.file");
                if Path::new(&calibration.file).components().count() != 1 {
                    return Err(Problems::one(field, quoted(&calibration.file), "the name of a file beside the plan"));
                }
                let file: PathBuf = path.with_file_name(&calibration.file);
                if !file.exists() {
                    let expected = format!("the statistics of `{place}`, which lie beside it; or make the plan again");
                    return Err(Problems::one(file.display().to_string(), "nothing", expected));
                }
                // The header first: it says in a moment that a file is another one, and hashing may take long.
                let statistics = SafetensorsFile::open(&file)?;
                let is = hash_of(&file)?;
                if is != calibration.hash {
                    let expected = format!("{}, the file that the plan was made with", quoted(&calibration.hash));
                    return Err(Problems::one(file.display().to_string(), quoted(&is), expected));
                }
                Some(statistics)
            }
        };
        Ok(OpenPlan { place, plan, hash, statistics })
    }

    /// Compresses the weights of a module as planned.
    ///
    /// # Errors
    /// A plan that is not the module's.
    pub fn apply(&self, module: &mut Module, exists: impl Fn(&str) -> bool) -> Result<usize> {
        let weights: Vec<(String, TensorType)> = pass::weights_of(module).into_iter().map(|w| (w.name, w.ty)).collect();
        let chosen = self.plan.resolve(&self.place, &weights, exists)?;
        let choices: BTreeMap<&String, Choice> = chosen
            .iter()
            .filter_map(|(name, storage)| match storage {
                Storage::Whole => None,
                Storage::Compressed(scheme) => Some((name, *scheme)),
            })
            .map(|(name, scheme)| Ok((name, self.choice(name, scheme)?)))
            .collect::<Result<_>>()?;
        let mut fits = Problems::new();
        let count = pass::run(module, |name, ty| {
            let choice = choices.get(&name.to_string())?;
            if let Some((tensor, stored)) = &choice.importance
                && stored.shape != [ty.shape[1]]
            {
                fits.push(
                    format!("{}: weight {}", self.place, quoted(name)),
                    format!("statistics {stored} ({tensor})"),
                    format!("[{}]", ty.shape[1]),
                );
                return None;
            }
            Some(choice.clone())
        })
        .with_context(|| self.place.clone())?;
        fits.into_result()?;
        Ok(count)
    }

    fn choice(&self, name: &str, scheme: Scheme) -> Result<Choice, Problems> {
        let entry = self.plan.entry(name);
        // An override takes the activations with it, unless int8 is what it is.
        let planned = entry.is_some_and(|entry| entry.scheme == Storage::Compressed(scheme));
        let counts = scheme == Scheme::Int8 || (takes_int8(scheme) && planned);
        let input_scale = entry.and_then(|entry| entry.input_scale).filter(|_| counts);
        let Some(input) = entry.and_then(|entry| entry.statistics.as_ref()) else {
            return Ok(Choice { input_scale, ..scheme.into() });
        };
        let stored = |prefix: &str| {
            let tensor = format!("{prefix}{input}");
            let info = self.statistics.as_ref()?.get(&tensor)?;
            Some((tensor, info.ty.clone()))
        };
        let importance = stored(IMPORTANCE);
        if importance.is_none() {
            let place = format!("{}: weight {}: statistics", self.place, quoted(name));
            return Err(Problems::one(place, quoted(input), "a tensor of the calibration's file"));
        }
        Ok(Choice { scheme, importance, feedback: stored(FEEDBACK), input_scale })
    }
}

/// Whether activations may be int8 beside a weight: int8 itself, and palettes. Integers in blocks are no operand of an int8 product.
const fn takes_int8(scheme: Scheme) -> bool {
    matches!(scheme, Scheme::Int8 | Scheme::Palette { .. })
}
