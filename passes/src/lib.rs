//! Graph-to-graph rewrites, and the pipelines that order them.
//!
//! A pass is a function from a module to a changed module, in a file of its own; it is registered by one line in
//! [`PASSES`]. It says what it needs of a graph, what it establishes and what it destroys ([`Property`]), and a [`PassPipeline`] is an order in which
//! each pass gets what it needs; those of the product are in [`pipelines`]. A pass knows neither checkpoints nor files. Its tests are text:
//! `passes/tests/text/NAME.s2` holds IR before and after; `S2DITC_BLESS=1 cargo test -p s2dit-passes` writes the *after* anew.
//!
//! ```
//! let mut module = s2dit_ir::text::parse(
//!     "module { func @main(%x: f32[2, 8]) {
//!         %0 = sigmoid(%x) : f32[2, 8]
//!         %y = mul(%x, %0) : f32[2, 8]
//!         return y = %y
//!     } }",
//! )?;
//! s2dit_passes::PassPipeline::new(&["fuse"])?.run(&mut module, |done, _| assert!(done.changes > 0))?;
//! assert!(s2dit_ir::text::print(&module).contains("%y = silu(%x)"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod bound;
pub mod canonicalize;
pub mod channels_first;
pub mod cse;
pub mod decompose;
pub mod emulate;
pub mod fold_gate;
pub mod fuse;
pub mod half_weights;
mod hidden_layers;
pub mod integers;
pub mod kernel;
pub mod lowerings;
pub mod notch;
pub mod pad_notch;
pub mod pad_tokens;
pub mod partition;
pub mod pass;
pub mod pattern;
pub mod phase;
pub mod pipeline;
pub mod pipelines;
pub mod precision;
pub mod property;
pub mod quantize;
pub mod regions;
mod registry;
pub mod rope_heads;
pub mod rope_tables;
pub mod slices_of_rows;
pub mod split;
pub mod split_conv;
pub mod split_hidden;
pub mod square_free_norms;
pub mod states;
pub mod sums_as_products;
pub mod tile_queries;
pub mod timesteps;
pub mod widen;

pub use lowerings::Lowerings;
pub use pass::{Pass, PassKind};
pub use pipeline::{PassPipeline, PassRun};
pub use precision::Fp16Extent;
pub use property::Property;
pub use registry::{PASSES, pass};
