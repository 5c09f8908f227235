//! The formulas and blocks that the passes recognise in a graph, and those that they nearly do.

use std::collections::BTreeMap;

use anyhow::Result;
use s2dit_ir::{Interface, Module};
use s2dit_passes::regions::{Kind, leftovers, recognise};
use s2dit_passes::{fuse, pipelines};
use serde::Serialize;

/// A recognised part of a block.
#[derive(Debug, Serialize)]
pub struct Recognised {
    /// Provenance, such as `blocks.3.attn1`; in a package the common part of its ops' names.
    pub scope: String,
    /// `lcha`, `linear`, `ssa`, `full` or `cross`.
    pub kind: String,
    /// The SSA stage that it lies in.
    pub stage: Option<usize>,
    /// Tokens that go in.
    pub tokens: usize,
    /// Composite ops inside, by name.
    pub formulas: BTreeMap<&'static str, usize>,
}

/// A formula or region that is nearly one.
#[derive(Debug, Serialize)]
pub struct NearMiss {
    /// Rule that nearly matched.
    pub rule: &'static str,
    /// Provenance.
    pub scope: String,
    /// The op that was expected, and the one that is there.
    pub reason: String,
}

/// A function, recognised.
#[derive(Debug, Serialize)]
pub struct Recognition {
    /// The function.
    pub function: String,
    /// LCHA blocks.
    pub lcha: usize,
    /// Blocks with linear attention alone.
    pub linear: usize,
    /// SSA blocks.
    pub ssa: usize,
    /// Blocks with full self-attention.
    pub full: usize,
    /// Cross-attentions.
    pub cross: usize,
    /// Stages of low resolution.
    pub stages: usize,
    /// Every region, in order.
    pub regions: Vec<Recognised>,
    /// Composite ops of the whole function, by name.
    pub formulas: BTreeMap<&'static str, usize>,
    /// Ops that belong to such formulas and stand alone, by name.
    pub leftovers: BTreeMap<&'static str, usize>,
    /// Formulas that were nearly recognised, and why not.
    pub near_misses: Vec<NearMiss>,
}

/// Recognises every function of a module, which may come from a checkpoint or from a finished package.
///
/// # Errors
/// A defect of a pass.
pub fn recognition(mut module: Module) -> Result<Vec<Recognition>> {
    // A package names every value; here no name has to survive, and no interface tells of any.
    module.interface = Interface::default();
    for f in &mut module.functions {
        for v in f.values() {
            if !f.params().contains(&v) {
                f.node_mut(v).name = None;
            }
        }
    }
    pipelines::recognition()?.run(&mut module, |_, _| {})?;
    module.functions.iter_mut().map(of_function).collect()
}

fn of_function(f: &mut s2dit_ir::Function) -> Result<Recognition> {
    let fused = fuse::explain(f)?;
    let found = recognise(f)?;
    let count = |values: &[s2dit_ir::ValueId], composites: bool| {
        let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
        for op in values.iter().map(|&v| f.op(v)).filter(|op| !composites || op.is_composite()) {
            *counts.entry(op.name()).or_default() += 1;
        }
        counts
    };
    let regions = found.regions.iter().map(|r| {
        let shape = f.shape(r.input);
        Recognised {
            scope: r.scope.to_string(),
            kind: r.kind.to_string(),
            stage: if let Kind::Ssa(stage) = r.kind { Some(stage) } else { None },
            tokens: shape[..shape.len().saturating_sub(1)].iter().product(),
            formulas: count(&r.interior, true),
        }
    });
    let near = fused.into_iter().chain(found.misses.iter().cloned());
    Ok(Recognition {
        function: f.name.clone(),
        lcha: found.count(Kind::Lcha),
        linear: found.count(Kind::Linear),
        ssa: found.count(Kind::Ssa(0)),
        full: found.count(Kind::Full),
        cross: found.count(Kind::Cross),
        stages: found.stages.len(),
        regions: regions.collect(),
        formulas: count(&f.order(), true),
        leftovers: count(&leftovers(f), false),
        near_misses: near.map(|m| NearMiss { rule: m.rule, scope: m.scope.to_string(), reason: m.reason }).collect(),
    })
}
