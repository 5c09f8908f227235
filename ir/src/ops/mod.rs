//! The op set: a closed enum, one file an op (or a family of ops that differ by one formula).
//!
//! An op file holds the attributes, numbered constraints, type inference, the float64 reference evaluation and
//! the cost. To add an op: write its file, add one line to `ops!` below, and let the compiler show the matches
//! in the backends that must learn it. [`composite`] ops have a decomposition into the others; no backend must know them.

mod binary;
mod broadcast_to;
mod cast;
pub mod composite;
mod compress;
mod concat;
mod conv;
mod depth_to_space;
mod dequantize;
mod fractional_rope_table;
mod gather;
mod layer_norm;
mod leaf;
mod linear;
mod matmul;
mod pad;
mod quantize;
mod reduce;
mod reshape;
mod rope_table;
mod slice;
mod softmax;
mod transpose;
mod unary;

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::build::Built;
use crate::{Builder, Tensor, TensorType, ValueId};

pub use binary::{Binary, broadcast_shapes};
pub use broadcast_to::BroadcastTo;
pub use cast::Cast;
pub use composite::{
    Composite, FeatureMap, FusionGate, LinearAttention, LinearAttentionStep, Modulate, RmsNorm, Rope, RopePairs,
    RunningMean, Sdpa,
};
pub use compress::Compress;
pub use concat::Concat;
pub use conv::Conv;
pub use depth_to_space::DepthToSpace;
pub use dequantize::Dequantize;
pub use fractional_rope_table::FractionalRopeTable;
pub use gather::Gather;
pub use layer_norm::LayerNorm;
pub use leaf::{Input, Literal, Load, State};
pub use linear::Linear;
pub use matmul::Matmul;
pub use pad::Pad;
pub use quantize::Quantize;
pub use reduce::{Reduce, ReduceKind};
pub use reshape::Reshape;
pub use rope_table::{RopePart, RopeTable};
pub use slice::Slice;
pub use softmax::Softmax;
pub use transpose::Transpose;
pub use unary::Unary;

/// Attributes of an op in the text form.
pub type Attrs = Map<String, Value>;

/// A constraint of an op that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OpError(pub String);

impl OpError {
    /// An error with this message.
    pub fn new(message: impl Into<String>) -> Self {
        OpError(message.into())
    }
}

/// Returns an [`OpError`] unless the condition holds.
macro_rules! require {
    ($cond:expr, $($message:tt)+) => {
        if !$cond {
            return Err($crate::ops::OpError::new(format!($($message)+)));
        }
    };
}
pub(crate) use require;

/// Arithmetic and memory traffic of one op.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Floating-point operations; a multiply-add counts two.
    pub flops: u64,
    /// Bytes of operands read and of the result written.
    pub bytes: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.flops += other.flops;
        self.bytes += other.bytes;
    }
}

impl Cost {
    /// A cost whose bytes are those of all operands and the result.
    pub fn with_flops(flops: u64, operands: &[&TensorType], ty: &TensorType) -> Cost {
        let bytes = operands.iter().map(|t| t.bytes()).sum::<usize>() + ty.bytes();
        Cost { flops, bytes: bytes as u64 }
    }
}

/// The definition of an op.
pub trait OpDef: Clone + Debug + PartialEq + Serialize + DeserializeOwned {
    /// Name in the text form.
    fn name(&self) -> &'static str;

    /// The result's type. `declared` is the type written beside a leaf op; other ops ignore it.
    ///
    /// # Errors
    /// The first constraint that does not hold.
    fn infer(&self, operands: &[&TensorType], declared: Option<&TensorType>) -> Result<TensorType, OpError>;

    /// The result in float64. Operand types have been checked by [`OpDef::infer`].
    ///
    /// # Errors
    /// If the op has no value without its surroundings (`input`, `load`, `state`).
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError>;

    /// Cost; by default one operation an element of the result.
    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(ty.elements() as u64, operands, ty)
    }

    /// Attributes as the text form writes them.
    fn attrs(&self) -> Attrs {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => Attrs::new(),
        }
    }

    /// The inverse of [`OpDef::name`] and [`OpDef::attrs`].
    ///
    /// # Errors
    /// Missing, unknown or ill-typed attributes.
    fn parse(_name: &str, attrs: Attrs) -> Result<Self, OpError> {
        serde_json::from_value(Value::Object(attrs)).map_err(|e| OpError::new(e.to_string()))
    }
}

