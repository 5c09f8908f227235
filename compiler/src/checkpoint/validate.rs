//! The tensors of a checkpoint against those its configuration calls for.

use std::collections::{BTreeMap, BTreeSet};

use s2dit_ir::DType;

use super::Weights;
use crate::config::S2ditConfig;
use crate::problems::{Problem, Problems, nearest, quoted, shown};
use crate::schema::{TensorSpec, expected_tensors};

/// Suggestions compare every missing name with every extra one; beyond this many pairs they are left out.
const MOST_PAIRS: usize = 250_000;

pub(super) fn validate(place: &str, weights: &Weights, config: &S2ditConfig) -> Result<(), Problems> {
    let specs = expected_tensors(config);
    if let Some(problem) = common_prefix(place, weights, &specs) {
        return Err(problem.into());
    }
    let mut problems = Problems::new();
    let mut extra: BTreeSet<&str> = weights.tensors.keys().map(String::as_str).collect();
    let mut missing = Vec::new();
    for spec in &specs {
        if !extra.remove(spec.name.as_str()) {
            missing.push(spec);
        }
    }

    let mut meant: BTreeMap<&str, &str> = BTreeMap::new();
    let suggest = missing.len().saturating_mul(extra.len()) <= MOST_PAIRS;
    for spec in missing {
        let same_shape = extra.iter().copied().filter(|name| shape(weights, name) == Some(&spec.shape));
        let near = if suggest { nearest(&spec.name, same_shape) } else { None };
        let found = match near {
            Some(near) => format!("no such tensor (but `{}`, which has its shape)", shown(near)),
            None => "no such tensor".to_owned(),
        };
        if let Some(near) = near {
            meant.insert(near, &spec.name);
        }
        problems.push(format!("{place}: {}", spec.name), found, wanted(spec));
    }
    for name in extra {
        let file = weights.file_of(name).map_or(place.into(), |file| file.path().display().to_string());
        let expected = match meant.get(name) {
            Some(name) => format!("no such tensor (is it `{name}`?)"),
            None => "no such tensor for this config.json".to_owned(),
        };
        problems.push(format!("{file}: {}", shown(name)), "an unknown tensor", expected);
    }
    for spec in &specs {
        let Some(file) = weights.file_of(&spec.name) else { continue };
        let Some(info) = file.get(&spec.name) else { continue };
        let float = matches!(info.ty.dtype, DType::BF16 | DType::F16 | DType::F32);
        if !float || info.ty.shape != spec.shape {
            let tensor = format!("{}: {}", file.path().display(), spec.name);
            problems.push(tensor, info.ty.to_string(), wanted(spec));
        }
    }
    problems.into_result()
}

fn wanted(spec: &TensorSpec) -> String {
    format!("{:?} of bf16, f16 or f32", spec.shape)
}

fn shape<'a>(weights: &'a Weights, name: &str) -> Option<&'a Vec<usize>> {
    Some(&weights.file_of(name)?.get(name)?.ty.shape)
}

/// A wrapper module puts one prefix on every name: one problem, not a thousand.
fn common_prefix(place: &str, weights: &Weights, specs: &[TensorSpec]) -> Option<Problem> {
    let first = &specs.first()?.name;
    let prefix = weights
        .tensors
        .keys()
        .find_map(|name| name.strip_suffix(first.as_str()).filter(|prefix| !prefix.is_empty()))?;
    let all = specs.iter().all(|spec| weights.tensors.contains_key(&format!("{prefix}{}", spec.name)));
    all.then(|| Problem {
        place: place.to_owned(),
        found: format!("every tensor under the prefix {}", quoted(prefix)),
        expected: format!("names without it, such as `{first}`"),
    })
}
