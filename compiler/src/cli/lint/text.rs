//! Lint's reports for people.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use s2dit_backends::coreml::lint::device::{Comparison, Judgement};
use s2dit_backends::coreml::lint::report::FunctionSummary;
use s2dit_backends::coreml::lint::{Finding, Format, LintReport, OpVerdict, Rule, Rules, Subject};

use super::super::style;
use super::super::terminal::one_line;
use crate::lint::{Linted, verdicts};
use s2dit_files::problems::shown;
use s2dit_files::size;

/// Findings that are shown of a rule.
const FIRST: usize = 3;

/// The rules, with what is known of them.
pub(super) fn rules(rules: &Rules) -> String {
    let mut out = String::new();
    for rule in rules.all() {
        let retired = if rule.retired { ", retired" } else { "" };
        let of = match rule.format {
            None => "",
            Some(Format::CoreMl) => ", of packages",
            Some(Format::CoreAi) => ", of Core AI assets",
        };
        let known = format!("{} confidence, since {}", rule.confidence, rule.since);
        out += &format!("{}: {}, {known}{of}{retired}\n", rule.id, rule.severity);
        let [text, source, mend] = [&rule.text, &rule.source, &rule.mend].map(|text| one_line(text));
        out += &format!("    {text}\n    source: {source}\n    mend: {mend}\n");
        if let Some(because) = &rule.because {
            out += &format!("    because: {}\n", one_line(because));
        }
    }
    out
}

/// A package's report.
pub(super) fn report(linted: &Linted, rules: &Rules, all: bool) -> String {
    let Linted { report, device, flags } = linted;
    let mut out = summary(report, all);
    let mut by_rule: Vec<(&Rule, Vec<&Finding>)> = rules
        .active()
        .map(|rule| (rule, report.findings.iter().filter(|f| f.rule == rule.id).collect::<Vec<_>>()))
        .filter(|(_, findings)| !findings.is_empty())
        .collect();
    by_rule.sort_by_key(|(rule, findings)| (Reverse(rule.severity), Reverse(rule.confidence), Reverse(findings.len())));
    for (rule, findings) in &by_rule {
        group(rule, findings, flags.get(&rule.id).copied(), all, &mut out);
    }
    if by_rule.is_empty() {
        out += "nothing speaks against the Neural Engine\n";
    }
    if let Some(device) = device {
        comparison(device, &mut out);
    }
    out
}

fn summary(report: &LintReport, all: bool) -> String {
    let s = &report.summary;
    let wider = report
        .findings
        .iter()
        .filter(|f| f.subject != Subject::Op && OpVerdict::of(f.severity) != OpVerdict::Stays)
        .count();
    let wider = if wider > 0 { format!("; {wider} finding(s) about more than one op") } else { String::new() };
    let mut out = format!("{}: {}{wider}\n", one_line(&report.package), verdicts(&s.verdicts));
    let limit = s.weight_limit.map(|l| format!(" of at most {}", size(l))).unwrap_or_default();
    out += &format!("  weights: {}{limit}; results: {}\n", size(s.weight_bytes), counts(&s.dtypes, usize::MAX));
    out += &format!("  ops: {}\n", counts(&s.ops, if all { usize::MAX } else { 8 }));
    for f in &s.functions {
        function(f, all, &mut out);
    }
    out.push('\n');
    out
}

fn function(f: &FunctionSummary, all: bool, out: &mut String) {
    let states = if f.states > 0 { format!(", {} state(s)", f.states) } else { String::new() };
    *out += &format!(
        "  function {}: {} ops{states}; highest rank {} ({}), largest extent {} ({})\n",
        shown(&f.name),
        f.verdicts.total(),
        f.rank.value,
        shown(&f.rank.name),
        f.extent.value,
        shown(&f.extent.name)
    );
    if f.blocks.is_empty() {
        return;
    }
    let (least, most) = (f.blocks.values().min().unwrap_or(&0), f.blocks.values().max().unwrap_or(&0));
    *out += &format!("    {} blocks of {least} to {most} ops, {} ops outside\n", f.blocks.len(), f.outside_blocks);
    if all {
        let blocks: Vec<String> = f.blocks.iter().map(|(block, n)| format!("{block}: {n}")).collect();
        *out += &format!("    {}\n", blocks.join(", "));
    }
}

