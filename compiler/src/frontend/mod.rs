//! Checkpoint to IR: one module a model family.
//!
//! A frontend emits plain tensor ops, the way PyTorch would trace the model, with the checkpoint's module paths as
//! provenance. It makes no numerical choices: the graph is f32 whatever the checkpoint stores.

pub mod s2dit;
