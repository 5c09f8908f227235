//! The quality of each kind at each place, as a supernet learns it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use s2dit_backends::input::read_text;
use s2dit_files::toml_text;
use serde::Deserialize;

use super::table::Table;

/// What a text is that is read here.
const EXPECTED: &str = "scores of blocks, as docs/estimate.md has them";

/// The quality of each group and kind: the larger the better. Logits of masks are such qualities.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// Who says so.
    pub source: String,
    /// Of each group, the quality of each kind.
    pub group: Vec<BTreeMap<String, f64>>,
}

/// A score is a line.
const LARGEST: u64 = 1 << 22;

impl Scores {
    /// Reads a file of scores.
    ///
    /// # Errors
    /// A file that cannot be read or is none; qualities that are not finite.
    pub fn read(path: &Path) -> Result<Scores> {
        let text = read_text(path, LARGEST).with_context(|| format!("cannot read `{}`", path.display()))?;
        Scores::parse(&text).with_context(|| format!("`{}`", path.display()))
    }

    /// Scores from their text.
    ///
    /// # Errors
    /// See [`Scores::read`].
    pub fn parse(text: &str) -> Result<Scores> {
        let scores: Scores = toml_text::parse(text, "", EXPECTED)?;
        ensure!(!scores.group.is_empty(), "group: found none, expected a table for each group");
        for (i, group) in scores.group.iter().enumerate() {
            if let Some((kind, x)) = group.iter().find(|(_, x)| !x.is_finite()) {
                bail!("group {i}: {kind}: found {x}, expected a finite number");
            }
        }
        Ok(scores)
    }

    /// Number of groups.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.group.len()
    }

    /// Checks that there is a quality for each group and each kind of a table.
    ///
    /// # Errors
    /// Another number of groups; a kind without a quality.
    pub fn check(&self, table: &Table, groups: usize) -> Result<()> {
        if self.groups() != groups {
            bail!("--scores: found {} groups, expected {groups}: --blocks divided by --group", self.groups());
        }
        for (i, group) in self.group.iter().enumerate() {
            if let Some(kind) = table.kinds.iter().find(|kind| !group.contains_key(&kind.name)) {
                let found: Vec<&str> = group.keys().map(String::as_str).collect();
                bail!("--scores: group {i}: found {}, expected a quality of {} too", found.join(", "), kind.name);
            }
        }
        Ok(())
    }

    /// Qualities of each group in the table's order of kinds.
    pub(super) fn by_kind(&self, table: &Table) -> Vec<Vec<f64>> {
        let of = |group: &BTreeMap<String, f64>| {
            table.kinds.iter().map(|kind| group.get(&kind.name).copied().unwrap_or(f64::NEG_INFINITY)).collect()
        };
        self.group.iter().map(of).collect()
    }
}