/// `120 mul, 80 add, …`, most first.
fn counts(of: &BTreeMap<String, usize>, most: usize) -> String {
    let mut list: Vec<(&String, &usize)> = of.iter().collect();
    list.sort_by_key(|(_, n)| Reverse(**n));
    let mut texts: Vec<String> = list.iter().take(most).map(|(name, n)| format!("{n} {}", shown(name))).collect();
    if list.len() > most {
        texts.push("…".into());
    }
    if texts.is_empty() { "none".into() } else { texts.join(", ") }
}

fn group(rule: &Rule, findings: &[&Finding], flag: Option<&str>, all: bool, out: &mut String) {
    let severity = rule.severity.to_string();
    let severity = match OpVerdict::of(rule.severity) {
        OpVerdict::Stays | OpVerdict::Ahead => severity,
        OpVerdict::MayLeave => style::doubtful(&severity),
        OpVerdict::Leaves => style::bad(&severity),
    };
    *out += &format!("{severity} ({} confidence)  {} ×{}\n", rule.confidence, rule.id, findings.len());
    *out += &format!("  {}\n", one_line(&rule.text));
    let most = if all { findings.len() } else { FIRST };
    for finding in findings.iter().take(most) {
        let function = finding.function.as_deref().map(|f| format!("{}/", shown(f))).unwrap_or_default();
        let what = match (finding.subject, &finding.ty, &finding.provenance) {
            (Subject::Op, Some(ty), Some(from)) => format!("{} of {}", shown(ty), shown(from)),
            (Subject::Op, Some(ty), None) => shown(ty),
            (subject, ..) => subject.to_string(),
        };
        *out += &format!("    {function}{} ({what}): {}\n", shown(&finding.name), shown(&finding.found));
    }
    if findings.len() > most {
        *out += &format!("    … and {} more (--all)\n", findings.len() - most);
    }
    match flag {
        Some(flag) => *out += &format!("  mend: s2ditc compile … {flag} ({})\n\n", one_line(&rule.mend)),
        None => *out += &format!("  mend: {}\n\n", one_line(&rule.mend)),
    }
}

fn comparison(c: &Comparison, out: &mut String) {
    *out += &format!("device: {}, {}\n", shown(&c.device), shown(&c.compute_units));
    *out += "  verdict      on the engine   could, but elsewhere   cannot\n";
    for (verdict, row) in &c.confusion {
        *out += &format!("  {verdict:<12} {:>13} {:>22} {:>8}\n", row.engine, row.declined, row.unsupported);
    }
    if let Some(share) = c.engine_cost_share {
        *out += &format!("  {:.1} % of the estimated cost runs on the engine\n", 100.0 * share);
    }
    if c.unmatched != (0, 0) {
        *out += &format!("  not compared: {} op(s) of the package, {} of the report\n", c.unmatched.0, c.unmatched.1);
    }
    for row in &c.rules {
        let judgement = match row.judgement {
            Judgement::Right => "right",
            Judgement::Unproven => "as it says, but other rules said so too",
            Judgement::Wrong => "WRONG: retire it for this device",
            Judgement::Mixed => "mixed",
        };
        *out += &format!(
            "  rule {} ({}): {} on the engine, {} elsewhere: {judgement}\n",
            row.rule,
            row.severity,
            row.ops.engine,
            row.ops.elsewhere()
        );
    }
    if !c.missed.is_empty() {
        *out += &format!("  no rule says so, but they run elsewhere: {}\n", counts(&c.missed, usize::MAX));
        for (name, ty, cost) in &c.costliest_missed {
            *out += &format!("    {} ({}), {:.2} % of the cost\n", shown(name), shown(ty), 100.0 * cost);
        }
    }
}
