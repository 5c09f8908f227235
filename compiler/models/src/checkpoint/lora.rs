//! LoRA files: low-rank changes of a model's weights, merged as `W + scale · (alpha / rank) · B·A` (Hu et al., arXiv 2106.09685).
//!
//! Names are read as PEFT writes them (`lora_A`, `lora_B`), as kohya's scripts do (`lora_down`, `lora_up`, `alpha`, modules with
//! underscores), and with whole differences beside them (`diff` of a weight, `diff_b` of a bias). Nothing is computed here: the weight
//! store adds the change while a tensor is read.

mod alpha;
mod key;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use s2dit_backends::stamp::Changed;
use s2dit_files::problems::{Problem, Problems, shown};
use s2dit_files::{Change, Door, Factor, StateDict, WeightStore, hash_of, open_door};
use serde::Serialize;

use self::alpha::{Alphas, PEFT_CONFIG, PEFT_FILE};
use self::key::{Key, Part};
use super::naming::{Names, bare_forms};
use super::origin::Lora;

/// Keys that an error lists.
const MOST_LISTED: usize = 6;

/// An adapter that is merged into the weights of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Merged {
    /// Name of its file, or of its folder if that was named.
    pub file: String,
    /// `blake3:` and the hash of the file.
    pub hash: String,
    /// The multiple of it that is added.
    pub scale: f64,
    /// Tensors that it changes.
    pub tensors: usize,
}

/// An open LoRA file.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) door: Arc<dyn Door>,
    pub(super) merged: Merged,
}

impl Open {
    pub(super) fn check_unchanged(&self) -> Result<(), Changed> {
        self.door.check_unchanged()
    }
}

/// What a file has for one module.
#[derive(Default)]
struct Module {
    /// The key of each part.
    parts: BTreeMap<Part, String>,
}

/// Adds an adapter to the weights.
///
/// # Errors
/// A file that cannot be read; keys that match no tensor of the model, or have no counterpart; shapes that do not fit.
pub(super) fn merge(weights: &mut WeightStore, lora: &Lora, names: &Names) -> Result<Open, Problems> {
    let path = file_of(&lora.path)?;
    let place = path.display().to_string();
    let (door, problems) = open_door(&path, StateDict::Known(&|name| Key::of(name).is_some()))?;
    problems.into_result()?;
    let door: Arc<dyn Door> = Arc::from(door);
    let alphas = Alphas::of(&*door, &path)?;
    let mut modules: BTreeMap<String, Module> = BTreeMap::new();
    let mut unknown: Vec<String> = Vec::new();
    let (mut problems, mut changed) = (Problems::new(), 0);
    for stored in door.names() {
        match Key::of(stored) {
            Some(Key { module, part }) => {
                let parts = &mut modules.entry(module.to_owned()).or_default().parts;
                if let Some(other) = parts.insert(part, stored.to_owned()) {
                    problems.0.push(twice(&place, &other, stored, module));
                }
            }
            None => unknown.push(stored.to_owned()),
        }
    }
    let targets = Targets::new(names);
    // The first key of each tensor's module: a module under two names would be added twice.
    let mut keys: HashMap<String, String> = HashMap::new();
    for (name, module) in modules {
        let Some(target) = targets.find(&name) else {
            unknown.extend(module.parts.into_values());
            continue;
        };
        if let Some(key) = module.parts.values().next()
            && let Some(other) = keys.insert(target.weight.clone(), key.clone())
        {
            problems.0.push(twice(&place, &other, key, &target.weight));
            continue;
        }
        let changes = module.changes(&door, &alphas, lora.scale, &target, &format!("{place}: {}", shown(&name)));
        for (tensor, change) in problems.absorb(changes).unwrap_or_default() {
            if !names.has(&tensor) {
                unknown.extend(module.parts.values().cloned());
                break;
            }
            match weights.change(&tensor, change) {
                Ok(()) => changed += 1,
                Err(mut problem) => {
                    problem.place = format!("{place}: {}, for {}", shown(&name), problem.place);
                    problems.0.push(problem);
                }
            }
        }
    }
    if let Some(found) = listed(&unknown) {
        let expected =
            "lora_A and lora_B, or lora_down, lora_up and alpha, or diff and diff_b of tensors that the model has";
        problems.push(&place, found, expected);
    } else if changed == 0 && problems.is_empty() {
        problems.push(&place, "no tensors", "a LoRA file");
    }
    problems.into_result()?;
    let name = lora.path.file_name().or(path.file_name());
    let file = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let merged = Merged { file, hash: hash_of(&path)?, scale: lora.scale, tensors: changed };
    Ok(Open { door, merged })
}

