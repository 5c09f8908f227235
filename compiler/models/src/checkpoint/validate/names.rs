//! Tensors that are missing, unknown, or renamed; whole blocks together.

use std::collections::{BTreeMap, BTreeSet};

use super::{Job, wanted};
use crate::tensor::TensorSpec;
use s2dit_files::problems::{Problem, Problems, shown, slips};

/// Suggestions compare every missing name with every extra one; beyond this many pairs they are left out.
const MOST_PAIRS: usize = 250_000;

impl Job<'_> {
    pub(super) fn names(&self, specs: &[TensorSpec], problems: &mut Problems) {
        let stored = |name: &str| format!("{}{name}", self.prefix);
        let mut extra: BTreeSet<&str> =
            self.weights.names().filter(|name| !self.model.is_idle(self.bare(name))).collect();
        let mut missing: Vec<&TensorSpec> =
            specs.iter().filter(|spec| !extra.remove(stored(&spec.name).as_str())).collect();
        missing.retain(|spec| !self.weights.is_damaged(&stored(&spec.name)));

        let renamed = self.renamed(&mut missing, &mut extra);
        self.list(renamed, "renamed tensors", "the names that config.json calls for", problems);

        // A block of which nothing is there, or nothing is known, is one problem.
        let in_schema = by_layer(specs.iter().map(|spec| spec.name.as_str()));
        let absent = by_layer(missing.iter().map(|spec| spec.name.as_str()));
        let absent: BTreeMap<&str, usize> =
            absent.into_iter().filter(|(layer, count)| in_schema.get(layer) == Some(count)).collect();
        let unknown = by_layer(extra.iter().map(|name| self.bare(name)));
        let unknown: BTreeMap<&str, usize> =
            unknown.into_iter().filter(|(layer, _)| !in_schema.contains_key(layer)).collect();
        let whole = |known: &BTreeMap<&str, usize>, name: &str| layer(name).is_some_and(|l| known.contains_key(l));
        let outline = self.model.outline();
        let layers = format!("what config.json calls for: {} blocks ({})", outline.blocks(), outline.sandwich());
        let problem =
            |place: String, found: String, expected: &str| Problem { place, found, expected: expected.into() };

        let mut list: Vec<Problem> = absent
            .iter()
            .map(|(l, count)| problem(format!("{}: {l}", self.place), format!("none of its {count} tensors"), &layers))
            .collect();
        list.extend(
            missing
                .iter()
                .filter(|spec| !whole(&absent, &spec.name))
                .map(|spec| problem(format!("{}: {}", self.place, spec.name), "no such tensor".into(), &wanted(spec))),
        );
        self.list(list, "missing tensors or blocks", "every tensor that config.json calls for", problems);

        let mut list: Vec<Problem> = unknown
            .iter()
            .map(|(l, n)| problem(format!("{}: {}", self.place, shown(l)), format!("{n} unknown tensors"), &layers))
            .collect();
        list.extend(
            extra
                .iter()
                .filter(|name| !whole(&unknown, self.bare(name)))
                .map(|name| problem(self.at(name), "an unknown tensor".into(), "no such tensor for this config.json")),
        );
        self.list(list, "unknown tensors or blocks", "no others than config.json calls for", problems);
    }

    /// Takes out of both lists what is probably the same tensor by another name.
    fn renamed(&self, missing: &mut Vec<&TensorSpec>, extra: &mut BTreeSet<&str>) -> Vec<Problem> {
        if missing.len().saturating_mul(extra.len()) > MOST_PAIRS {
            return Vec::new();
        }
        let shape = |name: &str| self.find(name).map(|ty| ty.shape);
        let mut near: Vec<(usize, usize, &str)> = Vec::new();
        for (index, spec) in missing.iter().enumerate() {
            // In the same block, with the same shape.
            let alike = extra.iter().filter(|name| {
                layer(self.bare(name)) == layer(&spec.name) && shape(name).as_ref() == Some(&spec.shape)
            });
            near.extend(
                alike.filter_map(|name| Some((slips(inside(&spec.name), inside(self.bare(name)))?, index, *name))),
            );
        }
        near.sort_unstable();
        let mut pairs: BTreeMap<usize, &str> = BTreeMap::new();
        for (_, index, name) in near {
            if !pairs.contains_key(&index) && extra.remove(name) {
                pairs.insert(index, name);
            }
        }
        let pairs: Vec<(&str, &str)> =
            pairs.into_iter().map(|(index, name)| (name, missing[index].name.as_str())).collect();
        missing.retain(|spec| !pairs.iter().any(|(_, meant)| *meant == spec.name));
        // The same change in every block is told once.
        let mut alike: BTreeMap<(String, String), usize> = BTreeMap::new();
        for (name, meant) in &pairs {
            *alike.entry((pattern(name), pattern(meant))).or_default() += 1;
        }
        let told = pairs.into_iter().filter_map(|(name, meant)| {
            let found = match alike.remove(&(pattern(name), pattern(meant)))? {
                1 => "an unknown tensor".to_owned(),
                n => format!("an unknown tensor (and {} more that differ from it in their numbers)", n - 1),
            };
            Some(Problem { place: self.at(name), found, expected: format!("`{meant}`, which is missing") })
        });
        told.collect()
    }

    /// A name without the common prefix.
    fn bare<'n>(&self, name: &'n str) -> &'n str {
        name.strip_prefix(self.prefix).unwrap_or(name)
    }
}

/// `blocks.3.attn1.to_q.weight` → `blocks.3`, `encoder.block.3.layer.0.layer_norm.weight` → `encoder.block.3`; tensors that are in no
/// numbered part, such as a block or a stage, have none.
fn layer(name: &str) -> Option<&str> {
    let mut dots = name.match_indices('.').map(|(dot, _)| dot);
    let mut from = dots.next()? + 1;
    for dot in dots {
        if dot > from && name[from..dot].bytes().all(|b| b.is_ascii_digit()) {
            return Some(&name[..dot]);
        }
        from = dot + 1;
    }
    None
}

/// A name without its block or stage.
fn inside(name: &str) -> &str {
    &name[layer(name).map_or(0, str::len)..]
}

fn by_layer<'n>(names: impl Iterator<Item = &'n str>) -> BTreeMap<&'n str, usize> {
    let mut counts = BTreeMap::new();
    for layer in names.filter_map(layer) {
        *counts.entry(layer).or_default() += 1;
    }
    counts
}

/// A name with its numbers left out.
fn pattern(name: &str) -> String {
    name.split('.')
        .map(|part| if part.bytes().all(|b| b.is_ascii_digit()) { "#" } else { part })
        .collect::<Vec<_>>()
        .join(".")
}
