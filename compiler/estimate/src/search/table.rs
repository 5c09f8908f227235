//! What blocks cost: latency and memory of each kind, of a change of stream, and of everything else.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use s2dit_backends::input::read_text;
use s2dit_files::toml_text;
use serde::{Deserialize, Serialize};

/// What a text is that is read here.
const EXPECTED: &str = "a table of costs, as docs/estimate.md has one";

/// Latency and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Milliseconds of a step.
    pub latency_ms: f64,
    /// Megabytes (10⁶ bytes).
    pub memory_mb: f64,
}

impl Cost {
    /// The cost of so many.
    #[must_use]
    pub fn times(self, n: f64) -> Cost {
        Cost { latency_ms: n * self.latency_ms, memory_mb: n * self.memory_mb }
    }
}

impl std::ops::Add for Cost {
    type Output = Cost;
    fn add(self, other: Cost) -> Cost {
        Cost { latency_ms: self.latency_ms + other.latency_ms, memory_mb: self.memory_mb + other.memory_mb }
    }
}

impl std::ops::Sub for Cost {
    type Output = Cost;
    fn sub(self, other: Cost) -> Cost {
        self + other.times(-1.0)
    }
}

/// A kind of block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "KindLine")]
pub struct KindCost {
    /// Name in a layout.
    pub name: String,
    /// A block.
    #[serde(flatten)]
    pub cost: Cost,
}

/// A kind of block as a file has it; a flattened field would take any other beside it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KindLine {
    name: String,
    latency_ms: f64,
    memory_mb: f64,
}

impl From<KindLine> for KindCost {
    fn from(KindLine { name, latency_ms, memory_mb }: KindLine) -> Self {
        Self { name, cost: Cost { latency_ms, memory_mb } }
    }
}

/// What blocks cost on a device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// Who says so.
    pub source: String,
    /// The kinds.
    pub kinds: Vec<KindCost>,
    /// The step without blocks.
    pub fixed: Cost,
    /// Into the stream of low resolution and back, once a run of such blocks.
    pub switch: Cost,
}

/// The kind that runs in the stream of low resolution.
pub(super) const LOW: &str = "ssa";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    source: String,
    kind: Vec<KindCost>,
    #[serde(default)]
    fixed: Cost,
    #[serde(default)]
    switch: Cost,
}

/// A table has a few lines.
const LARGEST: u64 = 1 << 20;
/// Kinds of a table at most.
const MOST: usize = 16;

impl Table {
    /// Reads a table that somebody measured.
    ///
    /// # Errors
    /// A file that cannot be read or is no table; costs that are negative or not finite; a kind twice.
    pub fn read(path: &Path) -> Result<Table> {
        let text = read_text(path, LARGEST).with_context(|| format!("cannot read `{}`", path.display()))?;
        Table::parse(&text).with_context(|| format!("`{}`", path.display()))
    }

    /// A table from its text.
    ///
    /// # Errors
    /// See [`Table::read`].
    pub fn parse(text: &str) -> Result<Table> {
        let file: File = toml_text::parse(text, "", EXPECTED)?;
        let table = Table { source: file.source, kinds: file.kind, fixed: file.fixed, switch: file.switch };
        if !(1..=MOST).contains(&table.kinds.len()) {
            bail!("kind: found {}, expected 1 to {MOST}", table.kinds.len());
        }
        let costs = table.kinds.iter().map(|kind| (format!("kind {}", kind.name), kind.cost));
        for (name, cost) in costs.chain([("fixed".into(), table.fixed), ("switch".into(), table.switch)]) {
            for (field, value) in [("latency_ms", cost.latency_ms), ("memory_mb", cost.memory_mb)] {
                ensure!(value.is_finite() && value >= 0.0, "{name}: {field}: found {value}, expected a number from 0");
            }
        }
        for (i, kind) in table.kinds.iter().enumerate() {
            let again = table.kinds[..i].iter().any(|other| other.name == kind.name);
            ensure!(!again, "kind {}: found twice, expected once", kind.name);
        }
        Ok(table)
    }

    /// The kind of the stream of low resolution, if the table has it.
    #[must_use]
    pub(super) fn low(&self) -> Option<usize> {
        self.kinds.iter().position(|kind| kind.name == LOW)
    }

    /// The same with blocks of so many times the cost.
    #[must_use]
    pub(super) fn times(&self, n: f64) -> Table {
        let kinds = self.kinds.iter().map(|kind| KindCost { name: kind.name.clone(), cost: kind.cost.times(n) });
        Table { kinds: kinds.collect(), ..self.clone() }
    }

    /// The cost of blocks by kind, without changes of stream.
    #[must_use]
    pub fn of_counts(&self, counts: &[usize]) -> Cost {
        let each = self.kinds.iter().zip(counts).map(|(kind, n)| kind.cost.times(*n as f64));
        each.fold(self.fixed, |sum, cost| sum + cost)
    }

    /// The cost of a layout: its blocks and a change of stream for each run of low resolution.
    #[must_use]
    pub fn of_layout(&self, layout: &[usize]) -> Cost {
        let counts: Vec<usize> =
            (0..self.kinds.len()).map(|kind| layout.iter().filter(|k| **k == kind).count()).collect();
        let low = self.low();
        let begins = |i: &usize| Some(layout[*i]) == low && (*i == 0 || Some(layout[*i - 1]) != low);
        let runs = (0..layout.len()).filter(begins).count();
        self.of_counts(&counts) + self.switch.times(runs as f64)
    }
}