/// The file of an adapter: that itself, or of a folder what PEFT saves there.
fn file_of(path: &Path) -> Result<PathBuf, Problem> {
    let inside = path.join(PEFT_FILE);
    match path.is_dir() {
        false => Ok(path.to_owned()),
        true if inside.is_file() => Ok(inside),
        true => Err(Problem {
            place: path.display().to_string(),
            found: format!("a folder without {PEFT_FILE}"),
            expected: format!("a LoRA file, or the folder in which PEFT saved one as {PEFT_FILE} with {PEFT_CONFIG}"),
        }),
    }
}

/// Two keys of a file that say the same thing of one module or tensor.
fn twice(place: &str, one: &str, two: &str, of: &str) -> Problem {
    Problem {
        place: place.to_owned(),
        found: format!("both `{}` and `{}`, for {}", shown(one), shown(two), shown(of)),
        expected: "each module once, under one name and one kind of keys: leave one of them out of the file".into(),
    }
}

/// The keys that match nothing, the first few by name.
fn listed(unknown: &[String]) -> Option<String> {
    let some: Vec<String> = unknown.iter().take(MOST_LISTED).map(|key| format!("`{}`", shown(key))).collect();
    let more = unknown.len().saturating_sub(MOST_LISTED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!unknown.is_empty()).then(|| format!("{} key(s) that match no tensor: {}{rest}", unknown.len(), some.join(", ")))
}

impl Module {
    /// What is added to which tensor.
    fn changes(
        &self,
        door: &Arc<dyn Door>,
        alphas: &Alphas,
        scale: f64,
        target: &Target,
        place: &str,
    ) -> Result<Vec<(String, Change)>, Problems> {
        let factor = |name: &String| Factor { door: Arc::clone(door), name: name.clone() };
        let mut changes = Vec::new();
        match (self.parts.get(&Part::Down), self.parts.get(&Part::Up), self.parts.get(&Part::Alpha)) {
            (Some(a), Some(b), alpha) => {
                let rank = door.ty(a).and_then(|ty| ty.shape.first().copied()).unwrap_or_default();
                let scale = scale * alphas.scale(rank, alpha.map(factor), place)?;
                changes.push((target.weight.clone(), Change::Product { a: factor(a), b: factor(b), scale }));
            }
            (None, None, None) => {}
            (down, up, _) => {
                let found = match (down, up) {
                    (Some(_), _) => "lora_A or lora_down alone",
                    (_, Some(_)) => "lora_B or lora_up alone",
                    _ => "alpha alone",
                };
                return Err(Problems::one(place, found, "both factors of the product"));
            }
        }
        if let Some(d) = self.parts.get(&Part::Weight) {
            changes.push((target.weight.clone(), Change::Sum { d: factor(d), scale }));
        }
        if let Some(d) = self.parts.get(&Part::Bias) {
            changes.push((target.bias.clone(), Change::Sum { d: factor(d), scale }));
        }
        Ok(changes)
    }
}

/// The tensors of a module: of a layer its weight and bias; of a parameter that stands alone itself.
#[derive(Clone)]
struct Target {
    weight: String,
    bias: String,
}

/// The modules of a model under every name that a LoRA file may have for them.
struct Targets<'a> {
    names: &'a Names,
    /// With underscores in place of dots.
    flat: HashMap<String, Target>,
}

impl<'a> Targets<'a> {
    fn new(names: &'a Names) -> Self {
        let mut flat = HashMap::new();
        for name in names.iter().filter(|name| name.ends_with(".weight")) {
            for form in std::iter::once(name.to_owned()).chain(names.original_of(name)) {
                let module = form.trim_end_matches(".weight");
                flat.insert(module.replace('.', "_"), Target::of_layer(name.trim_end_matches(".weight")));
            }
        }
        Targets { names, flat }
    }

    fn find(&self, module: &str) -> Option<Target> {
        if let Some(flat) = key::FLAT.iter().find_map(|prefix| module.strip_prefix(prefix)) {
            return self.flat.get(flat).cloned();
        }
        let forms: Vec<String> = bare_forms(module).collect();
        let in_model = |module: &str| {
            let layer = Target::of_layer(module);
            let alone = || Target { weight: module.to_owned(), bias: module.to_owned() };
            let is_layer = self.names.has(&layer.weight) || self.names.has(&layer.bias);
            if is_layer { Some(layer) } else { self.names.has(module).then(alone) }
        };
        // Original names after those of diffusers: of names that both have, such as `norm2`, the model's file has only one.
        let plain = forms.iter().find_map(|form| in_model(form));
        plain.or_else(|| forms.iter().find_map(|form| in_model(&self.names.name_of(form))))
    }
}

impl Target {
    fn of_layer(module: &str) -> Target {
        Target { weight: format!("{module}.weight"), bias: format!("{module}.bias") }
    }
}
