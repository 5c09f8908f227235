//! Unary, Binary, Cast.

use anyhow::Result;
use s2dit_ir::ops::{Binary, Op, Unary};
use s2dit_ir::{DType, TensorType, ValueId};

use super::{Lowering, int, string};
use crate::onnx::proto::data_type;

impl Lowering<'_> {
    pub(super) fn unary(&mut self, v: ValueId, kind: Unary) -> Result<()> {
        let x = self.operands(v)?;
        let (op, attributes) = match kind {
            Unary::Abs => ("Abs", vec![]),
            Unary::Cos => ("Cos", vec![]),
            Unary::Erf => ("Erf", vec![]),
            Unary::Exp => ("Exp", vec![]),
            Unary::Floor => ("Floor", vec![]),
            Unary::Gelu => ("Gelu", vec![string("approximate", "none")]),
            Unary::GeluTanh => ("Gelu", vec![string("approximate", "tanh")]),
            Unary::Identity => ("Identity", vec![]),
            Unary::Log => ("Log", vec![]),
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
            Unary::Sin => ("Sin", vec![]),
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

    pub(super) fn cast(&mut self, v: ValueId) -> Result<()> {
        let x = self.operands(v)?;
        let to = int("to", i64::from(data_type(self.f.dtype(v))));
        self.emit(v, "Cast", &x, vec![to]);
        Ok(())
    }
}
