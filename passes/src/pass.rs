//! A kind of pass as data: its name, what it needs of a graph, what it establishes and destroys; and a pass, which is a kind with options.

use std::fmt;
use std::sync::Arc;

use s2dit_ir::ops::OpError;
use s2dit_ir::{Module, WeightError, WeightSource};

use crate::Property;
use crate::kernel::{Kernel, Packed, SplitError};

/// What a rewrite of a module is called and does, as it is registered in [`crate::PASSES`].
#[derive(Clone, Copy)]
pub struct PassKind {
    /// Name on the command line, in tests and in reports.
    pub name: &'static str,
    /// A line that says what holds after the pass.
    pub doc: &'static str,
    /// How the options are written, in brackets behind the name; empty without options.
    pub options: &'static str,
    /// What must hold of a module before the pass.
    pub needs: &'static [Property],
    /// What holds afterwards, whatever held before.
    pub establishes: &'static [Property],
    /// What need not hold any more.
    pub destroys: &'static [Property],
    /// The rewrite.
    pub run: Run,
}

impl PassKind {
    /// A pass that does nothing: the fields that most passes leave as they are.
    pub const PLAIN: PassKind = PassKind {
        name: "",
        doc: "",
        options: "",
        needs: &[],
        establishes: &[],
        destroys: &[],
        run: Run::Plain(|_| Ok(0)),
    };
}

/// The function of a pass. Each returns the number of changes.
#[derive(Clone, Copy)]
pub enum Run {
    /// The module is all it takes.
    Plain(fn(&mut Module) -> Result<usize, OpError>),
    /// The pass reads weights, or what other passes found, or leaves something for them.
    InContext(fn(&mut Module, &mut Context) -> Result<usize, PassError>),
    /// The pass has options: it is made from how they are written, one text an option.
    Options(fn(&[&str]) -> Result<Pass, String>),
}

/// What the passes of one run share.
pub struct Context<'a> {
    /// The weights that the module loads.
    pub weights: &'a dyn WeightSource,
    /// What `split` found. The module in it has no functions; its states are those before the pass that places them.
    pub kernel: Option<Kernel>,
    /// Where `states(native)` put each state.
    pub packing: Vec<Packed>,
}

impl<'a> Context<'a> {
    /// The context of a run that begins.
    #[must_use]
    pub fn new(weights: &'a dyn WeightSource) -> Context<'a> {
        Context { weights, kernel: None, packing: Vec::new() }
    }
}

/// What a pass can fail with.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// An op's constraint broke while the pass rewrote the graph, or a number cannot be used.
    #[error(transparent)]
    Op(#[from] OpError),
    /// Weights that cannot be read.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// A graph that cannot be split.
    #[error(transparent)]
    Split(#[from] SplitError),
}

type PassFn = dyn Fn(&mut Module, &mut Context) -> Result<usize, PassError> + Send + Sync;

/// A pass with its options.
#[derive(Clone)]
pub struct Pass {
    /// Name, needs and promises.
    pub kind: &'static PassKind,
    options: String,
    also_needs: &'static [Property],
    run: Arc<PassFn>,
}

impl Pass {
    /// A pass with options; `options` is how they are written.
    pub fn new(
        kind: &'static PassKind,
        options: String,
        run: impl Fn(&mut Module, &mut Context) -> Result<usize, PassError> + Send + Sync + 'static,
    ) -> Pass {
        Pass { kind, options, also_needs: &[], run: Arc::new(run) }
    }

    /// The pass, if its options need more than its kind.
    #[must_use]
    pub fn needing(self, more: &'static [Property]) -> Pass {
        Pass { also_needs: more, ..self }
    }

    /// What must hold of a module before the pass.
    pub fn needs(&self) -> impl Iterator<Item = Property> {
        self.kind.needs.iter().chain(self.also_needs).copied()
    }

    pub(crate) fn run(&self, module: &mut Module, context: &mut Context) -> Result<usize, PassError> {
        (self.run)(module, context)
    }
}

/// A pass without options, or with those that it has if none is written.
impl From<&'static PassKind> for Pass {
    fn from(kind: &'static PassKind) -> Pass {
        match kind.run {
            Run::Plain(run) => Pass::new(kind, String::new(), move |module, _| Ok(run(module)?)),
            Run::InContext(run) => Pass::new(kind, String::new(), run),
            Run::Options(read) => read(&[]).unwrap_or_else(|reason| {
                Pass::new(kind, String::new(), move |_, _| Err(OpError::new(reason.clone()).into()))
            }),
        }
    }
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name)?;
        if self.options.is_empty() { Ok(()) } else { write!(f, "({})", self.options) }
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A pass that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No pass has this name.
    #[error("unknown pass `{name}`; the passes are {known}")]
    Unknown {
        /// Name that was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The pass does not have such options.
    #[error("pass `{pass}`: {reason}")]
    Options {
        /// The pass.
        pass: &'static str,
        /// What was found and what was expected.
        reason: String,
    },
}
