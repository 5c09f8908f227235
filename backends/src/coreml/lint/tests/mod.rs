//! Every rule on programs that keep it and that violate it; verdicts, figures and device reports.

mod cases;
mod device;
mod engine;
mod mil;

use super::{LintReport, Rules, lint};

/// A report by the built-in rules, as `overrides` changes them.
fn linted(source: &str, overrides: &str) -> LintReport {
    let on_disk = mil::write(source);
    lint(&on_disk.package, &rules(overrides).unwrap()).unwrap()
}

fn rules(overrides: &str) -> anyhow::Result<Rules> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), if overrides.is_empty() { r#"{"rules": []}"# } else { overrides })?;
    Ok(Rules::with_overrides(file.path())?)
}

/// Names of what violates a rule.
fn violators(report: &LintReport, rule: &str) -> Vec<String> {
    report.findings.iter().filter(|f| f.rule == rule).map(|f| f.name.clone()).collect()
}
