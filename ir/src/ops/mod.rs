//! The op set: a closed enum, one file an op (or a family of ops that differ by one formula).
//!
//! An op file holds the attributes, numbered constraints, type inference, the float64 reference evaluation and
//! the cost. To add an op: write its file, add one line to `ops!` below, and let the compiler show the matches
//! in the backends that must learn it. [`composite`] ops have no evaluation of their own but a [decomposition](crate::decompose)
//! into the others; no backend must know them.

mod arg_reduce;
mod binary;
mod broadcast_to;
mod cast;
mod compare;
pub mod composite;
mod compress;
mod concat;
mod conv;
mod conv_transpose;
mod cum_sum;
mod def;
mod depth_to_space;
mod dequantize;
mod fractional_rope_table;
mod gather;
mod gather_along_axis;
mod gather_nd;
mod layer_norm;
mod leaf;
mod linear;
mod matmul;
mod pad;
mod pool;
mod quantize;
mod reduce;
mod reshape;
mod rope_table;
mod scatter_along_axis;
mod scatter_nd;
mod select;
mod slice;
mod softmax;
mod sort_indices;
mod transpose;
mod unary;
mod upsample;

use crate::{Tensor, TensorType};

pub use arg_reduce::ArgReduce;
pub use binary::{Binary, broadcast_shapes};
pub use broadcast_to::BroadcastTo;
pub use cast::Cast;
pub use compare::Compare;
pub use composite::{
    FeatureMap, FusionGate, LinearAttention, LinearAttentionStep, Modulate, RmsNorm, Rope, RopePairs, RunningMean, Sdpa,
};
pub use compress::Compress;
pub use concat::Concat;
pub use conv::Conv;
pub use conv_transpose::ConvTranspose;
pub use cum_sum::CumSum;
pub use def::{Attrs, Cost, OpDef, OpError, TensorOp};
pub use depth_to_space::DepthToSpace;
pub use dequantize::Dequantize;
pub use fractional_rope_table::FractionalRopeTable;
pub use gather::Gather;
pub use gather_along_axis::GatherAlongAxis;
pub use gather_nd::GatherNd;
pub use layer_norm::LayerNorm;
pub use leaf::{Input, Literal, Load, State};
pub use linear::Linear;
pub use matmul::Matmul;
pub use pad::Pad;
pub use pool::Pool;
pub use quantize::Quantize;
pub use reduce::{Reduce, ReduceKind};
pub use reshape::Reshape;
pub use rope_table::{RopePart, RopeTable};
pub use scatter_along_axis::{ScatterAlongAxis, ScatterMode};
pub use scatter_nd::ScatterNd;
pub use select::Select;
pub use slice::Slice;
pub use softmax::Softmax;
pub use sort_indices::SortIndices;
pub use transpose::Transpose;
pub use unary::Unary;
pub use upsample::Upsample;

pub(crate) use def::require;
use def::{arity, check_axes, check_axis, leaf_has_no_value, same_float};

macro_rules! ops {
    (
        tensor { $( $tensor:ident: $($name:literal)|+ ; )* }
        composite { $( $composite:ident: $composite_name:literal ; )* }
    ) => {
        ops! { $( $tensor: $($name)|+ ; )* $( $composite: $composite_name; )* }

        impl Op {
            /// See [`TensorOp::eval`]; `None` for a composite, whose value is that of its decomposition.
            pub(crate) fn eval_tensor_op(
                &self,
                operands: &[&Tensor],
                ty: &TensorType,
            ) -> Option<Result<Tensor, OpError>> {
                match self {
                    $( Op::$tensor(op) => Some(op.eval(operands, ty)), )*
                    $( Op::$composite(_) => None, )*
                }
            }

            /// `true` for an op that has a decomposition.
            pub fn is_composite(&self) -> bool {
                matches!(self, $( Op::$composite(_) )|*)
            }
        }

        /// Calls a macro with the variants that are composites.
        macro_rules! composites {
            ($callback:ident) => {
                $callback! { $( $composite )* }
            };
        }
        pub(crate) use composites;
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
        Unary: "abs" | "acos" | "asin" | "atan" | "atanh" | "ceil" | "cos" | "cosh" | "erf" | "exp" | "floor" | "gelu"
            | "gelu_tanh" | "identity" | "log" | "logical_not" | "neg" | "relu" | "round" | "rsqrt" | "sigmoid" | "sign"
            | "silu" | "sin" | "sinh" | "softplus" | "sqrt" | "square" | "tan" | "tanh";
        Binary: "add" | "sub" | "mul" | "div" | "maximum" | "minimum" | "pow";
        Compare: "equal" | "not_equal" | "less" | "less_equal" | "greater" | "greater_equal" | "logical_and"
            | "logical_or" | "logical_xor";
        Select: "select";
        Cast: "cast";
        Matmul: "matmul";
        Linear: "linear";
        Conv: "conv";
        ConvTranspose: "conv_transpose";
        Pool: "max_pool" | "mean_pool";
        LayerNorm: "layer_norm";
        Softmax: "softmax";
        Reduce: "reduce_sum" | "reduce_mean" | "reduce_max" | "reduce_min" | "reduce_prod"
            | "reduce_l2_norm";
        ArgReduce: "arg_max" | "arg_min";
        CumSum: "cum_sum";
        SortIndices: "sort_indices";
        Reshape: "reshape";
        Transpose: "transpose";
        Compress: "compress";
        Quantize: "quantize";
        Dequantize: "dequantize";
        Concat: "concat";
        Slice: "slice";
        Pad: "pad";
        DepthToSpace: "depth_to_space";
        Upsample: "upsample";
        Gather: "gather";
        GatherAlongAxis: "gather_along_axis";
        GatherNd: "gather_nd";
        ScatterAlongAxis: "scatter_along_axis";
        ScatterNd: "scatter_nd";
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
