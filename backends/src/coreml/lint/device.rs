//! Reports from a device (see `examples/device-report`), compared with lint's verdicts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::report::{LintReport, OpVerdict};
use super::rules::{Rules, Severity};
use crate::Error;
use crate::input::read_text;

/// `format` of a device report.
pub const FORMAT: &str = "s2ditc-device-report";
/// `version` of a device report.
pub const VERSION: u32 = 1;

/// A compute device that `MLComputePlan` places ops on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// The Neural Engine.
    NeuralEngine,
    /// The GPU.
    Gpu,
    /// The CPU.
    Cpu,
}

/// A device report.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceReport {
    format: String,
    version: u32,
    /// The model's file name.
    pub model: String,
    /// The device, such as `iPhone16,2`.
    pub device: String,
    /// System of the device, such as `iOS 18.1`.
    pub os: String,
    /// `all`, `cpu_and_neural_engine`, … or, of an asset, `prefer_gpu`.
    pub compute_units: String,
    /// Functions of the model.
    pub functions: Vec<DeviceFunction>,
    /// Milliseconds of the specialisation of an asset, if there was none before.
    #[serde(default)]
    pub specialize_ms: Option<f64>,
    /// Milliseconds of loading an asset that was specialised.
    #[serde(default)]
    pub load_ms: Option<f64>,
}

/// A function of a device report.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceFunction {
    /// Name of the function.
    pub name: String,
    /// Ops of the function; constants may be left out.
    pub operations: Vec<DeviceOp>,
    /// Median time of a call in milliseconds, if it was measured.
    #[serde(default)]
    pub call_ms: Option<f64>,
}

/// An op of a device report.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceOp {
    /// Name of its first output.
    pub name: String,
    /// Type of the op, such as `ios18.conv`.
    #[serde(rename = "type")]
    pub ty: String,
    /// Device that the op will run on; absent for ops that the plan does not place.
    #[serde(default)]
    pub preferred: Option<Device>,
    /// Devices that the op could run on.
    #[serde(default)]
    pub supported: Vec<Device>,
    /// Share of the op in the model's estimated work, between 0 and 1.
    #[serde(default)]
    pub cost: Option<f64>,
}

/// A report has some two hundred bytes for each op.
const LARGEST: u64 = 64 << 20;

impl DeviceReport {
    /// Reads a report.
    ///
    /// # Errors
    /// A file that cannot be read, or is no such report.
    pub fn read(path: &Path) -> Result<DeviceReport, Error> {
        DeviceReport::parsed(path).map_err(Error::reading)
    }

    fn parsed(path: &Path) -> Result<DeviceReport> {
        let shown = path.display();
        let text = read_text(path, LARGEST).with_context(|| format!("cannot read `{shown}`"))?;
        let report: DeviceReport =
            serde_json::from_str(&text).with_context(|| format!("`{shown}` is not a device report"))?;
        if report.format != FORMAT || report.version != VERSION {
            bail!(
                "`{shown}`: found format `{}` version {}, expected `{FORMAT}` version {VERSION}",
                report.format,
                report.version
            );
        }
        let ops = report.functions.iter().flat_map(|f| &f.operations);
        if let Some((op, cost)) = ops.filter_map(|o| Some((o, o.cost?))).find(|(_, c)| !(0.0..=1.0).contains(c)) {
            bail!("`{shown}`: op `{}`: cost: found {cost}, expected a share between 0 and 1", op.name);
        }
        let times = report.functions.iter().filter_map(|f| Some((f, f.call_ms?)));
        if let Some((f, ms)) = times.into_iter().find(|(_, ms)| !(ms.is_finite() && *ms > 0.0)) {
            bail!("`{shown}`: function `{}`: call_ms: found {ms}, expected milliseconds above 0", f.name);
        }
        for (field, ms) in [("specialize_ms", report.specialize_ms), ("load_ms", report.load_ms)] {
            if let Some(ms) = ms.filter(|ms| !(ms.is_finite() && *ms > 0.0)) {
                bail!("`{shown}`: {field}: found {ms}, expected milliseconds above 0");
            }
        }
        Ok(report)
    }
}

/// Ops of one verdict by what the device does with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeviceCounts {
    /// Ops that run on the Neural Engine.
    pub engine: usize,
    /// Ops that could run on the Neural Engine, but the plan prefers another device.
    pub declined: usize,
    /// Ops that cannot run on the Neural Engine.
    pub unsupported: usize,
}

impl DeviceCounts {
    /// Ops that run elsewhere.
    pub fn elsewhere(&self) -> usize {
        self.declined + self.unsupported
    }

    fn add(&mut self, op: &DeviceOp) {
        match op.preferred {
            Some(Device::NeuralEngine) => self.engine += 1,
            _ if op.supported.contains(&Device::NeuralEngine) => self.declined += 1,
            _ => self.unsupported += 1,
        }
    }
}

/// The device's judgement of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// All ops that violate it ran elsewhere, and of some of them it alone said so.
    Right,
    /// All ops that violate it ran elsewhere, but another rule said so too.
    Unproven,
    /// All ops that violate it ran on the engine.
    Wrong,
    /// Some did, some did not.
    Mixed,
}

