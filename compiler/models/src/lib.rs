//! Model families: what a checkpoint of each must hold, and its graph in plain tensor ops.
//!
//! A family emits plain tensor ops, the way PyTorch would trace the model, with the checkpoint's module paths as
//! provenance. It makes no numerical choices: the graph is f32 whatever the checkpoint stores.

pub mod checkpoint;
pub mod init;
pub mod s2dit;
mod schema_weights;

pub use schema_weights::SchemaWeights;
