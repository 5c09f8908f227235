//! Where the bytes of weights come from: what the interpreter needs of them.
//!
//! Public items are re-exported by [`crate::weights`].

mod error;
mod expression_id;
mod loads;
mod memo;
mod read;
mod remembering;
mod rows;
mod stored;
mod weight_source;

pub use error::WeightError;
pub use expression_id::ExpressionId;
pub use loads::{loaded_tensor, sources};
pub use memo::Memo;
pub use remembering::Remembering;
pub use stored::Block;
pub use weight_source::{FileRegion, NoWeights, WeightSource};

pub(crate) use loads::{plain_load, widens};
pub(crate) use read::{load_bytes, load_part};
pub(crate) use rows::{streamed_linear, streams};
pub(crate) use stored::{Stored, round};
