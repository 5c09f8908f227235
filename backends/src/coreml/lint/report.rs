//! The report of lint: findings, a verdict for each op, a summary.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::rules::{Confidence, Severity};
use super::subject::Subject;

/// Whether an op runs on the Neural Engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OpVerdict {
    /// Nothing that is known speaks against it.
    Stays,
    /// It looks something up by integers of the caller, and runs before the engine's first op.
    Ahead,
    /// A rule says that it may not.
    MayLeave,
    /// A rule says that it does not, or that the package does not work.
    Leaves,
}

impl OpVerdict {
    /// All verdicts, best first.
    pub const ALL: [OpVerdict; 4] = [OpVerdict::Stays, OpVerdict::Ahead, OpVerdict::MayLeave, OpVerdict::Leaves];

    /// The worst that a finding allows.
    pub fn of(severity: Severity) -> OpVerdict {
        match severity {
            Severity::Costs => OpVerdict::Stays,
            Severity::MayLeave => OpVerdict::MayLeave,
            Severity::Leaves | Severity::Breaks => OpVerdict::Leaves,
        }
    }
}

impl fmt::Display for OpVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            OpVerdict::Stays => "stays",
            OpVerdict::Ahead => "ahead",
            OpVerdict::MayLeave => "may leave",
            OpVerdict::Leaves => "leaves",
        })
    }
}

/// A violation of a rule.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The rule.
    pub rule: String,
    /// Severity of the rule.
    pub severity: Severity,
    /// Confidence in the rule.
    pub confidence: Confidence,
    /// Subject of the finding.
    pub subject: Subject,
    /// The function, but for the package's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Name of the op, value, function or package.
    pub name: String,
    /// The op's type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub ty: Option<String>,
    /// The module path that the op came from, as far as names tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<String>,
    /// Text of the rule: the property that must hold.
    pub text: String,
    /// Observation that violates the rule.
    pub found: String,
    /// Remedy.
    pub mend: String,
}

/// An op with its verdict.
#[derive(Clone, Debug, Serialize)]
pub struct OpReport {
    /// Name of the function that has the op.
    pub function: String,
    /// Name of the op.
    pub name: String,
    /// Type of the op.
    #[serde(rename = "type")]
    pub ty: String,
    /// The module path that it came from, as far as names tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<String>,
    /// Whether it stays.
    pub verdict: OpVerdict,
    /// Rules that it violates.
    pub rules: Vec<String>,
}

/// Ops by verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OpVerdicts {
    /// Ops that stay.
    pub stays: usize,
    /// Ops that run before the engine's first one.
    #[serde(skip_serializing_if = "is_zero")]
    pub ahead: usize,
    /// Ops that may leave.
    pub may_leave: usize,
    /// Ops that leave.
    pub leaves: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl OpVerdicts {
    /// Counts one more.
    pub fn add(&mut self, verdict: OpVerdict) {
        match verdict {
            OpVerdict::Stays => self.stays += 1,
            OpVerdict::Ahead => self.ahead += 1,
            OpVerdict::MayLeave => self.may_leave += 1,
            OpVerdict::Leaves => self.leaves += 1,
        }
    }

    /// All ops.
    pub fn total(&self) -> usize {
        self.stays + self.ahead + self.may_leave + self.leaves
    }
}

impl std::ops::AddAssign for OpVerdicts {
    fn add_assign(&mut self, other: OpVerdicts) {
        self.stays += other.stays;
        self.ahead += other.ahead;
        self.may_leave += other.may_leave;
        self.leaves += other.leaves;
    }
}

/// The largest of something, and the op or value that has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Extreme {
    /// Size of the largest.
    pub value: u64,
    /// Name of the op or value that has it.
    pub name: String,
    /// Type of the op or value.
    #[serde(rename = "type")]
    pub ty: String,
}

/// A function in figures.
#[derive(Clone, Debug, Serialize)]
pub struct FunctionSummary {
    /// Name of the function.
    pub name: String,
    /// Number of the function's states.
    pub states: usize,
    /// Ops of the function by verdict.
    pub verdicts: OpVerdicts,
    /// Ops by block of the network, as far as names tell.
    pub blocks: BTreeMap<u32, usize>,
    /// Ops outside of blocks, or of which the names do not tell.
    pub outside_blocks: usize,
    /// The highest rank.
    pub rank: Extreme,
    /// The largest extent.
    pub extent: Extreme,
}

/// A package in figures.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Ops of the package by verdict; constants and `constexpr_*` do not count.
    pub verdicts: OpVerdicts,
    /// The worst that any finding allows, those of interfaces and of the package too.
    pub verdict: OpVerdict,
    /// Bytes of weights.
    pub weight_bytes: u64,
    /// Bytes of weights that the strictest rule allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_limit: Option<u64>,
    /// Results of ops, by element type.
    pub dtypes: BTreeMap<String, usize>,
    /// Ops by type.
    pub ops: BTreeMap<String, usize>,
    /// Functions of the package, the default one first.
    pub functions: Vec<FunctionSummary>,
}

/// Everything that lint found in a package.
#[derive(Clone, Debug, Serialize)]
pub struct LintReport {
    /// Path of the package.
    pub package: String,
    /// Figures.
    pub summary: Summary,
    /// Violations: the package's, then function by function, an op's in the order of the rules.
    pub findings: Vec<Finding>,
    /// Every op with its verdict.
    pub ops: Vec<OpReport>,
}

impl LintReport {
    /// Number of findings of each rule, in the order of the rules.
    pub fn by_rule(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for finding in &self.findings {
            *counts.entry(finding.rule.as_str()).or_insert(0) += 1;
        }
        counts
    }
}
