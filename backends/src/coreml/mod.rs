//! Core ML mlpackages: ML Programs for iOS 18 and macOS 15, written without any Apple tool.
//!
//! [`write_package`] lowers a module to a MIL program, nearly one op for one op, streams its weights into the package and
//! describes the interface. Equal modules, weights and metadata give equal bytes.
//!
//! - [`proto`]: the protobuf messages. [`blob`]: the weight file. [`package`]: the folder and its manifest.
//! - `lower`: IR to MIL, one file an op family. A new IR op is one arm in `lower/mod.rs` and one function in its family.
//!
//! - [`Package`] reads any package back from disk and [`raise`] makes IR of it. They share the messages with the writer and nothing
//!   else: they judge it.
//!
//! - [`lint`] checks a package against what is known of the Neural Engine.
//!
//! ```
//! use s2dit_backends::coreml;
//! use s2dit_ir::weights::NoWeights;
//!
//! let module = s2dit_ir::text::parse(
//!     "module { func @main(%x: f16[1, 4]) {
//!         %y = softmax(%x) {axis = 1} : f16[1, 4]
//!         return y = %y
//!     } }",
//! )?;
//! let package = tempfile::tempdir()?;
//! let options = coreml::Options::default();
//! coreml::write_package(&module, &NoWeights, &options, Default::default, package.path(), &mut |_, _| {})?;
//! let read_back = coreml::raise(&coreml::Package::open(package.path())?, None)?;
//! assert_eq!(read_back.functions[0].results[0].0, "y");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The rules that a program must keep and that no loader off a Mac checks (identifiers, every defaulted input written, an
//! output that is not a written state, …) are checked by `tests/conformance/check_mlpackage.py`.

pub mod blob;
mod cost;
pub mod lint;
mod lower;
pub mod package;
pub mod proto;
mod raise;
pub mod read;
mod write;

#[cfg(test)]
pub(crate) use cost::MODEL as COST;
pub use package::{CONTENTS, MANIFEST};
pub use raise::{Caller, CallerError, Raised, raise, raise_for};
pub use read::Package;
pub use write::{Options, Summary, weight_bytes, write_package, write_siblings};

/// The specification version of iOS 18 and macOS 15, the first with states and several functions.
pub const SPECIFICATION_VERSION: i32 = 9;

/// The op set of [`SPECIFICATION_VERSION`].
pub const OPSET: &str = "CoreML8";