macro_rules! ops {
    (tensor { $($tensor:tt)* } composite { $( $composite:ident: $name:literal ; )* }) => {
        ops! { $($tensor)* $( $composite: $name; )* }

        impl Op {
            /// Adds what a composite stands for; `None` for a tensor op.
            ///
            /// # Errors
            /// Operands that the op refuses.
            pub fn decompose(&self, b: &mut Builder, operands: &[ValueId]) -> Option<Built> {
                match self {
                    $( Op::$composite(op) => Some(op.decompose(b, operands)), )*
                    _ => None,
                }
            }

            /// `true` for an op that has a decomposition.
            pub fn is_composite(&self) -> bool {
                matches!(self, $( Op::$composite(_) )|*)
            }
        }
    };
    ($( $variant:ident: $($name:literal)|+ ; )*) => {
        /// Any op. The variants are listed once, in `ops!`.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Op { $( $variant($variant), )* }

        impl Op {
            /// Every op name of the text form.
            pub const NAMES: &'static [&'static str] = &[ $( $($name),+ ),* ];

            /// Name in the text form.
            pub fn name(&self) -> &'static str {
                match self { $( Op::$variant(op) => op.name(), )* }
            }

            /// See [`OpDef::infer`].
            ///
            /// # Errors
            /// The first constraint that does not hold.
            pub fn infer(&self, operands: &[&TensorType], declared: Option<&TensorType>) -> Result<TensorType, OpError> {
                match self { $( Op::$variant(op) => op.infer(operands, declared), )* }
            }

            /// See [`OpDef::eval`].
            ///
            /// # Errors
            /// If the op has no value without its surroundings.
            pub fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
                match self { $( Op::$variant(op) => op.eval(operands, ty), )* }
            }

            /// See [`OpDef::cost`].
            pub fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
                match self { $( Op::$variant(op) => op.cost(operands, ty), )* }
            }

            /// See [`OpDef::attrs`].
            pub fn attrs(&self) -> Attrs {
                match self { $( Op::$variant(op) => op.attrs(), )* }
            }

            /// Appends bytes that two ops share only if they are the same op with the same attributes. Of a literal they are
            /// cheaper to make than its attributes.
            pub fn write_key(&self, out: &mut Vec<u8>) {
                out.extend(self.name().as_bytes());
                out.push(0);
                match self {
                    Op::Literal(literal) => literal.write_key(out),
                    op => out.extend(serde_json::Value::Object(op.attrs()).to_string().as_bytes()),
                }
            }

            /// See [`OpDef::parse`].
            ///
            /// # Errors
            /// An unknown name; missing, unknown or ill-typed attributes.
            pub fn parse(name: &str, attrs: Attrs) -> Result<Op, OpError> {
                match name {
                    $( $($name)|+ => Ok(Op::$variant($variant::parse(name, attrs)?)), )*
                    _ => Err(OpError::new(format!("unknown op `{name}`"))),
                }
            }
        }

        $( impl From<$variant> for Op { fn from(op: $variant) -> Op { Op::$variant(op) } } )*
    };
}

ops! {
    tensor {
        Input: "input";
        Load: "load";
        Literal: "literal";
        State: "state";
        RopeTable: "rope_table";
        FractionalRopeTable: "fractional_rope_table";
        Unary: "abs" | "cos" | "erf" | "exp" | "floor" | "gelu" | "gelu_tanh" | "identity" | "log" | "neg" | "relu"
            | "round" | "rsqrt" | "sigmoid" | "silu" | "sin" | "softplus" | "sqrt" | "square" | "tanh";
        Binary: "add" | "sub" | "mul" | "div" | "maximum" | "minimum" | "pow";
        Cast: "cast";
        Matmul: "matmul";
        Linear: "linear";
        Conv: "conv";
        LayerNorm: "layer_norm";
        Softmax: "softmax";
        Reduce: "reduce_sum" | "reduce_mean" | "reduce_max" | "reduce_min";
        Reshape: "reshape";
        Transpose: "transpose";
        Compress: "compress";
        Quantize: "quantize";
        Dequantize: "dequantize";
        Concat: "concat";
        Slice: "slice";
        Pad: "pad";
        DepthToSpace: "depth_to_space";
        Gather: "gather";
        BroadcastTo: "broadcast_to";
    }
    composite {
        RmsNorm: "rms_norm";
        Rope: "rope";
        Sdpa: "sdpa";
        FeatureMap: "feature_map";
        LinearAttention: "linear_attention";
        LinearAttentionStep: "linear_attention_step";
        RunningMean: "running_mean";
        Modulate: "modulate";
        FusionGate: "fusion_gate";
    }
}

/// `require!` for the number of operands.
fn arity(operands: &[&TensorType], range: std::ops::RangeInclusive<usize>) -> Result<(), OpError> {
    let n = operands.len();
    require!(
        range.contains(&n),
        "takes {} operand(s), found {n}",
        if range.start() == range.end() {
            format!("{}", range.start())
        } else {
            format!("{}–{}", range.start(), range.end())
        }
    );
    Ok(())
}

fn same_float(operands: &[&TensorType]) -> Result<(), OpError> {
    let first = operands[0].dtype;
    require!(first.is_float(), "operand 0 must be a float tensor, found {}", operands[0]);
    for (i, t) in operands.iter().enumerate() {
        require!(t.dtype == first, "operands must have one dtype: operand 0 is {first}, operand {i} is {}", t.dtype);
    }
    Ok(())
}

fn check_axis(axis: usize, rank: usize) -> Result<(), OpError> {
    require!(axis < rank, "axis {axis} is out of range for rank {rank}");
    Ok(())
}

/// Axes must be strictly ascending and in range.
fn check_axes(axes: &[usize], rank: usize) -> Result<(), OpError> {
    for (i, &a) in axes.iter().enumerate() {
        check_axis(a, rank)?;
        require!(i == 0 || axes[i - 1] < a, "axes must be ascending and distinct, found {axes:?}");
    }
    Ok(())
}

fn leaf_has_no_value(name: &str) -> OpError {
    OpError::new(format!("`{name}` has no value of its own: it comes from the caller"))
}
