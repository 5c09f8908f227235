//! `--recipe`: choices that are known to go together.

use std::path::{Path, PathBuf};

use anyhow::Result;
use s2dit_emit::plan::{How, Storage};
use s2dit_emit::{Attention, Compute, Precision, Target, TimestepChoice};
use s2dit_files::choice;
use s2dit_files::size;
use s2dit_ir::compress::Scheme;
use s2dit_models::checkpoint::Checkpoint;
use s2dit_models::model::Part;
use s2dit_models::size::Size;
use s2dit_quantize::{Goal, Request, Samples, Stored, Survey, Uniform, make, stored};
use serde::Serialize;

use super::Args;
use crate::cli::progress::Progress;
use crate::cli::usage::refuse;
use crate::cli::{Context, print_note};

/// Choices that are known to go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recipe {
    /// What the paper of S2DiT runs on its phone (arXiv 2601.12719, D.2).
    Paper,
    /// What is known to stay on the Neural Engine, whatever it costs.
    Safe,
}

choice!(Recipe, "recipe", Paper = "paper", Safe = "safe");

/// 8-bit weights that every report has right: no integers, no scales.
const SAFE: Scheme = Scheme::Palette { bits: 8, group: None };

impl Args {
    /// The treatment of attention's heads.
    pub(super) fn attention(&self) -> Attention {
        match self.recipe {
            Some(Recipe::Safe) => Attention::PerHead,
            _ => self.attention.unwrap_or_default(),
        }
    }

    /// The storage of weights, but for a plan that a recipe makes.
    pub(super) fn storage(&self) -> Option<How> {
        match self.recipe {
            Some(Recipe::Safe) => Some(How::Every(Storage::Compressed(SAFE))),
            _ => self.quantize.clone(),
        }
    }

    /// Refuses flags that contradict the recipe.
    pub(super) fn check_recipe(&self) -> Result<()> {
        let Some(recipe) = self.recipe else {
            if self.calibrate.is_some() {
                refuse!(
                    "--calibrate is for --recipe paper: name a plan of `s2ditc quantize --calibrate` with --quantize"
                );
            }
            return Ok(());
        };
        if self.target() != Target::CoreMl {
            refuse!("--recipe is for --target coreml: it says what the Neural Engine gets");
        }
        let against = [
            (self.quantize.is_some(), "--quantize", "the recipe says how weights are stored"),
            (self.precision == Some(Precision::Fp32), "--precision fp32", "the Neural Engine computes in fp16"),
            (
                self.compute.is_some_and(|compute| compute != Compute::Ane),
                "--compute gpu or any",
                "the recipe is for the Neural Engine",
            ),
            (
                recipe == Recipe::Safe && self.attention == Some(Attention::Batched),
                "--attention batched",
                "the recipe takes each head by itself, as Apple's own models do",
            ),
            (
                recipe == Recipe::Safe && self.device.is_some(),
                "--device",
                "the recipe takes what is known of every engine, and a device chooses for one",
            ),
            (
                recipe == Recipe::Safe && self.calibrate.is_some(),
                "--calibrate",
                "the recipe leaves activations in fp16, which needs no samples",
            ),
            (
                recipe == Recipe::Safe && self.timesteps == Some(TimestepChoice::Any),
                "--timesteps any",
                "the sinusoids of a free timestep are computed in fp32, which leaves the Neural Engine",
            ),
            (self.pixels.is_some(), "--size", "the recipe is of one model: compile the transformer by itself"),
        ];
        if let Some((_, flag, why)) = against.into_iter().find(|(given, ..)| *given) {
            refuse!("{flag} contradicts --recipe {recipe}: {why}");
        }
        Ok(())
    }
}

/// What a recipe stores how.
#[derive(Serialize)]
pub(super) struct Planned {
    recipe: String,
    attention: String,
    /// Type of the activations that large weights are multiplied with.
    activations: &'static str,
    weights: Vec<Row>,
    weight_bytes: u64,
}

/// A weight of a recipe.
#[derive(Serialize)]
struct Row {
    name: String,
    storage: String,
    bytes: u64,
}

