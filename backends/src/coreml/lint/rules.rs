//! Rules are data: [`BUILTIN`], and an overrides file that promotes, retires or re-parameterises them.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::checks::Check;
use crate::Error;
use crate::input::{LARGEST_JSON, read_text};

/// The rules that come with the compiler.
pub const BUILTIN: &str = include_str!("rules.json");

/// The effect that the violation of a rule has on an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The op stays, but is slower, larger or less exact than it could be.
    Costs,
    /// The op may leave the Neural Engine.
    MayLeave,
    /// The op leaves the Neural Engine.
    Leaves,
    /// The package does not load, crashes or computes something else.
    Breaks,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Costs => "costs",
            Severity::MayLeave => "may leave",
            Severity::Leaves => "leaves",
            Severity::Breaks => "breaks",
        })
    }
}

/// The confidence in a rule, by its sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// A single report says so, or a report of something near.
    Low,
    /// Reports that agree, or one with a measurement.
    Medium,
    /// Apple says so, or it was reproduced.
    High,
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Confidence::Low => "low",
            Confidence::Medium => "medium",
            Confidence::High => "high",
        })
    }
}

impl FromStr for Confidence {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "low" => Confidence::Low,
            "medium" => Confidence::Medium,
            "high" => Confidence::High,
            _ => bail!("confidence: found `{text}`, expected low, medium or high"),
        })
    }
}

/// The format of a model, where a rule is of one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Core ML packages.
    CoreMl,
    /// Core AI assets.
    CoreAi,
}

/// A rule of the Neural Engine, as data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// Name of the rule, which never changes.
    pub id: String,
    /// The property that must hold.
    pub text: String,
    /// Source of the rule.
    pub source: String,
    /// Confidence in the rule.
    pub confidence: Confidence,
    /// The system or year from which on it is known to hold.
    pub since: String,
    /// Effect of a violation.
    pub severity: Severity,
    /// Remedy.
    pub mend: String,
    /// The format that it is of; `None` of one that holds of ops in any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Why it is no longer applied, or was changed: from an overrides file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Whether it is no longer applied.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retired: bool,
    /// Check that finds violations.
    #[serde(flatten)]
    pub check: Check,
}

/// The rules that are applied.
#[derive(Clone, Debug)]
pub struct Rules {
    list: Vec<Rule>,
}

/// Fields of a rule that an overrides file may set.
const OVERRIDABLE: [&str; 9] =
    ["severity", "confidence", "retired", "because", "text", "source", "since", "mend", "params"];

impl Rules {
    /// The rules that come with the compiler.
    ///
    /// # Errors
    /// A defect of [`BUILTIN`].
    pub fn builtin() -> Result<Rules, Error> {
        builtin().and_then(|rules| Rules::parse(&rules)).map_err(Error::reading)
    }

    /// The rules that come with the compiler, as a file of overrides changes them.
    ///
    /// # Errors
    /// A file that cannot be read, is no JSON, names a rule that there is not, or sets what a rule does not have.
    pub fn with_overrides(path: &Path) -> Result<Rules, Error> {
        Rules::builtin()?.overridden(path)
    }

    /// These rules, as a file of overrides changes them.
    ///
    /// # Errors
    /// See [`Rules::with_overrides`].
    pub fn overridden(&self, path: &Path) -> Result<Rules, Error> {
        let shown = path.display();
        let changed = || {
            let text = read_text(path, LARGEST_JSON).with_context(|| format!("cannot read `{shown}`"))?;
            let overrides: Overrides =
                serde_json::from_str(&text).context("expected {\"rules\": [{\"id\": …, \"severity\": …}]}")?;
            self.changed(overrides.rules)
        };
        changed().with_context(|| format!("rules file `{shown}`")).map_err(Error::reading)
    }

    /// These rules, as changes change them: objects as an overrides file has them, each with an `id`.
    ///
    /// # Errors
    /// A rule that there is not, or a field or parameter that it does not have.
    pub fn with_changes(&self, changes: Vec<Map<String, Value>>) -> Result<Rules, Error> {
        self.changed(changes).map_err(Error::reading)
    }

    fn changed(&self, changes: Vec<Map<String, Value>>) -> Result<Rules> {
        let mut rules = self
            .list
            .iter()
            .map(|rule| match serde_json::to_value(rule)? {
                Value::Object(fields) => Ok(fields),
                other => bail!("a rule that is no object: {other}"),
            })
            .collect::<Result<Vec<_>>>()?;
        apply(&mut rules, changes)?;
        Rules::parse(&rules)
    }

    fn parse(list: &[Map<String, Value>]) -> Result<Rules> {
        let parse = |rule: &Map<String, Value>| {
            let id = rule.get("id").and_then(Value::as_str).unwrap_or_default();
            serde_json::from_value(Value::Object(rule.clone())).with_context(|| format!("rule `{id}`"))
        };
        Ok(Rules { list: list.iter().map(parse).collect::<Result<_>>()? })
    }

    /// Leaves out rules that are less well known.
    #[must_use]
    pub fn at_least(mut self, confidence: Confidence) -> Rules {
        self.list.retain(|r| r.confidence >= confidence);
        self
    }

    /// The rules that hold of a format.
    pub(super) fn of(&self, format: Format) -> Rules {
        let list = self.list.iter().filter(|rule| rule.format.is_none_or(|of| of == format));
        Rules { list: list.cloned().collect() }
    }

    /// Rules that are applied.
    pub fn active(&self) -> impl Iterator<Item = &Rule> {
        self.list.iter().filter(|r| !r.retired)
    }

    /// All rules, retired ones too.
    pub fn all(&self) -> &[Rule] {
        &self.list
    }

    /// A rule by its name.
    pub fn get(&self, id: &str) -> Option<&Rule> {
        self.list.iter().find(|r| r.id == id)
    }
}

fn builtin() -> Result<Vec<Map<String, Value>>> {
    serde_json::from_str(BUILTIN).context("the rules of this compiler")
}

/// An overrides file: `{"rules": [{"id": …, what changes}]}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Overrides {
    rules: Vec<Map<String, Value>>,
}

fn apply(rules: &mut [Map<String, Value>], changes: Vec<Map<String, Value>>) -> Result<()> {
    for change in changes {
        let Some(id) = change.get("id").and_then(Value::as_str) else { bail!("a rule without an `id`") };
        let Some(rule) = rules.iter_mut().find(|r| r.get("id").and_then(Value::as_str) == Some(id)) else {
            bail!("no rule `{id}`; `s2ditc lint --rules` lists them");
        };
        for (field, value) in change.iter().filter(|(field, _)| *field != "id") {
            if !OVERRIDABLE.contains(&field.as_str()) {
                bail!("rule `{id}`: found field `{field}`, expected one of {}", OVERRIDABLE.join(", "));
            }
            match (field.as_str(), value, rule.get_mut("params")) {
                ("params", Value::Object(new), Some(Value::Object(old))) => {
                    for (name, value) in new {
                        if old.insert(name.clone(), value.clone()).is_none() {
                            bail!("rule `{id}`: it has no parameter `{name}`");
                        }
                    }
                }
                ("params", ..) => bail!("rule `{id}`: it has no parameters, or `params` is no object"),
                _ => {
                    rule.insert(field.clone(), value.clone());
                }
            }
        }
    }
    Ok(())
}
