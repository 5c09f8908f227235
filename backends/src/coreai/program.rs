//! Programs of the dialect `aicode` in memory: what the bytecode says, and nothing of what ops mean.

use std::borrow::Cow;
use std::sync::Arc;

/// Type of an element. The numbers are those of the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// Truth value, a byte each.
    Bool = 4,
    /// Floating-point numbers.
    F64 = 5,
    /// 32 bits.
    F32 = 6,
    /// 16 bits.
    F16 = 7,
    /// 16 bits, with the range of 32.
    BF16 = 8,
    /// Signed integers.
    Si64 = 17,
    /// 32 bits.
    Si32 = 18,
    /// 16 bits.
    Si16 = 19,
    /// 8 bits.
    Si8 = 20,
    /// 4 bits, packed.
    Si4 = 21,
    /// Unsigned integers.
    Ui64 = 23,
    /// 32 bits.
    Ui32 = 24,
    /// 16 bits.
    Ui16 = 25,
    /// 8 bits.
    Ui8 = 26,
    /// 4 bits, packed.
    Ui4 = 27,
    /// 2 bits, packed.
    Ui2 = 28,
    /// One bit, packed.
    Ui1 = 29,
    /// 6 bits, packed.
    Ui6 = 36,
    /// 3 bits, packed.
    Ui3 = 37,
}

impl Element {
    /// Every element type.
    pub const ALL: [Element; 19] = [
        Element::Bool,
        Element::F64,
        Element::F32,
        Element::F16,
        Element::BF16,
        Element::Si64,
        Element::Si32,
        Element::Si16,
        Element::Si8,
        Element::Si4,
        Element::Ui64,
        Element::Ui32,
        Element::Ui16,
        Element::Ui8,
        Element::Ui4,
        Element::Ui2,
        Element::Ui1,
        Element::Ui6,
        Element::Ui3,
    ];

    /// The number of the encoding.
    #[must_use]
    pub const fn code(self) -> u64 {
        self as u64
    }

    /// The type with a number of the encoding.
    #[must_use]
    pub fn of_code(code: u64) -> Option<Element> {
        Element::ALL.into_iter().find(|e| e.code() == code)
    }

    /// The type's name in Core AI's text form.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Element::Bool => "i1",
            Element::F64 => "f64",
            Element::F32 => "f32",
            Element::F16 => "f16",
            Element::BF16 => "bf16",
            Element::Si64 => "si64",
            Element::Si32 => "si32",
            Element::Si16 => "si16",
            Element::Si8 => "si8",
            Element::Si4 => "si4",
            Element::Ui64 => "ui64",
            Element::Ui32 => "ui32",
            Element::Ui16 => "ui16",
            Element::Ui8 => "ui8",
            Element::Ui4 => "ui4",
            Element::Ui2 => "ui2",
            Element::Ui1 => "ui1",
            Element::Ui6 => "ui6",
            Element::Ui3 => "ui3",
        }
    }
}

/// The extent of an axis that is not known before a call.
pub const OPEN: i64 = i64::MIN;

/// Type of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// An element alone, as the type of a tensor refers to it.
    Element(Element),
    /// A tensor; an extent may be [`OPEN`].
    Tensor {
        /// Extents, outermost first.
        shape: Vec<i64>,
        /// Type of each element.
        element: Element,
    },
    /// What a function takes and gives.
    Function {
        /// Types of the arguments.
        inputs: Vec<Type>,
        /// Types of the results.
        results: Vec<Type>,
    },
    /// A tensor that outlives calls: the argument of a graph.
    Handle {
        /// Extents, outermost first.
        shape: Vec<i64>,
        /// Type of each element.
        element: Element,
    },
    /// The order of what is done with a handle.
    Token,
    /// What the name of a graph refers to.
    Callable,
    /// A type that is carried along as its encoding says it.
    Other {
        /// Number of the encoding.
        code: u64,
    },
}

/// A constant part of a program. Equal attributes are stored once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// Text.
    String(Arc<str>),
    /// An integer of some bits.
    Integer {
        /// Bits.
        width: u64,
        /// Its value.
        value: i64,
    },
    /// A signed integer, or a truth value among parameters.
    Signed {
        /// Bits.
        width: u64,
        /// Its value.
        value: i64,
    },
    /// A number of 32 bits, as its bits.
    Float(u32),
    /// A type.
    Type(Type),
    /// A list.
    Array(Vec<Attribute>),
    /// Elements of a tensor; the type is the constant's.
    Dense {
        /// One element stands for all.
        splat: bool,
        /// Elements, little-endian.
        bytes: Vec<u8>,
    },
    /// Bytes in the section of resources, by number.
    Resource(usize),
    /// An attribute of a named kind.
    Opaque {
        /// The kind.
        name: Arc<str>,
        /// Its parts.
        values: Vec<Attribute>,
    },
    /// Named attributes, each [`Attribute::Opaque`] with one part, sorted by name.
    Dictionary(Vec<Attribute>),
    /// A name within the program.
    Symbol(Arc<str>),
    /// The graph that an op calls, by its name.
    Callee(Arc<str>),
    /// One of a few choices, such as a padding mode.
    Choice {
        /// Number of the encoding.
        code: u64,
        /// Number of the choice.
        value: u64,
    },
    /// Nothing.
    Unit,
    /// A file by its name.
    File(Arc<str>),
    /// The start of a file.
    Range(Arc<str>),
    /// The place that an op came from: a file by its name, without line and column.
    Location(Arc<str>),
}

impl Attribute {
    /// Text.
    #[must_use]
    pub fn string(text: &str) -> Attribute {
        Attribute::String(text.into())
    }

    /// A truth value.
    #[must_use]
    pub fn flag(value: bool) -> Attribute {
        Attribute::Integer { width: 1, value: i64::from(value) }
    }
}

/// A property of an op, in the op's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Property {
    /// One that every such op has.
    Required(Attribute),
    /// One that may be missing.
    Optional(Option<Attribute>),
}

/// A value of a region: arguments first, then results in the order of the ops.
pub type Value = usize;

/// An op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Name without the dialect's, such as `primitive.add_v1`.
    pub name: Cow<'static, str>,
    /// Values of the region that the op is in.
    pub operands: Vec<Value>,
    /// Types of the results.
    pub results: Vec<Type>,
    /// Constant parts.
    pub properties: Vec<Property>,
    /// Regions that see no values but their own.
    pub regions: Vec<Region>,
    /// The file that the op came from; empty if that is not known.
    pub file: Arc<str>,
}

impl Operation {
    /// The name of the graph that the op calls.
    #[must_use]
    pub fn callee(&self) -> Option<&str> {
        self.properties.iter().find_map(|property| match property {
            Property::Required(Attribute::Callee(name)) => Some(&**name),
            _ => None,
        })
    }
}

/// A value that enters a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its type.
    pub ty: Type,
    /// The file that it came from: of what an op stands for, that of the operand.
    pub file: Arc<str>,
}

/// Ops in order, with the values that enter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Values that enter.
    pub arguments: Vec<Argument>,
    /// The ops.
    pub operations: Vec<Operation>,
}

impl Region {
    /// The number of values.
    #[must_use]
    pub fn values(&self) -> usize {
        self.arguments.len() + self.operations.iter().map(|op| op.results.len()).sum::<usize>()
    }
}

/// The file of ops whose origin is not known, as Apple's library writes it.
pub const UNKNOWN: &str = "-";
