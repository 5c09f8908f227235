//! Weight expressions to bytes: constants are computed when a backend asks for them, one tensor at a time.
//!
//! What the interpreter needs of weights lies below it, in `source`; what evaluates constants with the interpreter lies here.

mod blocks;
mod compressed;
mod evaluate;
mod write;

pub use crate::interp::evaluate_constant;
pub use crate::source::{
    Block, ExpressionId, FileRegion, Memo, NoWeights, Remembering, WeightError, WeightSource, loaded_tensor, sources,
};
pub use blocks::Blocks;
pub use compressed::{compressed, over_compressed};
pub use write::{Written, constant_bytes, write_constant};
