//! Lint over what lies on disk: a package or an asset, or those of a kernel folder or of a decoder.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use s2dit_backends::coreai::{self, Asset};
use s2dit_backends::coreml::lint::device::{Comparison, DeviceReport, compare};
use s2dit_backends::coreml::lint::{self, LintReport, OpVerdict, OpVerdicts, Rule, Rules};
use s2dit_backends::coreml::read::Feature;
use s2dit_backends::coreml::{self, Package};
use s2dit_backends::foreign::Foreign;
use s2dit_ir::Interface;
use s2dit_models::config;
use s2dit_models::model::{Model, Part};
use s2dit_runtime::decode::contract::Contract as DecoderContract;
use s2dit_runtime::experts::Description;
use s2dit_runtime::interface;
use s2dit_runtime::partition::{self, Partition};
use s2dit_runtime::pipeline::{Contract, Mode, Pipeline};
use s2dit_runtime::stream::contract;
use s2dit_runtime::timesteps::TIMESTEPS;
use s2dit_runtime::{DecoderFolder, KernelFolder};
use serde::Serialize;

use s2dit_emit::{ATTENTION, COMPUTE};

/// A package's findings, beside a device's where there is a report of it.
#[derive(Debug, Serialize)]
pub struct Linted {
    /// Report by the rules.
    #[serde(flatten)]
    pub report: LintReport,
    /// Comparison with a device's report, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Comparison>,
    /// For rules that a package of this compiler violates: the flag of `s2ditc compile` that mends it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub flags: BTreeMap<String, &'static str>,
}

/// The model that an artifact says it is of; `None` of a graph that was brought, and of what says none.
fn model_of(metadata: &BTreeMap<String, String>) -> Option<Arc<dyn Model>> {
    config::parse(metadata.get("s2ditc.config")?, "metadata").ok()
}

/// Whether the step of a package takes any timestep, and the same one for all tokens, and whether its model has a sampler that says which it needs: tables
/// could take its place.
fn could_have_tables(package: &Package, metadata: &BTreeMap<String, String>) -> bool {
    if model_of(metadata).is_none_or(|model| model.sampler().is_err()) {
        return false;
    }
    let said = interface::of(metadata).ok().flatten();
    let time = said.as_ref().and_then(Interface::time);
    let many = |port: &Feature| Some(port.name.as_str()) == time && port.shape.iter().product::<i64>() > 1;
    // What has no time, such as a text encoder, has no tables of it.
    let without = said.is_some() && time.is_none();
    !without && !metadata.contains_key(TIMESTEPS) && !package.inputs().iter().any(many)
}

/// Whether a path is a pipeline of clips, or a part of one: its scheduler chooses the timesteps, for any number of steps.
fn has_scheduler(path: &Path) -> bool {
    let folders = [Some(path), path.parent()].into_iter().flatten().filter(|folder| Pipeline::is_in(folder));
    folders.filter_map(|folder| Contract::read(folder).ok()).any(|contract| contract.mode == Mode::Clip)
}

/// The flag of `s2ditc compile` that mends what a rule found in a package that says this of itself; `None` if there is none, or if
/// another tool made the package. `tables` says whether tables of timesteps could.
fn flag(rule: &str, metadata: &BTreeMap<String, String>, tables: bool) -> Option<&'static str> {
    metadata.get("s2ditc.version")?;
    let says = |key: &str, value: &str| metadata.get(key).is_some_and(|found| found == value);
    let precision = metadata.get("s2ditc.contract").and_then(|text| {
        let contract: serde_json::Value = serde_json::from_str(text).ok()?;
        Some(contract["precision"].as_str()?.to_owned())
    });
    // A decoder has one shape for all engines.
    let has_shapes = model_of(metadata).is_none_or(|model| model.family().part() != Part::Decoder);
    let fp32 = precision.as_deref().or(metadata.get("s2ditc.precision").map(String::as_str)) == Some("fp32");
    Some(match rule {
        "weights-1gb" | "weights-2gib" | "asset-2gb" | "metal-buffer" => "--partition auto",
        "state-multifunction" => "--functions separate",
        _ if rule.starts_with("state-") => "--states io",
        "fp32" | "fp32-constant" | "fp32-epsilon" if fp32 => "--precision fp16",
        _ if has_shapes && (says(COMPUTE, "any") || says(COMPUTE, "gpu")) => "--compute ane",
        "fp32" | "fp32-constant" if tables => "--timesteps from-config",
        "softmax-axis" | "query-chunk" | "extent" | "extent-any" if says(ATTENTION, "batched") => {
            "--attention per-head"
        }
        _ => return None,
    })
}

