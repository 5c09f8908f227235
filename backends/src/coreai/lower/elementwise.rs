//! Unary, Binary, Compare, Select, Cast.

use anyhow::Result;
use s2dit_ir::ValueId;
use s2dit_ir::ops::{Binary, Compare, Unary};

use super::super::block::tensor;
use super::super::program::{Attribute, Element, Property, Type, Value};
use super::super::{body, op};
use super::{Lowering, element_of};

/// The encoding of the kind of gelu.
const APPROXIMATE: u64 = 19;

/// The kind of gelu that is computed with `tanh`.
const TANH: u64 = 1;

impl Lowering<'_> {
    pub(super) fn unary(&mut self, v: ValueId, kind: Unary) -> Result<Value> {
        let x = self.operands(v)?[0];
        let element = self.parts(x).1;
        Ok(match kind {
            Unary::Abs => self.same(op::ABS, x),
            Unary::Acos => self.same(op::ACOS, x),
            Unary::Asin => self.same(op::ASIN, x),
            Unary::Atan => self.same(op::ATAN, x),
            Unary::Atanh => self.same(op::ATANH, x),
            Unary::Ceil => {
                let negative = self.negative(x);
                let floor = self.floor(negative);
                self.negative(floor)
            }
            Unary::Cos => self.same(op::COS, x),
            Unary::Cosh => self.same(op::COSH, x),
            Unary::Erf => self.same(op::ERF, x),
            Unary::Exp => self.same(op::EXP, x),
            Unary::Floor => self.floor(x),
            Unary::Gelu => self.gelu(x, 0),
            Unary::GeluTanh => self.gelu(x, TANH),
            Unary::Identity => x,
            Unary::Log => self.same(op::LOG, x),
            Unary::LogicalNot => self.same(op::NOT, x),
            Unary::Neg => self.negative(x),
            Unary::Relu => self.relu(x),
            Unary::Round => self.same(op::ROUND, x),
            Unary::Rsqrt => self.same(op::RSQRT, x),
            Unary::Sigmoid => self.sigmoid(x, false),
            Unary::Sign => {
                let zero = self.number(0.0, element);
                let over = self.compared(op::BROADCASTING_GREATER, x, zero);
                let below = self.compared(op::BROADCASTING_GREATER, zero, x);
                let ty = self.block.ty(x).clone();
                let [over, below] = [over, below].map(|flag| self.emit(op::CAST, &[flag], ty.clone()));
                self.combined(op::BROADCASTING_SUB, over, below)
            }
            Unary::Silu => self.sigmoid(x, true),
            Unary::Sin => self.same(op::SIN, x),
            Unary::Sinh => self.same(op::SINH, x),
            Unary::Softplus => self.softplus(x),
            Unary::Sqrt => self.same(op::SQRT, x),
            Unary::Square => self.combined(op::BROADCASTING_MUL, x, x),
            Unary::Tan => self.same(op::TAN, x),
            Unary::Tanh => self.same(op::TANH, x),
        })
    }

    fn negative(&mut self, x: Value) -> Value {
        let minus = self.number(-1.0, self.parts(x).1);
        self.combined(op::BROADCASTING_MUL, x, minus)
    }

    fn floor(&mut self, x: Value) -> Value {
        let one = self.number(1.0, self.parts(x).1);
        self.combined(op::BROADCASTING_FLOOR_DIVIDE, x, one)
    }

    fn gelu(&mut self, x: Value, kind: u64) -> Value {
        let ty = self.block.ty(x).clone();
        let kind = Property::Required(Attribute::Choice { code: APPROXIMATE, value: kind });
        self.emit_whole(op::GELU, &[x], ty, vec![kind], None)
    }

    fn relu(&mut self, x: Value) -> Value {
        let ty = self.block.ty(x).clone();
        let region = body::relu(self.block.argument(x), &self.block.file);
        self.emit_whole(op::RELU, &[x], ty, Vec::new(), Some(region))
    }

    fn sigmoid(&mut self, x: Value, times_x: bool) -> Value {
        let ty = self.block.ty(x).clone();
        let region = body::sigmoid(self.block.argument(x), times_x, &self.block.file);
        let name = if times_x { op::SILU } else { op::SIGMOID };
        self.emit_whole(name, &[x], ty, Vec::new(), Some(region))
    }

    /// `max(x, 0) + log(1 + exp(−|x|))`: the exponential never overflows.
    fn softplus(&mut self, x: Value) -> Value {
        let one = self.number(1.0, self.parts(x).1);
        let positive = self.relu(x);
        let size = self.same(op::ABS, x);
        let size = self.negative(size);
        let exp = self.same(op::EXP, size);
        let sum = self.combined(op::BROADCASTING_ADD, exp, one);
        let log = self.same(op::LOG, sum);
        self.combined(op::BROADCASTING_ADD, positive, log)
    }

    pub(super) fn binary(&mut self, v: ValueId, kind: Binary) -> Result<Value> {
        let operands = self.operands(v)?;
        let name = match kind {
            Binary::Add => op::BROADCASTING_ADD,
            Binary::Sub => op::BROADCASTING_SUB,
            Binary::Mul => op::BROADCASTING_MUL,
            Binary::Div => op::BROADCASTING_DIVIDE,
            Binary::Maximum => op::BROADCASTING_MAXIMUM,
            Binary::Minimum => op::BROADCASTING_MINIMUM,
            Binary::Pow => op::BROADCASTING_POW,
        };
        Ok(self.combined(name, operands[0], operands[1]))
    }

    /// An elementwise op of two operands that broadcast.
    pub(super) fn combined(&mut self, name: &'static str, x: Value, y: Value) -> Value {
        let element = self.parts(x).1;
        self.spread(name, x, y, element)
    }

    /// A comparison of two operands that broadcast.
    fn compared(&mut self, name: &'static str, x: Value, y: Value) -> Value {
        self.spread(name, x, y, Element::Bool)
    }

    fn spread(&mut self, name: &'static str, x: Value, y: Value, element: Element) -> Value {
        // Apple's library brings a constant behind the other operand.
        let turned = matches!(name, op::BROADCASTING_ADD | op::BROADCASTING_MUL);
        let (x, y) = if turned && self.block.is_constant(x) && !self.block.is_constant(y) { (y, x) } else { (x, y) };
        let shape = broadcast(&self.parts(x).0, &self.parts(y).0);
        let result = tensor(&shape, element);
        let region =
            body::broadcasting(name, self.block.argument(x), self.block.argument(y), &result, &self.block.file);
        self.emit_whole(name, &[x, y], result, Vec::new(), Some(region))
    }

    pub(super) fn compare(&mut self, v: ValueId, kind: Compare) -> Result<Value> {
        let operands = self.operands(v)?;
        let (x, y) = (operands[0], operands[1]);
        Ok(match kind {
            Compare::Equal => self.compared(op::BROADCASTING_EQUAL, x, y),
            Compare::NotEqual => self.compared(op::BROADCASTING_NOT_EQUAL, x, y),
            Compare::Greater => self.compared(op::BROADCASTING_GREATER, x, y),
            Compare::Less => self.compared(op::BROADCASTING_GREATER, y, x),
            // Not the opposite of the other comparison, which a NaN would make true.
            Compare::GreaterEqual => self.or_equal(x, y),
            Compare::LessEqual => self.or_equal(y, x),
            Compare::And => self.compared(op::BROADCASTING_AND, x, y),
            Compare::Or => self.compared(op::BROADCASTING_OR, x, y),
            Compare::Xor => self.compared(op::BROADCASTING_XOR, x, y),
        })
    }

    fn or_equal(&mut self, x: Value, y: Value) -> Value {
        let greater = self.compared(op::BROADCASTING_GREATER, x, y);
        let equal = self.compared(op::BROADCASTING_EQUAL, x, y);
        self.compared(op::BROADCASTING_OR, greater, equal)
    }

    pub(super) fn select(&mut self, v: ValueId) -> Result<Value> {
        let shape = self.f.shape(v).to_vec();
        let mut operands = self.operands(v)?;
        for operand in &mut operands {
            *operand = self.brought_to(*operand, &shape);
        }
        let result = self.result(v);
        Ok(self.emit(op::WHERE, &operands, result))
    }

    pub(super) fn cast(&mut self, v: ValueId) -> Result<Value> {
        let x = self.operands(v)?[0];
        let (shape, element) = self.parts(x);
        let wanted = element_of(self.f.dtype(v));
        if element == wanted {
            return Ok(x);
        }
        let result: Type = tensor(&shape, wanted);
        Ok(self.emit(op::CAST, &[x], result))
    }
}

/// The shape of two operands together, which broadcast.
fn broadcast(x: &[usize], y: &[usize]) -> Vec<usize> {
    let rank = x.len().max(y.len());
    let extent = |shape: &[usize], i: usize| (i + shape.len()).checked_sub(rank).map_or(1, |at| shape[at]);
    (0..rank).map(|i| if extent(x, i) == 1 { extent(y, i) } else { extent(x, i) }).collect()
}
