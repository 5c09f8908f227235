//! Checks a package against what is known of the Neural Engine.
//!
//! No tool off a device can say where an op runs. What is known is a list of rules from Apple's guides, reports and measurements, each
//! with its source and how well it is known: [`rules`] reads them from `rules.json`, where they are data. [`checks`] looks for
//! violations in the parsed program, ours or another tool's; [`device`] compares the verdicts with a report from a device, so that a
//! rule can be promoted or retired without touching code.
//!
//! A new rule is an object in `rules.json`; a new kind of check is a file in `checks/` and one line in its `mod.rs`.

mod ahead;
pub mod checks;
mod constant;
pub mod device;
mod literal;
pub mod program;
mod provenance;
pub mod report;
pub mod rules;
mod subject;
mod summary;
#[cfg(test)]
mod tests;
pub mod value;

use std::path::Path;

use super::Package;
use crate::Error;
use crate::coreai::{self, Asset};
use checks::Place;
use program::{Function, Operand, Program};
pub use report::{Finding, LintReport, OpReport, OpVerdict, OpVerdicts, Summary};
pub use rules::{Confidence, Format, Rule, Rules, Severity};
pub use subject::Subject;

/// Checks a package.
///
/// # Errors
/// A package whose program or weight file cannot be read.
pub fn lint(package: &Package, rules: &Rules) -> Result<LintReport, Error> {
    let program = Program::read(package).map_err(Error::reading)?;
    Ok(report(package.path(), &program, &rules.of(Format::CoreMl)))
}

/// Checks a Core AI asset: by the rules that hold of ops whatever file they lie in, and by those of assets.
#[must_use]
pub fn lint_asset(asset: &Asset, rules: &Rules) -> LintReport {
    let functions = coreai::mil_functions(asset);
    let weight_bytes = asset.resources().map(|(_, bytes)| bytes as u64).sum();
    report(asset.path(), &Program::of_asset(&functions, weight_bytes), &rules.of(Format::CoreAi))
}

fn report(path: &Path, program: &Program, rules: &Rules) -> LintReport {
    let shown = path.display().to_string();
    let (mut findings, mut ops) = (Vec::new(), Vec::new());
    for rule in rules.active() {
        if let Some(found) = rule.check.look().package(program) {
            findings.push(finding(rule, Subject::Package, None, shown.clone(), found));
        }
    }
    for function in &program.functions {
        check(program, function, rules, &mut findings, &mut ops);
    }
    let summary = summary::summary(program, rules, &findings, &ops);
    LintReport { package: shown, summary, findings, ops }
}

/// Checks a function.
fn check(program: &Program, function: &Function, rules: &Rules, findings: &mut Vec<Finding>, ops: &mut Vec<OpReport>) {
    let place = Place { program, function };
    let start = findings.len();
    for rule in rules.active() {
        for (subject, name, found) in rule.check.look().function(&place) {
            findings.push(finding(rule, subject, Some(function.name), name, found));
        }
    }
    let of_interface = start..findings.len();
    let ahead = ahead::ahead(function);
    for op in &function.ops {
        let is_ahead = ahead.contains(op.name);
        let provenance = provenance::path(function, op);
        let from = findings.len();
        // What leaves the engine before its first op cuts nothing in two.
        let of_op = |rule: &&Rule| !is_ahead || !matches!(rule.severity, Severity::MayLeave | Severity::Leaves);
        for rule in rules.active().filter(of_op) {
            if let Some(found) = rule.check.look().op(&place, op) {
                let finding = finding(rule, Subject::Op, Some(function.name), op.name.into(), found);
                findings.push(Finding { ty: Some(op.ty.into()), provenance: provenance.clone(), ..finding });
            }
        }
        // What is wrong with a state is wrong with the ops that read and write it.
        let state = op.operands("input").into_iter().find_map(Operand::name).filter(|_| op.ty.ends_with("_state"));
        let of_state = findings[of_interface.clone()]
            .iter()
            .filter(|f| f.subject == Subject::State && state == Some(f.name.as_str()));
        let of_op: Vec<&Finding> = findings[from..].iter().chain(of_state).collect();
        ops.push(OpReport {
            function: function.name.into(),
            name: op.name.into(),
            ty: op.ty.into(),
            provenance,
            verdict: match is_ahead {
                true => OpVerdict::Ahead,
                false => of_op.iter().map(|f| OpVerdict::of(f.severity)).max().unwrap_or(OpVerdict::Stays),
            },
            rules: of_op.iter().map(|f| f.rule.clone()).collect(),
        });
    }
}

fn finding(rule: &Rule, subject: Subject, function: Option<&str>, name: String, found: String) -> Finding {
    Finding {
        rule: rule.id.clone(),
        severity: rule.severity,
        confidence: rule.confidence,
        subject,
        function: function.map(str::to_string),
        name,
        ty: None,
        provenance: None,
        text: rule.text.clone(),
        found,
        mend: rule.mend.clone(),
    }
}