/// What the recipe would do with the large weights of a checkpoint.
///
/// # Errors
/// A size that does not fit; a recipe that does not fit the model.
pub(super) fn planned(args: &Args, recipe: Recipe, checkpoint: &Checkpoint, at: Size) -> Result<Planned> {
    // A plan of nothing is an error, and a scheme that fits nothing is a warning, as of the compile itself.
    let (survey, uniform) = match recipe {
        Recipe::Paper => (Survey::new(checkpoint, at)?, Uniform::W4A8),
        Recipe::Safe => (Survey::of_any(checkpoint, at)?, Uniform::Weights(Storage::Compressed(SAFE))),
    };
    let mut weights = Vec::new();
    for Stored { name, ty, storage } in stored(&survey, uniform)? {
        let bytes = storage.bytes(&ty.shape).map_err(|reason| anyhow::anyhow!("weight `{name}`: {reason}"))?;
        weights.push(Row { name, storage: storage.to_string(), bytes });
    }
    Ok(Planned {
        recipe: recipe.to_string(),
        attention: args.attention().to_string(),
        activations: if uniform.int8_activations() { "int8" } else { "fp16" },
        weight_bytes: weights.iter().map(|row| row.bytes).sum(),
        weights,
    })
}

/// The plan in words: each storage once, and the weights that it is of.
pub(super) fn words(planned: &Planned) -> String {
    let mut kinds: Vec<(&str, Vec<&Row>)> = Vec::new();
    for row in &planned.weights {
        match kinds.iter_mut().find(|(storage, _)| *storage == row.storage) {
            Some((_, rows)) => rows.push(row),
            None => kinds.push((&row.storage, vec![row])),
        }
    }
    kinds.sort_by_key(|(_, rows)| std::cmp::Reverse(rows.iter().map(|row| row.bytes).sum::<u64>()));
    let mut out = format!(
        "recipe {}: activations {}, attention {}, {} of large weights\n",
        planned.recipe,
        planned.activations,
        planned.attention,
        size(planned.weight_bytes)
    );
    for (storage, rows) in kinds {
        const SHOWN: usize = 6;
        let names: Vec<&str> = rows.iter().take(SHOWN).map(|row| row.name.as_str()).collect();
        let more = if rows.len() > SHOWN { format!(", and {} more", rows.len() - SHOWN) } else { String::new() };
        let bytes = rows.iter().map(|row| row.bytes).sum();
        out += &format!("  {storage:<18} {:>4} weights, {:>8}: {}{more}\n", rows.len(), size(bytes), names.join(", "));
    }
    out += "nothing was written: --dry-run";
    out
}

/// The plan of a recipe's package: beside it, with the same name.
pub(super) fn plan_of(out: &Path) -> PathBuf {
    out.with_extension("plan.toml")
}

/// The files of a plan where nothing was before. They go with this value, unless they are [kept](Fresh::keep): a compile that fails leaves none.
#[must_use]
pub(super) struct Fresh(Vec<PathBuf>);

impl Fresh {
    fn of(plan: &Path) -> Fresh {
        let statistics = plan.with_extension("stats.safetensors");
        Fresh([plan.to_owned(), statistics].into_iter().filter(|file| !file.exists()).collect())
    }

    pub(super) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        for file in &self.0 {
            // What cannot be removed is a plan all the same.
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Makes the plan of a recipe that has one, at [`plan_of`] the output.
///
/// # Errors
/// Samples that do not fit; a plan that cannot be written.
pub(super) fn plan(
    args: &Args,
    context: Context,
    checkpoint: &Checkpoint,
    at: Size,
    out: &Path,
) -> Result<(PathBuf, Fresh)> {
    let plan = plan_of(out);
    let fresh = Fresh::of(&plan);
    let survey = Survey::new(checkpoint, at)?;
    let calibrate = Some(args.calibrate.clone().unwrap_or(Samples::Seeded));
    let request = Request { goal: Goal::Scheme(Uniform::W4A8), calibrate, threads: context.threads };
    let progress = Progress::calls("calibrate", context.quiet);
    make(&survey, &request, context.to(&plan), &mut |what, done, all| {
        progress.say(done as u64, all as u64, || format!("{what} {done}/{all}"));
    })?;
    if !context.quiet {
        print_note(&format!("note: the recipe's plan is `{}`, which --quantize takes too", plan.display()));
    }
    Ok((plan, fresh))
}

/// Refuses a model that the recipe says nothing of.
///
/// # Errors
/// A decoder, for the paper's recipe.
pub(super) fn check_model(recipe: Recipe, checkpoint: &Checkpoint) -> Result<()> {
    if recipe == Recipe::Paper && checkpoint.model().family().part() == Part::Decoder {
        refuse!("--recipe paper is of a step of diffusion: the paper's decoder runs on the GPU, in fp16");
    }
    Ok(())
}