/// Checks a package or an asset, or every one of a kernel folder, and compares with device reports.
///
/// # Errors
/// No package there; one that cannot be read; a device report that is none, or of none of these packages.
pub fn lint(path: &Path, rules: &Rules, device_reports: &[PathBuf]) -> Result<Vec<Linted>> {
    let mut all = Vec::new();
    let scheduled = has_scheduler(path);
    for package in packages(path)? {
        let (report, metadata, tables) = match is_asset(&package) {
            true => {
                let asset = Asset::open(&package)?;
                (lint::lint_asset(&asset, rules), asset.metadata(), false)
            }
            false => {
                let package = Package::open(&package)?;
                let (report, metadata) = (lint::lint(&package, rules)?, package.metadata());
                let tables = !scheduled && could_have_tables(&package, &metadata);
                (report, metadata, tables)
            }
        };
        let flag = |rule: &str| flag(rule, &metadata, tables);
        let flags = report.by_rule().into_keys().filter_map(|rule| Some((rule.to_string(), flag(rule)?)));
        let flags = flags.collect();
        all.push(Linted { report, device: None, flags });
    }
    for file in device_reports {
        let device = DeviceReport::read(file)?;
        let shown = file.display();
        let linted = match all.as_mut_slice() {
            [only] => only,
            several => {
                let same = |l: &&mut Linted| stem(&l.report.package) == stem(&device.model);
                several.iter_mut().find(same).with_context(|| {
                    format!("`{shown}`: it is of `{}`, which is no package of `{}`", device.model, path.display())
                })?
            }
        };
        if linted.device.is_some() {
            bail!("`{shown}`: there is another device report of `{}`", linted.report.package);
        }
        linted.device = Some(compare(&linted.report, &device, rules).with_context(|| format!("`{shown}`"))?);
    }
    Ok(all)
}

fn stem(path: &str) -> Option<&str> {
    Path::new(path).file_stem()?.to_str()
}

fn is_asset(path: &Path) -> bool {
    path.join(coreai::asset::PROGRAM).exists()
}

/// The package or asset itself, or those of a kernel folder or of two experts, by name.
fn packages(path: &Path) -> Result<Vec<PathBuf>> {
    if Pipeline::is_in(path) {
        let opened = Pipeline::open(path)?;
        if opened.contract().target != contract::Target::CoreMl {
            bail!("`{}` is a pipeline for ONNX; lint checks Core ML packages", path.display());
        }
        let parts = opened.contract().assets.parts().map(|(part, _)| packages(&opened.part(part)?));
        return Ok(parts.collect::<Result<Vec<_>>>()?.concat());
    }
    if path.join(partition::FILE).is_file() {
        let opened = Partition::open(path)?;
        return Ok(opened.description().parts.iter().map(|part| path.join(&part.file)).collect());
    }
    if let Some(pair) = Description::read(path)? {
        let each = pair.paths(path).iter().map(|expert| packages(expert)).collect::<Result<Vec<_>>>()?;
        return Ok(each.concat());
    }
    if !path.join(contract::FILE).is_file() {
        let found = match path.metadata() {
            Ok(_) if path.join(coreml::MANIFEST).exists() || is_asset(path) => return Ok(vec![path.into()]),
            Ok(m) if m.is_dir() => format!("a folder without {} or {}", coreml::MANIFEST, coreai::asset::PROGRAM),
            Ok(_) => match Foreign::of(path) {
                Ok(Some(other)) => other.to_string(),
                _ if path.extension().is_some_and(|e| e == "onnx") => "an ONNX file".into(),
                _ => "a file".into(),
            },
            Err(_) => "nothing".into(),
        };
        bail!(
            "`{}`: expected an .mlpackage, an .aimodel, or the folder of a kernel or decoder made of them, found {found}",
            path.display()
        );
    }
    let (target, named) = if DecoderContract::is_in(path) {
        let folder = DecoderFolder::open(path)?;
        let contract = folder.contract();
        (contract.target, contract.files().into_iter().map(|file| path.join(file)).collect::<Vec<_>>())
    } else {
        let folder = KernelFolder::open(path)?;
        let contract = folder.contract();
        (contract.target, contract.files().into_iter().map(|file| path.join(file)).collect())
    };
    if target == contract::Target::Onnx {
        bail!(
            "`{}` is for the target {target}; lint checks Core ML packages and Core AI assets (--target coreml or coreai)",
            path.display()
        );
    }
    let unreadable = || format!("cannot read `{}`", path.display());
    let mut found: BTreeSet<PathBuf> = named.into_iter().collect();
    for entry in std::fs::read_dir(path).with_context(unreadable)? {
        let place = entry.with_context(unreadable)?.path();
        if place.extension().is_some_and(|e| e == target.extension()) {
            found.insert(place);
        }
    }
    Ok(found.into_iter().collect())
}

