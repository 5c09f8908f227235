//! What the verifier found, where the printer can see it.

use crate::ValueId;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Function in which it was found.
    pub function: String,
    /// The value at fault, if it is one value.
    pub value: Option<ValueId>,
    /// Message: the invariant, what was found, what was expected.
    pub message: String,
}
