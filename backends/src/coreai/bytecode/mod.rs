//! MLIR bytecode, version 6, with the dialect `aicode`: the bytes of `main.mlirb`.
//!
//! ```text
//! "MLïR", version, producer
//! 1 dialects and names of ops    3 sizes of attributes and types    2 attributes and types    4 ops
//! 6 names and sizes of resources    5 resources    0 strings    8 properties of ops
//! ```
//! Everything refers to strings, attributes and types by number; the module `number` gives the numbers that LLVM's own writer gives, so that files of equal programs are
//! equal. Resources are weights: they come after the ops and have no offsets, so a file is written from front to back, and a weight at its place whenever it is computed.

mod encode;
mod number;
pub mod read;
pub mod varint;
pub mod write;

pub use write::{Layout, Resource};

/// The first bytes.
pub const MAGIC: &[u8; 4] = b"ML\xefR";
/// The version of the bytecode.
pub const VERSION: u64 = 6;
/// The only dialect.
pub const DIALECT: &str = "aicode";
/// The version of the dialect.
pub const DIALECT_VERSION: u64 = 2;
/// Resources begin at multiples of this.
pub const ALIGNMENT: u64 = 16;
/// What lies between the end of something and the next multiple.
pub const PADDING: u8 = 0xcb;

/// Numbers of sections.
pub mod section {
    /// Strings.
    pub const STRINGS: u8 = 0;
    /// Dialects and names of ops.
    pub const DIALECTS: u8 = 1;
    /// Attributes and types.
    pub const ATTRIBUTES: u8 = 2;
    /// Sizes of attributes and types.
    pub const ATTRIBUTE_SIZES: u8 = 3;
    /// Ops.
    pub const IR: u8 = 4;
    /// Resources.
    pub const RESOURCES: u8 = 5;
    /// Names and sizes of resources.
    pub const RESOURCE_SIZES: u8 = 6;
    /// Version of a dialect.
    pub const DIALECT_VERSION: u8 = 7;
    /// Properties of ops.
    pub const PROPERTIES: u8 = 8;
}

/// Numbers of attributes.
mod attribute {
    pub const STRING: u64 = 1;
    pub const INTEGER: u64 = 2;
    pub const FLOAT: u64 = 3;
    pub const TYPE: u64 = 4;
    pub const ARRAY: u64 = 5;
    pub const DENSE: u64 = 6;
    pub const RESOURCE: u64 = 7;
    pub const OPAQUE: u64 = 9;
    pub const SYMBOL: u64 = 14;
    pub const CALLEE: u64 = 16;
    pub const FILE: u64 = 30;
    pub const RANGE: u64 = 31;
    pub const LOCATION: u64 = 40;
    pub const DICTIONARY: u64 = 45;
    pub const UNIT: u64 = 46;
}

/// Numbers of types that are no elements.
mod kind {
    pub const TENSOR: u64 = 2;
    pub const FUNCTION: u64 = 30;
    pub const HANDLE: u64 = 31;
    pub const TOKEN: u64 = 32;
    pub const CALLABLE: u64 = 33;
}

/// Flags of what an op has.
mod has {
    pub const RESULTS: u8 = 0x02;
    pub const OPERANDS: u8 = 0x04;
    pub const REGIONS: u8 = 0x10;
    pub const PROPERTIES: u8 = 0x40;
}

/// Whether a property, by its place, may be missing: then its number says so.
fn optional(name: &str, place: usize) -> bool {
    matches!((name, place), ("serialization.asset", _) | ("dataflow.graph_v1", 1))
}
