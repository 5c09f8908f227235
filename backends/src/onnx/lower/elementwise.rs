//! Unary, Binary, Compare, Select, Cast.

use anyhow::Result;
use s2dit_ir::ops::{Binary, Compare, Op, Unary};
use s2dit_ir::{DType, TensorType, ValueId};

use super::{Lowering, int, string};
use crate::onnx::proto::data_type;

impl Lowering<'_> {
    pub(super) fn unary(&mut self, v: ValueId, kind: Unary) -> Result<()> {
        let x = self.operands(v)?;
        let (op, attributes) = match kind {
            Unary::Abs => ("Abs", vec![]),
            Unary::Acos => ("Acos", vec![]),
            Unary::Asin => ("Asin", vec![]),
            Unary::Atan => ("Atan", vec![]),
            Unary::Atanh => ("Atanh", vec![]),
            Unary::Ceil => ("Ceil", vec![]),
            Unary::Cos => ("Cos", vec![]),
            Unary::Cosh => ("Cosh", vec![]),
            Unary::Erf => ("Erf", vec![]),
            Unary::Exp => ("Exp", vec![]),
            Unary::Floor => ("Floor", vec![]),
            Unary::Gelu => ("Gelu", vec![string("approximate", "none")]),
            Unary::GeluTanh => ("Gelu", vec![string("approximate", "tanh")]),
            Unary::Identity => ("Identity", vec![]),
            Unary::Log => ("Log", vec![]),
            Unary::LogicalNot => ("Not", vec![]),
            Unary::Neg => ("Neg", vec![]),
            Unary::Relu => ("Relu", vec![]),
            Unary::Round => ("Round", vec![]),
            Unary::Rsqrt => {
                let root = self.step("Sqrt", &x, vec![]);
                self.emit(v, "Reciprocal", &[root], vec![]);
                return Ok(());
            }
            Unary::Sigmoid => ("Sigmoid", vec![]),
            Unary::Silu => {
                let gate = self.step("Sigmoid", &x, vec![]);
                self.emit(v, "Mul", &[x[0].clone(), gate], vec![]);
                return Ok(());
            }
            Unary::Sign => ("Sign", vec![]),
            Unary::Sin => ("Sin", vec![]),
            Unary::Sinh => ("Sinh", vec![]),
            Unary::Softplus if self.f.dtype(v) == DType::F32 => {
                self.softplus(v, &x);
                return Ok(());
            }
            Unary::Softplus => ("Softplus", vec![]),
            Unary::Sqrt => ("Sqrt", vec![]),
            Unary::Square => {
                self.emit(v, "Mul", &[x[0].clone(), x[0].clone()], vec![]);
                return Ok(());
            }
            Unary::Tan => ("Tan", vec![]),
            Unary::Tanh => ("Tanh", vec![]),
        };
        self.emit(v, op, &x, attributes);
        Ok(())
    }

    /// `max(x, log(1 + exp(min(x, 80))))`: ONNX Runtime's own `Softplus` goes element by element and takes three times as long.
    /// Above 17 the logarithm is x in fp32, and above 88 the exponential is infinite.
    fn softplus(&mut self, v: ValueId, x: &[String]) {
        let scalar = TensorType::new(DType::F32, []);
        let (high, one) = (self.filled(80.0, &scalar), self.filled(1.0, &scalar));
        let low = self.step("Min", &[x[0].clone(), high], vec![]);
        let exp = self.step("Exp", &[low], vec![]);
        let sum = self.step("Add", &[exp, one], vec![]);
        let log = self.step("Log", &[sum], vec![]);
        self.emit(v, "Max", &[x[0].clone(), log], vec![]);
    }

    pub(super) fn binary(&mut self, v: ValueId, kind: Binary) -> Result<()> {
        let x = self.operands(v)?;
        let op = match kind {
            // ONNX Runtime fuses `Add` and a modulated norm into an op that is four times as slow as the two.
            Binary::Add if self.normed_alone(v) => "Sum",
            Binary::Add => "Add",
            Binary::Sub => "Sub",
            Binary::Mul => "Mul",
            Binary::Div => "Div",
            Binary::Maximum => "Max",
            Binary::Minimum => "Min",
            Binary::Pow => "Pow",
        };
        self.emit(v, op, &x, vec![]);
        Ok(())
    }

    /// Whether a norm that is emitted with its modulation is all that reads `v`.
    fn normed_alone(&self, v: ValueId) -> bool {
        let norm = |u: ValueId| matches!(self.f.op(u), Op::LayerNorm(_)) && self.absorbed.contains(&u);
        self.f.only_use(v).is_some_and(|(user, _)| norm(user))
    }

    pub(super) fn compare(&mut self, v: ValueId, kind: Compare) -> Result<()> {
        let x = self.operands(v)?;
        let op = match kind {
            Compare::Equal => "Equal",
            Compare::NotEqual => {
                let equal = self.step("Equal", &x, vec![]);
                self.emit(v, "Not", &[equal], vec![]);
                return Ok(());
            }
            Compare::Less => "Less",
            Compare::LessEqual => "LessOrEqual",
            Compare::Greater => "Greater",
            Compare::GreaterEqual => "GreaterOrEqual",
            Compare::And => "And",
            Compare::Or => "Or",
            Compare::Xor => "Xor",
        };
        self.emit(v, op, &x, vec![]);
        Ok(())
    }

    /// ONNX Runtime chooses between few types: bools go as bytes.
    pub(super) fn select(&mut self, v: ValueId) -> Result<()> {
        let mut x = self.operands(v)?;
        if self.f.dtype(v) != DType::Bool {
            self.emit(v, "Where", &x, vec![]);
            return Ok(());
        }
        for choice in &mut x[1..] {
            let byte = int("to", i64::from(data_type(DType::U8)));
            *choice = self.step("Cast", std::slice::from_ref(choice), vec![byte]);
        }
        let chosen = self.step("Where", &x, vec![]);
        self.emit(v, "Cast", &[chosen], vec![int("to", i64::from(data_type(DType::Bool)))]);
        Ok(())
    }

    pub(super) fn cast(&mut self, v: ValueId) -> Result<()> {
        let x = self.operands(v)?;
        let to = int("to", i64::from(data_type(self.f.dtype(v))));
        self.emit(v, "Cast", &x, vec![to]);
        Ok(())
    }
}
