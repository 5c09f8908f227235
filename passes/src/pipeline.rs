//! Ordered lists of passes, with the verifier between them.

use std::time::{Duration, Instant};

use s2dit_ir::Module;
use s2dit_ir::ops::OpError;
use s2dit_ir::verify::{VerifyError, verify};

use crate::{Pass, pass};

/// A pass that failed.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// No pass has this name.
    #[error("unknown pass `{name}`; the passes are {known}")]
    Unknown {
        /// Name that was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// An op's constraint broke while the pass rewrote the graph: a defect of the pass.
    #[error("pass `{pass}`: {error}")]
    Op {
        /// The pass.
        pass: &'static str,
        /// The constraint.
        error: OpError,
    },
    /// The module is not valid after the pass: a defect of the pass.
    #[error("after pass `{pass}` {error}")]
    Invalid {
        /// The pass.
        pass: &'static str,
        /// Invariants that do not hold.
        error: VerifyError,
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

/// A list of passes.
#[derive(Clone)]
pub struct Pipeline {
    passes: Vec<&'static Pass>,
}

impl Pipeline {
    /// A pipeline by pass names.
    ///
    /// # Errors
    /// An unknown name.
    pub fn new(names: &[&str]) -> Result<Pipeline, PipelineError> {
        let find = |name: &&str| {
            pass(name).ok_or_else(|| PipelineError::Unknown {
                name: (*name).into(),
                known: crate::PASSES.iter().map(|p| p.name).collect::<Vec<_>>().join(", "),
            })
        };
        Ok(Pipeline { passes: names.iter().map(find).collect::<Result<_, _>>()? })
    }

    /// Runs the passes in order and verifies the module after each one. `after` sees the module after each pass.
    ///
    /// # Errors
    /// The first pass that fails or leaves an invalid module.
    pub fn run(
        &self,
        module: &mut Module,
        mut after: impl FnMut(&PassRun, &Module),
    ) -> Result<Vec<PassRun>, PipelineError> {
        let mut runs = Vec::new();
        for pass in &self.passes {
            let start = Instant::now();
            let changes = (pass.run)(module).map_err(|error| PipelineError::Op { pass: pass.name, error })?;
            let done = PassRun { pass: pass.name, changes, time: start.elapsed() };
            verify(module).map_err(|error| PipelineError::Invalid { pass: pass.name, error })?;
            after(&done, module);
            runs.push(done);
        }
        Ok(runs)
    }
}
