//! Pass pipelines: passes in an order that is checked before and while they run.

use std::time::{Duration, Instant};

use s2dit_ir::verify::{VerifyError, verify};
use s2dit_ir::weights::NoWeights;
use s2dit_ir::{Module, OpError, WeightError, WeightSource};

use crate::pass::{Context, Pass, PassError, ReadError};
use crate::split::{Kernel, SplitError};
use crate::states::Packed;
use crate::{PASSES, Property};

/// A pass pipeline that cannot be made, or a pass that failed.
#[derive(Debug, thiserror::Error)]
pub enum PassPipelineError {
    /// A pass that cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Passes in an order in which they cannot run.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// An op's constraint broke while the pass rewrote the graph: a defect of the pass.
    #[error("pass `{pass}`: {error}")]
    Op {
        /// The pass.
        pass: &'static str,
        /// The constraint.
        error: OpError,
    },
    /// Weights that a pass cannot read.
    #[error(transparent)]
    Weight(WeightError),
    /// A graph that cannot be split.
    #[error(transparent)]
    Split(SplitError),
    /// The module is not valid after the pass: a defect of the pass.
    #[error("after pass `{pass}` {error}")]
    Invalid {
        /// The pass.
        pass: &'static str,
        /// Invariants that do not hold.
        error: VerifyError,
    },
    /// The graph is not what the pass needs.
    #[error("pass `{pass}` needs `{need}` ({}), but {found}", need.doc())]
    Needs {
        /// The pass.
        pass: &'static str,
        /// What it needs.
        need: Property,
        /// What contradicts it.
        found: String,
    },
    /// The pass broke what held before it, or did not establish what it should: a defect of the pass.
    #[error("after pass `{pass}` `{property}` ({}) does not hold: {found}", property.doc())]
    Broken {
        /// The pass.
        pass: &'static str,
        /// What should hold.
        property: Property,
        /// What contradicts it.
        found: String,
    },
}

/// Passes in an order in which they cannot run.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// An earlier pass destroys what the pass needs.
    #[error("pass `{pass}` needs `{need}` ({}), which `{by}` before it destroys", need.doc())]
    Destroyed {
        /// The pass.
        pass: &'static str,
        /// What it needs.
        need: Property,
        /// The pass that destroys it.
        by: &'static str,
    },
    /// No earlier pass establishes what the pass needs, and a model's graph does not have it.
    #[error("pass `{pass}` needs `{need}` ({}), which no pass before it establishes; {by} would", need.doc())]
    Missing {
        /// The pass.
        pass: &'static str,
        /// What it needs.
        need: Property,
        /// The passes that establish it.
        by: String,
    },
}

/// A pass that has run: its changes and its time.
#[derive(Clone, Copy, Debug)]
pub struct PassRun {
    /// The pass.
    pub pass: &'static str,
    /// Changes it reported.
    pub changes: usize,
    /// Wall time, without the verifier.
    pub time: Duration,
}

/// What a run of a pipeline found, beside the module.
#[derive(Debug)]
pub struct Outcome {
    /// The passes, in order.
    pub runs: Vec<PassRun>,
    /// What `split` found, if it ran; see [`Context::kernel`].
    pub kernel: Option<Kernel>,
    /// Where `states(native)` put each state.
    pub packing: Vec<Packed>,
}

/// Passes in an order that gives each of them what it needs.
#[derive(Clone, Debug)]
pub struct PassPipeline {
    passes: Vec<Pass>,
    start: &'static [Property],
}

impl PassPipeline {
    /// Passes for the graph that a model's frontend writes.
    ///
    /// # Errors
    /// A pass that needs what a pass before it destroyed, or what none establishes.
    pub fn of_model(passes: Vec<Pass>) -> Result<PassPipeline, OrderError> {
        PassPipeline::of(passes, Property::OF_A_MODEL)
    }

    /// Passes for the graph of a decoder, which may have states.
    ///
    /// # Errors
    /// See [`PassPipeline::of_model`].
    pub fn of_decoder(passes: Vec<Pass>, streams: bool) -> Result<PassPipeline, OrderError> {
        PassPipeline::of(passes, if streams { Property::OF_A_STREAMING_DECODER } else { Property::OF_A_DECODER })
    }

    fn of(passes: Vec<Pass>, start: &'static [Property]) -> Result<PassPipeline, OrderError> {
        let missing = |pass, need| OrderError::Missing { pass, need, by: establish(need) };
        check(&passes, start, |pass, need| Err(missing(pass, need)))?;
        Ok(PassPipeline { passes, start })
    }

