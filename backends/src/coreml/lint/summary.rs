//! A package in figures.

use std::collections::BTreeMap;

use super::program::{Function, Program};
use super::provenance;
use super::report::{Extreme, Finding, FunctionSummary, OpReport, OpVerdict, OpVerdicts, Summary};
use super::rules::Rules;
use super::value::{Value, dtype_name};

/// Counts what was found.
pub(super) fn summary(program: &Program, rules: &Rules, findings: &[Finding], ops: &[OpReport]) -> Summary {
    let mut verdicts = OpVerdicts::default();
    ops.iter().for_each(|op| verdicts.add(op.verdict));
    let (mut dtypes, mut types) = (BTreeMap::new(), BTreeMap::new());
    for op in program.functions.iter().flat_map(|f| &f.ops) {
        *types.entry(op.ty.to_string()).or_insert(0) += 1;
        for value in &op.outputs {
            *dtypes.entry(dtype_name(value.dtype).to_string()).or_insert(0) += 1;
        }
    }
    Summary {
        verdicts,
        verdict: findings.iter().map(|f| OpVerdict::of(f.severity)).max().unwrap_or(OpVerdict::Stays),
        weight_bytes: program.weight_bytes,
        weight_limit: rules.active().filter_map(|r| r.check.weight_limit()).min(),
        dtypes,
        ops: types,
        functions: program.functions.iter().map(|f| function(f, ops)).collect(),
    }
}

fn function(f: &Function, ops: &[OpReport]) -> FunctionSummary {
    let mut out = FunctionSummary {
        name: f.name.into(),
        states: f.states.len(),
        verdicts: OpVerdicts::default(),
        blocks: BTreeMap::new(),
        outside_blocks: 0,
        rank: Extreme::default(),
        extent: Extreme::default(),
    };
    let own: Vec<&OpReport> = ops.iter().filter(|op| op.function == f.name).collect();
    own.iter().for_each(|op| out.verdicts.add(op.verdict));
    for block in blocks(&own) {
        match block {
            Some(block) => *out.blocks.entry(block).or_insert(0) += 1,
            None => out.outside_blocks += 1,
        }
    }
    let values = f.inputs.iter().chain(&f.states).chain(f.ops.iter().flat_map(|op| &op.outputs));
    for value in values {
        keep(&mut out.rank, value.shape.len() as u64, value);
        let widest = value.shape.iter().copied().flatten().max().unwrap_or(0);
        keep(&mut out.extent, widest, value);
    }
    out
}

/// Each op's block, counted through all lists of blocks in the order in which the function has them. One whose names do not tell belongs to a block if those before and after it that tell do.
fn blocks(ops: &[&OpReport]) -> Vec<Option<u32>> {
    let named = |op: &&OpReport| {
        op.provenance.as_deref().map(|path| provenance::block(path).map(|(list, n)| (list.to_owned(), n)))
    };
    let named: Vec<Option<Option<(String, u32)>>> = ops.iter().map(named).collect();
    // A block's result has its number among all in its name, and no list.
    let mut lists: Vec<(&str, u32)> = Vec::new();
    for (list, n) in named.iter().flatten().flatten().filter(|(list, _)| !list.is_empty()) {
        match lists.iter_mut().find(|(known, _)| *known == list.as_str()) {
            Some((_, count)) => *count = (*count).max(n.saturating_add(1)),
            None => lists.push((list.as_str(), n.saturating_add(1))),
        }
    }
    let before = |list: &str| -> u32 {
        let earlier = lists.iter().take_while(|(known, _)| *known != list);
        if list.is_empty() { 0 } else { earlier.fold(0, |sum, (_, count)| sum.saturating_add(*count)) }
    };
    let number = |(list, n): &(String, u32)| before(list).saturating_add(*n);
    let known: Vec<Option<Option<u32>>> =
        named.iter().map(|op| op.as_ref().map(|block| block.as_ref().map(number))).collect();
    let mut out: Vec<Option<u32>> = known.iter().map(|k| k.flatten()).collect();
    let mut before: Option<(usize, Option<u32>)> = None;
    for (here, block) in known.iter().enumerate().filter_map(|(i, k)| Some((i, (*k)?))) {
        if let Some((from, same)) = before.filter(|(_, same)| *same == block) {
            out[from..here].fill(same);
        }
        before = Some((here, block));
    }
    out
}

/// The first of equals stays.
fn keep(extreme: &mut Extreme, value: u64, of: &Value) {
    if value > extreme.value {
        *extreme = Extreme { value, name: of.name.into(), ty: of.ty() };
    }
}
