//! Functions of single elements.

use anyhow::{Context, Result};
use s2dit_ir::ops::{Binary, Unary};
use s2dit_ir::{DType, ValueId};

use super::{FLOATS, Lowering, MOVABLE, NUMBERS, named};

impl Lowering<'_> {
    pub(super) fn unary(&mut self, v: ValueId, kind: Unary) -> Result<()> {
        self.takes(
            v,
            match kind {
                Unary::Abs | Unary::Neg | Unary::Square => NUMBERS,
                Unary::Sign => NUMBERS,
                Unary::LogicalNot => &[DType::Bool],
                Unary::Identity => MOVABLE,
                _ => FLOATS,
            },
        )?;
        let mut inputs = vec![("x", named(&self.operands(v)?[0]))];
        let op = match kind {
            Unary::Abs => "abs",
            Unary::Acos => "acos",
            Unary::Asin => "asin",
            Unary::Atan => "atan",
            Unary::Atanh => "atanh",
            Unary::Ceil => "ceil",
            Unary::Cos => "cos",
            Unary::Cosh => "cosh",
            Unary::Erf => "erf",
            Unary::Exp => "exp",
            Unary::Floor => "floor",
            Unary::Gelu => {
                inputs.push(("mode", self.string(v, "mode", "EXACT")));
                "gelu"
            }
            Unary::GeluTanh => {
                inputs.push(("mode", self.string(v, "mode", "TANH_APPROXIMATION")));
                "gelu"
            }
            Unary::Identity => "identity",
            // MIL adds an epsilon by default; the IR does not.
            Unary::Log => {
                inputs.push(("epsilon", self.scalar(v, "epsilon", 0.0)?));
                "log"
            }
            Unary::Rsqrt => {
                inputs.push(("epsilon", self.scalar(v, "epsilon", 0.0)?));
                "rsqrt"
            }
            // MIL has no negation.
            Unary::Neg => {
                inputs.push(("y", self.scalar(v, "y", -1.0)?));
                "mul"
            }
            Unary::LogicalNot => "logical_not",
            Unary::Relu => "relu",
            Unary::Round => "round",
            Unary::Sigmoid => "sigmoid",
            Unary::Silu => "silu",
            Unary::Sign => "sign",
            Unary::Sin => "sin",
            Unary::Sinh => "sinh",
            Unary::Softplus => "softplus",
            Unary::Sqrt => "sqrt",
            Unary::Square => "square",
            Unary::Tan => "tan",
            Unary::Tanh => "tanh",
        };
        self.emit(v, op, inputs)
    }

    pub(super) fn binary(&mut self, v: ValueId, kind: Binary) -> Result<()> {
        // MIL's `real_div` of integers is not the IR's, and negative powers of integers are neither.
        self.takes(v, if matches!(kind, Binary::Div | Binary::Pow) { FLOATS } else { NUMBERS })?;
        let op = match kind {
            Binary::Add => "add",
            Binary::Sub => "sub",
            Binary::Mul => "mul",
            Binary::Div => "real_div",
            Binary::Maximum => "maximum",
            Binary::Minimum => "minimum",
            Binary::Pow => "pow",
        };
        let operands = self.operands(v)?;
        self.emit(v, op, vec![("x", named(&operands[0])), ("y", named(&operands[1]))])
    }

    pub(super) fn cast(&mut self, v: ValueId, dtype: DType) -> Result<()> {
        let x = self.f.operands(v)[0];
        self.takes(x, MOVABLE)?;
        self.takes(v, MOVABLE)?;
        let name = cast_name(dtype).with_context(|| format!("Core ML has no values of {dtype}"))?;
        let dtype = self.string(v, "dtype", name);
        let x = self.value(x)?;
        self.emit(v, "cast", vec![("x", named(&x)), ("dtype", dtype)])
    }
}

/// The name that `cast` has for a dtype.
const fn cast_name(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::F16 => "fp16",
        DType::F32 => "fp32",
        DType::I8 => "int8",
        DType::I16 => "int16",
        DType::I32 => "int32",
        DType::U8 => "uint8",
        DType::U16 => "uint16",
        DType::Bool => "bool",
        DType::F64 | DType::BF16 | DType::I64 | DType::U32 => return None,
    })
}
