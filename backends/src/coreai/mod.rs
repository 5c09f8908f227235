//! Core AI assets (`.aimodel`) for iOS 27 and macOS 27, written without any of Apple's code. Experimental: Apple's runtime runs them on Linux, and no device has
//! loaded one yet.
//!
//! [`write_asset`] lowers a module to a program of the dialect `aicode`, streams its weights into the file and describes it. Equal modules, weights and metadata
//! give equal bytes.
//!
//! - [`Asset`] reads any asset back from disk, and [`raise`] makes IR of it. They share the encodings with the writer and nothing else: they judge it.
//! - [`program`]: a program in memory. [`bytecode`]: its bytes. [`asset`]: the folder.
//! - `lower`: IR to `aicode`, one file an op family. `op`: the ops and since when there are such. `body`: what ops stand for that are no primitives.
//!
//! ```
//! use s2dit_backends::coreai;
//! use s2dit_ir::weights::NoWeights;
//!
//! let module = s2dit_ir::text::parse(
//!     "module { func @main(%x: f32[1, 4]) {
//!         %y = softmax(%x) {axis = 1} : f32[1, 4]
//!         return y = %y
//!     } }",
//! )?;
//! let asset = tempfile::tempdir()?;
//! let options = coreai::Options::default();
//! let summary =
//!     coreai::write_asset(&module, &NoWeights, &options, Default::default, asset.path(), &mut |_, _| {})?;
//! assert_eq!(summary.ops, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod as_mil;
pub mod asset;
mod block;
mod body;
pub mod bytecode;
mod hashing;
mod lower;
mod op;
mod probe;
pub mod program;
mod raise;
pub mod read;
mod stored;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use as_mil::{MilFunction, functions as mil_functions};
pub use asset::{CONTENTS, Metadata};
pub use raise::raise;
pub use read::Asset;
pub use write::{Options, Summary, write_asset};