/// A rule beside the device.
#[derive(Clone, Debug, Serialize)]
pub struct RuleRow {
    /// The rule.
    pub rule: String,
    /// Severity of the rule.
    pub severity: Severity,
    /// Ops that violate it, by where they ran.
    pub ops: DeviceCounts,
    /// Judgement that follows from the device's report.
    pub judgement: Judgement,
}

/// Verdicts beside a device.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The device and its system.
    pub device: String,
    /// The units that the plan was asked for.
    pub compute_units: String,
    /// Ops by verdict and by what the device does.
    pub confusion: BTreeMap<OpVerdict, DeviceCounts>,
    /// Rules that say that an op leaves, or may.
    pub rules: Vec<RuleRow>,
    /// Ops that should stay and do not: type, and how many.
    pub missed: BTreeMap<String, usize>,
    /// The first of them by cost: name, type, cost.
    pub costliest_missed: Vec<(String, String, f64)>,
    /// Ops that only one side has: of the package, of the report.
    pub unmatched: (usize, usize),
    /// The share of the estimated cost that runs on the engine, where the report has costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_cost_share: Option<f64>,
}

/// Number of ops that [`Comparison::costliest_missed`] keeps.
const COSTLIEST: usize = 10;

/// Sets the verdicts beside what the device says.
///
/// # Errors
/// A report of another model: it places less than half of the package's ops.
pub fn compare(report: &LintReport, device: &DeviceReport, rules: &Rules) -> Result<Comparison, Error> {
    compared(report, device, rules).map_err(Error::reading)
}

fn compared(report: &LintReport, device: &DeviceReport, rules: &Rules) -> Result<Comparison> {
    if !device.functions.is_empty() && device.functions.iter().all(|f| f.operations.is_empty()) {
        bail!(
            "the device report is of `{}` and has times alone, which is all that Core AI tells: found no op, expected a report on a Core ML package, with places of ops",
            device.model
        );
    }
    let mut placed: HashMap<(&str, &str), &DeviceOp> = HashMap::new();
    for f in &device.functions {
        placed.extend(
            f.operations.iter().filter(|o| o.preferred.is_some()).map(|o| ((f.name.as_str(), o.name.as_str()), o)),
        );
    }
    let mut confusion: BTreeMap<OpVerdict, DeviceCounts> =
        OpVerdict::ALL.iter().map(|v| (*v, DeviceCounts::default())).collect();
    let mut by_rule: HashMap<&str, DeviceCounts> = HashMap::new();
    let speaks = |rule: &str| rules.get(rule).is_some_and(|r| r.severity >= Severity::MayLeave);
    let mut alone: HashSet<&str> = HashSet::new();
    let (mut missed, mut costliest) = (BTreeMap::new(), Vec::new());
    let mut matched = 0;
    for op in &report.ops {
        let Some(truth) = placed.get(&(op.function.as_str(), op.name.as_str())) else { continue };
        matched += 1;
        confusion.entry(op.verdict).or_default().add(truth);
        op.rules.iter().for_each(|rule| by_rule.entry(rule).or_default().add(truth));
        let against: Vec<&String> = op.rules.iter().filter(|r| speaks(r)).collect();
        if let [only] = against[..] {
            alone.insert(only);
        }
        if op.verdict == OpVerdict::Stays && truth.preferred != Some(Device::NeuralEngine) {
            *missed.entry(op.ty.clone()).or_insert(0) += 1;
            costliest.push((op.name.clone(), op.ty.clone(), truth.cost.unwrap_or(0.0)));
        }
    }
    if 2 * matched < report.ops.len() || matched == 0 {
        bail!(
            "the device report is of `{}` with {} placed op(s): found {matched} of the {} op(s) of `{}` among them, expected \
             a report of this package",
            device.model,
            placed.len(),
            report.ops.len(),
            report.package
        );
    }
    costliest.sort_by(|a: &(String, String, f64), b| b.2.total_cmp(&a.2));
    costliest.truncate(COSTLIEST);
    let rows = rules.active().filter(|r| r.severity >= Severity::MayLeave).filter_map(|r| {
        let ops = *by_rule.get(r.id.as_str())?;
        let judgement = match (ops.engine, ops.elsewhere()) {
            (0, _) if alone.contains(r.id.as_str()) => Judgement::Right,
            (0, _) => Judgement::Unproven,
            (_, 0) => Judgement::Wrong,
            _ => Judgement::Mixed,
        };
        Some(RuleRow { rule: r.id.clone(), severity: r.severity, ops, judgement })
    });
    let cost = |on: fn(&DeviceOp) -> bool| placed.values().filter(|o| on(o)).filter_map(|o| o.cost).sum::<f64>();
    let total = cost(|_| true);
    Ok(Comparison {
        device: format!("{}, {}", device.device, device.os),
        compute_units: device.compute_units.clone(),
        confusion,
        rules: rows.collect(),
        missed,
        costliest_missed: costliest,
        unmatched: (report.ops.len() - matched, placed.len() - matched),
        engine_cost_share: (total > 0.0).then(|| cost(|o| o.preferred == Some(Device::NeuralEngine)) / total),
    })
}
