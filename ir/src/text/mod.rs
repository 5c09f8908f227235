//! The text form: printer and parser, inverse of each other.
//!
//! ```
//! let ir = r#"module {
//!   state "k" : f16[1, 8]
//!   func @main(%x: f16[1, 8]) {
//!     %0 = load {tensor = "w"} : f16[4, 8]
//!     %1 = linear(%x, %0) : f16[1, 4] @ "proj"
//!     %y = softmax(%1) {axis = 1} : f16[1, 4] @ "head"
//!     update "k" = %x
//!     return y = %y
//!   }
//! }
//! "#;
//! let module = s2dit_ir::text::parse(ir)?;
//! s2dit_ir::verify::verify(&module)?;
//! assert_eq!(s2dit_ir::text::print(&module), ir);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Values that have a name print it; the others are numbered in order. A name that is not `[A-Za-z_][A-Za-z0-9_.]*` is
//! quoted: `%"a b"`. After `@` stands the provenance. `#` starts a comment.

mod parse;
mod print;

pub use parse::{ParseError, parse};
pub use print::{print, print_with_notes};