    /// Passes for a graph from elsewhere: what no pass establishes is taken to hold of the graph.
    ///
    /// # Errors
    /// A pass that needs what a pass before it destroyed.
    pub fn of_graph(passes: Vec<Pass>) -> Result<PassPipeline, OrderError> {
        check(&passes, &[], |_, _| Ok(()))?;
        Ok(PassPipeline { passes, start: &[] })
    }

    /// [`PassPipeline::of_graph`] of passes as they are written: `fuse`, `timesteps(1000,500)`.
    ///
    /// # Errors
    /// An unknown pass or option; a pass that needs what a pass before it destroyed.
    pub fn new(passes: &[&str]) -> Result<PassPipeline, PassPipelineError> {
        let passes = passes.iter().map(|text| Pass::read(text)).collect::<Result<_, _>>()?;
        Ok(PassPipeline::of_graph(passes)?)
    }

    /// The passes, in order.
    #[must_use]
    pub fn passes(&self) -> &[Pass] {
        &self.passes
    }

    /// [`PassPipeline::run_with`], for passes that read no weights.
    ///
    /// # Errors
    /// See [`PassPipeline::run_with`].
    pub fn run(
        &self,
        module: &mut Module,
        after: impl FnMut(&PassRun, &Module),
    ) -> Result<Vec<PassRun>, PassPipelineError> {
        Ok(self.run_with(module, &NoWeights, after)?.runs)
    }

    /// Runs the passes in order. Before each one the module is what the pass needs; after it the module is valid and what it was before, as far
    /// as that can be seen. `after` sees the module after each pass.
    ///
    /// # Errors
    /// The first pass that fails, or leaves a module that is not valid or not what it should be.
    pub fn run_with(
        &self,
        module: &mut Module,
        weights: &dyn WeightSource,
        mut after: impl FnMut(&PassRun, &Module),
    ) -> Result<Outcome, PassPipelineError> {
        let mut context = Context::new(weights);
        let mut runs = Vec::new();
        let mut holds = self.start.to_vec();
        for configured in &self.passes {
            let (kind, pass) = (configured.kind, configured.kind.name);
            for need in configured.needs() {
                if let Some(found) = need.contradiction(module) {
                    return Err(PassPipelineError::Needs { pass, need, found });
                }
            }
            holds.extend(configured.needs());
            let start = Instant::now();
            let changes = configured.run(module, &mut context).map_err(|error| match error {
                PassError::Op(error) => PassPipelineError::Op { pass, error },
                PassError::Weight(error) => PassPipelineError::Weight(error),
                PassError::Split(error) => PassPipelineError::Split(error),
            })?;
            let done = PassRun { pass, changes, time: start.elapsed() };
            verify(module).map_err(|error| PassPipelineError::Invalid { pass, error })?;
            holds.retain(|property| !kind.destroys.contains(property));
            holds.extend(kind.establishes);
            for &property in &holds {
                if let Some(found) = property.contradiction(module) {
                    return Err(PassPipelineError::Broken { pass, property, found });
                }
            }
            after(&done, module);
            runs.push(done);
        }
        Ok(Outcome { runs, kernel: context.kernel, packing: context.packing })
    }
}

/// Checks that each pass finds what it needs. `unknown` says what becomes of a need that was neither established nor destroyed.
fn check(
    passes: &[Pass],
    start: &[Property],
    unknown: impl Fn(&'static str, Property) -> Result<(), OrderError>,
) -> Result<(), OrderError> {
    let mut holds = start.to_vec();
    let mut destroyed: Vec<(Property, &'static str)> = Vec::new();
    for pass in passes {
        let kind = pass.kind;
        for need in pass.needs() {
            if holds.contains(&need) {
                continue;
            }
            if let Some((_, by)) = destroyed.iter().rev().find(|(property, _)| *property == need) {
                return Err(OrderError::Destroyed { pass: kind.name, need, by });
            }
            unknown(kind.name, need)?;
        }
        holds.retain(|property| !kind.destroys.contains(property));
        holds.extend(kind.establishes);
        destroyed.extend(kind.destroys.iter().map(|&property| (property, kind.name)));
    }
    Ok(())
}

/// The passes that establish a property, for a message.
fn establish(property: Property) -> String {
    let kinds = PASSES.iter().filter(|kind| kind.establishes.contains(&property));
    kinds.map(|kind| format!("`{}`", kind.name)).collect::<Vec<_>>().join(" or ")
}
