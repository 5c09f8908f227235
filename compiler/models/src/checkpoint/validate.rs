//! The tensors of a checkpoint against those its configuration calls for, problems told by their cause.

mod names;

use std::collections::{BTreeMap, HashSet};

use s2dit_ir::{DType, TensorType, WeightSource as _};

use crate::model::Model;
use crate::tensor::TensorSpec;
use s2dit_files::WeightStore;
use s2dit_files::problems::{Problem, Problems, not_read, quoted, shown};

/// Tensors that are listed one by one; of more with the same problem the rest are counted.
const MOST_LISTED: usize = 6;
/// Tensors of a wrong dtype that are listed one by one; more of them have one cause.
const FEW: usize = 2;

pub(super) fn validate(place: &str, weights: &WeightStore, model: &dyn Model) -> Result<(), Problems> {
    let specs = model.tensors();
    let mut problems = Problems::new();
    let prefix = common_prefix(weights, &specs);
    if let Some((prefix, count)) = prefix {
        let (all, first) = (weights.names().len(), specs.first().map_or("", |spec| &spec.name));
        let found = match count {
            _ if count == all => format!("every tensor under the prefix {}", quoted(prefix)),
            _ => format!("{count} of {all} tensors under the prefix {}", quoted(prefix)),
        };
        problems.push(place, found, format!("names without it, such as `{first}`"));
    }
    let job = Job { place, weights, model, prefix: prefix.map_or("", |(prefix, _)| prefix) };
    job.names(&specs, &mut problems);
    job.types(&specs, &mut problems);
    problems.into_result()
}

/// The comparison of files with a configuration. A prefix that all names in the files share is ignored.
struct Job<'a> {
    place: &'a str,
    weights: &'a WeightStore,
    model: &'a dyn Model,
    prefix: &'a str,
}

impl Job<'_> {
    fn find(&self, name: &str) -> Option<TensorType> {
        self.weights.ty(name)
    }

    /// A tensor as a place: its file, and the name that it has there.
    fn at(&self, name: &str) -> String {
        self.weights.place_of(name).unwrap_or_else(|| format!("{}: {}", self.place, shown(name)))
    }

    /// Wrong dtypes, together where there are many, and wrong shapes.
    fn types(&self, specs: &[TensorSpec], problems: &mut Problems) {
        let present: Vec<_> = specs
            .iter()
            .filter_map(|spec| {
                let stored = format!("{}{}", self.prefix, spec.name);
                let ty = self.find(&stored)?;
                Some((spec, stored, ty))
            })
            .collect();
        let mut no_floats: BTreeMap<DType, Vec<&str>> = BTreeMap::new();
        for (spec, _, ty) in present.iter().filter(|(_, _, ty)| !is_float(ty.dtype)) {
            no_floats.entry(ty.dtype).or_default().push(&spec.name);
        }
        no_floats.retain(|_, names| names.len() > FEW);
        for (dtype, names) in &no_floats {
            let found = match names.as_slice() {
                all if all.len() == present.len() => format!("every tensor ({}) of dtype {dtype}", all.len()),
                some => format!("{} of {} tensors of dtype {dtype}, such as `{}`", some.len(), present.len(), some[0]),
            };
            problems.push(self.place, found, not_read(&dtype.to_string()));
        }
        let wrong = present.iter().filter(|(spec, _, ty)| {
            let told = is_float(ty.dtype) || no_floats.contains_key(&ty.dtype);
            !told || ty.shape != spec.shape
        });
        let list = wrong.map(|(spec, stored, ty)| Problem {
            place: self.at(stored),
            found: ty.to_string(),
            expected: match is_float(ty.dtype) {
                true => wanted(spec),
                false => format!("{:?} of {}", spec.shape, not_read(&ty.dtype.to_string())),
            },
        });
        self.list(list.collect(), "tensors of other shapes", "the shapes that config.json calls for", problems);
    }

    /// The first few problems of one kind, and the number of the others.
    fn list(&self, mut list: Vec<Problem>, kind: &str, expected: &str, problems: &mut Problems) {
        let more = list.len().saturating_sub(MOST_LISTED);
        if more > 1 {
            list.truncate(MOST_LISTED);
        }
        problems.0.extend(list);
        if more > 1 {
            problems.push(self.place, format!("{more} more {kind}"), expected);
        }
    }
}

fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::BF16 | DType::F16 | DType::F32)
}

fn wanted(spec: &TensorSpec) -> String {
    format!("{:?} of bf16, f16 or f32", spec.shape)
}

/// A wrapper module puts one prefix on every name: one problem, not a thousand. The prefix that makes the most tensors
/// known, and how many these are, if they are more than half of the checkpoint.
fn common_prefix<'a>(weights: &'a WeightStore, specs: &[TensorSpec]) -> Option<(&'a str, usize)> {
    let known: HashSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in weights.names().filter(|name| !known.contains(name)) {
        for (dot, _) in name.match_indices('.') {
            let (prefix, rest) = name.split_at(dot + 1);
            if known.contains(rest) {
                *counts.entry(prefix).or_default() += 1;
            }
        }
    }
    let (prefix, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    (2 * count > weights.names().len()).then_some((prefix, count))
}
