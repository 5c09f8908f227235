//! What a finding of lint is about.

use std::fmt;

use serde::Serialize;

/// The subject of a finding: an op, a function or the package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// An op.
    Op,
    /// An input of a function.
    Input,
    /// An output of a function.
    Output,
    /// A state of a function.
    State,
    /// A function.
    Function,
    /// The package.
    Package,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Subject::Op => "op",
            Subject::Input => "input",
            Subject::Output => "output",
            Subject::State => "state",
            Subject::Function => "function",
            Subject::Package => "package",
        })
    }
}