/// Lint in a line, for the end of a compile.
#[derive(Clone, Debug, Serialize)]
pub struct Brief {
    /// Ops of all packages by verdict.
    pub verdicts: OpVerdicts,
    /// The worst that any finding allows.
    pub verdict: OpVerdict,
    /// Rules that say that something leaves, or may, and how often; the worst first, then the most frequent.
    pub rules: Vec<(String, usize)>,
    /// The flags of `s2ditc compile` that mend them, as far as there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<&'static str>,
    /// Ops a block of the function that has most, as far as names tell blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
}

/// The number of ops in the blocks of a function: the time that a phone takes to load the function follows it.
#[derive(Clone, Debug, Serialize)]
pub struct Budget {
    /// The function.
    pub function: String,
    /// Blocks.
    pub blocks: usize,
    /// Ops of all of them.
    pub ops: usize,
    /// Ops of the block with the fewest.
    pub least: usize,
    /// Ops of the block with the most.
    pub most: usize,
}

impl Budget {
    /// The budget of the function with most ops in blocks.
    fn of(all: &[Linted]) -> Option<Budget> {
        let functions = all.iter().flat_map(|l| &l.report.summary.functions);
        let budgets = functions.filter_map(|f| {
            let (least, most) = (*f.blocks.values().min()?, *f.blocks.values().max()?);
            let ops = f.blocks.values().sum();
            Some(Budget { function: f.name.clone(), blocks: f.blocks.len(), ops, least, most })
        });
        budgets.reduce(|a, b| if b.ops > a.ops { b } else { a })
    }

    /// `56.4 ops a block (50 to 61)`
    fn line(&self) -> String {
        let average = self.ops as f64 / self.blocks as f64;
        format!("{average:.1} ops a block of `{}` ({} to {})", self.function, self.least, self.most)
    }
}

impl Brief {
    /// Sums up what was found.
    #[must_use]
    pub fn of(all: &[Linted], rules: &Rules) -> Brief {
        let mut brief = Brief {
            verdicts: OpVerdicts::default(),
            verdict: OpVerdict::Stays,
            rules: Vec::new(),
            flags: Vec::new(),
            budget: Budget::of(all),
        };
        for Linted { report, .. } in all {
            brief.verdicts += report.summary.verdicts;
            brief.verdict = brief.verdict.max(report.summary.verdict);
        }
        let counts: Vec<_> = all.iter().map(|l| l.report.by_rule()).collect();
        let mut violated: Vec<(&Rule, usize)> = rules
            .active()
            .filter(|r| OpVerdict::of(r.severity) > OpVerdict::Stays)
            .map(|r| (r, counts.iter().filter_map(|c| c.get(r.id.as_str())).sum()))
            .filter(|(_, n)| *n > 0)
            .collect();
        violated.sort_by_key(|(rule, n)| (Reverse(rule.severity), Reverse(*n)));
        for (rule, _) in &violated {
            for flag in all.iter().filter_map(|l| l.flags.get(&rule.id)) {
                if !brief.flags.contains(flag) {
                    brief.flags.push(flag);
                }
            }
        }
        brief.rules = violated.into_iter().map(|(rule, n)| (rule.id.clone(), n)).collect();
        brief
    }

    /// `540 ops: 501 stay, 0 may leave, 39 leave the Neural Engine (rules: fp32 ×39), 61.2 ops a block of `main` (57 to 66)`
    #[must_use]
    pub fn line(&self) -> String {
        const SHOWN: usize = 4;
        let rules: Vec<String> = self.rules.iter().take(SHOWN).map(|(rule, n)| format!("{rule} ×{n}")).collect();
        let more = if self.rules.len() > SHOWN { ", …" } else { "" };
        let why = if rules.is_empty() { String::new() } else { format!(" (rules: {}{more})", rules.join(", ")) };
        let budget = self.budget.as_ref().map(|b| format!(", {}", b.line())).unwrap_or_default();
        let mend = if self.flags.is_empty() { String::new() } else { format!("; mend: {}", self.flags.join(", ")) };
        format!("{}{why}{budget}{mend}", verdicts(&self.verdicts))
    }
}

/// `540 ops: 501 stay, 0 may leave, 39 leave the Neural Engine`
#[must_use]
pub fn verdicts(v: &OpVerdicts) -> String {
    let ahead = if v.ahead > 0 { format!("{} before it, ", v.ahead) } else { String::new() };
    format!(
        "{} ops: {} stay, {ahead}{} may leave, {} leave the Neural Engine",
        v.total(),
        v.stays,
        v.may_leave,
        v.leaves
    )
}
