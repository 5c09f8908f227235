//! What rules look for: one file a family. A check knows nothing of severity, source or mend: these are the rule's.

mod attention;
mod compression;
mod convolution;
mod copies;
mod depth;
mod dtype;
mod explicit;
mod extent;
mod interplay;
mod last_axis;
mod mask;
mod norm;
mod op_type;
mod rank;
mod shape;
mod softmax;
mod state;
mod update;
mod weights;

use serde::{Deserialize, Serialize};

use super::program::{Function, Op, Program};
use super::subject::Subject;
use super::value::Value;

/// The function of a program that a check looks at, with what is known of its values.
pub struct Place<'a, 'p> {
    /// The package.
    pub program: &'a Program<'p>,
    /// The function.
    pub function: &'a Function<'p>,
}

/// A finding that is not an op's: whose, its name, and what was found.
pub type Found = (Subject, String, String);

/// A kind of check, with its parameters as fields. Each method says what was found, or nothing.
pub trait Look {
    /// At an op.
    fn op(&self, _at: &Place, _op: &Op) -> Option<String> {
        None
    }

    /// At a function's interface, or at it as a whole.
    fn function(&self, _at: &Place) -> Vec<Found> {
        Vec::new()
    }

    /// At the package as a whole.
    fn package(&self, _program: &Program) -> Option<String> {
        None
    }
}

macro_rules! checks {
    ($($variant:ident = $ty:path),+ $(,)?) => {
        /// A check with its parameters, as the rules file has them: `"check": "rank", "params": {"max": 5}`.
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(tag = "check", content = "params", rename_all = "snake_case")]
        #[allow(missing_docs)]
        pub enum Check {
            $($variant($ty)),+
        }

        impl Check {
            /// The check itself.
            pub fn look(&self) -> &dyn Look {
                match self { $(Check::$variant(check) => check),+ }
            }

            /// Bytes of weights that the check allows a package, if that is what it checks.
            pub fn weight_limit(&self) -> Option<u64> {
                match self {
                    Check::WeightBytes(check) => Some(check.max),
                    _ => None,
                }
            }
        }
    };
}

checks! {
    Rank = rank::Rank,
    Extent = extent::Extent,
    Dtype = dtype::Dtype,
    ConstantDtype = dtype::ConstantDtype,
    StaticShape = shape::StaticShape,
    LastAxis = last_axis::LastAxis,
    OpType = op_type::OpType,
    KnownOps = op_type::KnownOps,
    ConvSpatial = convolution::Spatial,
    ConvDilation = convolution::Dilation,
    ConvStride = convolution::Stride,
    PalettizedStride = convolution::PalettizedStride,
    PoolKernel = convolution::PoolKernel,
    ConvKernel = convolution::Kernel,
    DmaNotch = weights::DmaNotch,
    HalfSum = norm::HalfSum,
    ConstantBound = mask::ConstantBound,
    SliceOffset = update::SliceOffset,
    IntegerWeights = compression::IntegerWeights,
    FunctionCount = interplay::FunctionCount,
    SdpaSize = attention::SdpaSize,
    SdpaCount = attention::SdpaCount,
    SoftmaxAxis = softmax::SoftmaxAxis,
    QueryChunk = softmax::QueryChunk,
    ContractionDepth = depth::ContractionDepth,
    FiniteMask = mask::FiniteMask,
    HalfSquare = norm::HalfSquare,
    PlainLayerNorm = norm::PlainLayerNorm,
    Explicit = explicit::Explicit,
    StateDtype = state::StateDtype,
    StateCount = state::StateCount,
    StateReturned = state::StateReturned,
    StateShift = state::StateShift,
    RuntimeOffset = update::RuntimeOffset,
    UpdateLength = update::UpdateLength,
    Multifunction = interplay::Multifunction,
    StatePalettized = interplay::StatePalettized,
    Blockwise = compression::Blockwise,
    ScaledLut = compression::ScaledLut,
    LastAxisCopy = copies::LastAxisCopy,
    WeightBytes = weights::WeightBytes,
}

/// Types of an op's operands that are computed at run time, and of its outputs.
fn runtime_values<'a>(at: &Place<'_, 'a>, op: &Op<'a>) -> Vec<Value<'a>> {
    let inputs = op.inputs().map(|(_, operand)| operand);
    let inputs = inputs.filter(|o| !super::constant::is_constant(at.function, *o));
    inputs.filter_map(|o| at.function.operand(o)).chain(op.outputs.iter().cloned()).collect()
}

/// Every input, output and state of a function.
fn interface<'a, 'p>(function: &'a Function<'p>) -> impl Iterator<Item = (Subject, &'a Value<'p>)> {
    let inputs = function.inputs.iter().map(|v| (Subject::Input, v));
    let states = function.states.iter().map(|v| (Subject::State, v));
    let outputs = function.outputs.iter().map(|v| (Subject::Output, v));
    inputs.chain(states).chain(outputs)
}

/// Findings of a predicate on the values of the interface.
fn at_interface(function: &Function, found: impl Fn(Subject, &Value) -> Option<String>) -> Vec<Found> {
    interface(function).filter_map(|(s, v)| Some((s, v.name.to_string(), found(s, v)?))).collect()
}

/// Operands of an op that come from a `constexpr_*` op of type `ty`.
fn constexprs<'p>(at: &Place<'_, 'p>, op: &Op<'p>, ty: &str) -> Vec<&'p crate::coreml::proto::Operation> {
    op.inputs().filter_map(|(_, o)| at.function.constexpr(o)).filter(|c| c.r#type == ty).collect()
}
