//! One match over the ops that are known.

use anyhow::{Context, Result, bail, ensure};
use s2dit_ir::ops::{
    Binary, BroadcastTo, Cast, Compare, Conv, GatherAlongAxis, GatherNd, ReduceKind, Select, Slice, Unary,
};
use s2dit_ir::{TensorType, ValueId};

use super::super::op;
use super::super::program::{Attribute, Operation, Property};
use super::super::stored;
use super::Raise;

/// Elementwise functions of one operand.
fn unary(name: &str) -> Option<Unary> {
    Some(match name {
        op::ABS => Unary::Abs,
        op::ACOS => Unary::Acos,
        op::ASIN => Unary::Asin,
        op::ATAN => Unary::Atan,
        op::ATANH => Unary::Atanh,
        op::COS => Unary::Cos,
        op::COSH => Unary::Cosh,
        op::ERF => Unary::Erf,
        op::EXP => Unary::Exp,
        op::LOG => Unary::Log,
        op::NOT => Unary::LogicalNot,
        op::RELU => Unary::Relu,
        op::ROUND => Unary::Round,
        op::RSQRT => Unary::Rsqrt,
        op::SIGMOID => Unary::Sigmoid,
        op::SILU => Unary::Silu,
        op::SIN => Unary::Sin,
        op::SINH => Unary::Sinh,
        op::SQRT => Unary::Sqrt,
        op::TAN => Unary::Tan,
        op::TANH => Unary::Tanh,
        _ => return None,
    })
}

/// Elementwise functions of two operands, with broadcasting and without.
fn binary(name: &str) -> Option<Binary> {
    Some(match name {
        op::ADD | op::BROADCASTING_ADD => Binary::Add,
        op::SUB | op::BROADCASTING_SUB => Binary::Sub,
        op::MUL | op::BROADCASTING_MUL => Binary::Mul,
        op::DIVIDE | op::BROADCASTING_DIVIDE => Binary::Div,
        op::MAXIMUM | op::BROADCASTING_MAXIMUM => Binary::Maximum,
        op::MINIMUM | op::BROADCASTING_MINIMUM => Binary::Minimum,
        op::POW | op::BROADCASTING_POW => Binary::Pow,
        _ => return None,
    })
}

fn compare(name: &str) -> Option<Compare> {
    Some(match name {
        op::EQUAL | op::BROADCASTING_EQUAL => Compare::Equal,
        op::NOT_EQUAL | op::BROADCASTING_NOT_EQUAL => Compare::NotEqual,
        op::GREATER | op::BROADCASTING_GREATER => Compare::Greater,
        op::AND | op::BROADCASTING_AND => Compare::And,
        op::OR | op::BROADCASTING_OR => Compare::Or,
        op::XOR | op::BROADCASTING_XOR => Compare::Xor,
        _ => return None,
    })
}

fn reduce(name: &str) -> Option<ReduceKind> {
    Some(match name {
        op::REDUCE_SUM => ReduceKind::Sum,
        op::REDUCE_MEAN => ReduceKind::Mean,
        op::REDUCE_MAX => ReduceKind::Max,
        op::REDUCE_MIN => ReduceKind::Min,
        op::REDUCE_PRODUCT => ReduceKind::Prod,
        _ => return None,
    })
}

/// Ops that are known and in none of the families above.
const OTHERS: [&str; 26] = [
    op::CONSTANT,
    op::OUTPUT,
    op::BLOCKWISE_SHIFT_SCALE,
    op::BROADCAST_TO,
    op::BROADCASTING_FLOOR_DIVIDE,
    op::CAST,
    op::CONCAT,
    op::CONV_2D,
    op::CONV_3D,
    op::CREATE_TOKEN,
    op::FLOOR_DIVIDE,
    op::GATHER_ALONG_AXIS,
    op::GATHER_ND,
    op::GELU,
    op::INVOKE,
    op::LUT_TO_DENSE,
    op::MATMUL,
    op::PAD,
    op::READ_HANDLE,
    op::RESHAPE,
    op::SLICE,
    op::SOFTMAX,
    op::TRANSPOSE,
    op::WHERE,
    op::WRITE_HANDLE,
    op::BROADCAST_IN_DIMS,
];

/// Whether an op can be raised.
pub(super) fn is_known(name: &str) -> bool {
    let family = unary(name).is_some() || binary(name).is_some() || compare(name).is_some() || reduce(name).is_some();
    family || OTHERS.contains(&name)
}

impl Raise<'_> {
    /// The parameter of an op, the shape of its result.
    fn shape_of(&self, value: usize, declared: &TensorType) -> Result<Vec<usize>> {
        let shape = self.counts(value)?;
        ensure!(shape == declared.shape, "the program declares {declared}, the op makes {shape:?}");
        Ok(shape)
    }

    /// An op of which one result is declared.
    pub(super) fn op(&mut self, operation: &Operation, declared: &TensorType) -> Result<ValueId> {
        let (name, values) = (&*operation.name, &operation.operands[..]);
        let value = |i: usize| values.get(i).copied().with_context(|| format!("no operand {i}"));
        if let Some(kind) = unary(name) {
            let x = self.tensor(value(0)?)?;
            return Ok(self.b.unary(kind, x)?);
        }
        if let Some(kind) = binary(name) {
            let (x, y) = (self.tensor(value(0)?)?, self.tensor(value(1)?)?);
            return Ok(self.b.binary(kind, x, y)?);
        }
        if let Some(kind) = compare(name) {
            let (x, y) = (self.tensor(value(0)?)?, self.tensor(value(1)?)?);
            return Ok(self.b.op(kind, &[x, y])?);
        }
        let x = match name {
            op::CONCAT | op::LUT_TO_DENSE | op::BLOCKWISE_SHIFT_SCALE => None,
            _ => Some(self.tensor(value(0)?)?),
        };
        let x = || x.context("no operand");
        let rank = declared.rank();
        if let Some(kind) = reduce(name) {
            let axes = self.axes(value(1)?, rank)?;
            return Ok(self.b.reduce(kind, x()?, &axes, true)?);
        }
        Ok(match name {
            op::FLOOR_DIVIDE | op::BROADCASTING_FLOOR_DIVIDE => {
                let y = self.tensor(value(1)?)?;
                let quotient = self.b.binary(Binary::Div, x()?, y)?;
                self.b.unary(Unary::Floor, quotient)?
            }
            op::GELU => {
                let kind = match &operation.properties[..] {
                    [Property::Required(Attribute::Choice { value: 0, .. })] => Unary::Gelu,
                    [Property::Required(Attribute::Choice { value: 1, .. })] => Unary::GeluTanh,
                    _ => bail!("a kind of gelu that is not known here"),
                };
                self.b.unary(kind, x()?)?
            }
            op::CAST => self.b.op(Cast { dtype: declared.dtype }, &[x()?])?,
            op::WHERE => {
                let (yes, no) = (self.tensor(value(1)?)?, self.tensor(value(2)?)?);
                self.b.op(Select {}, &[x()?, yes, no])?
            }
            op::MATMUL => {
                let y = self.tensor(value(1)?)?;
                self.b.matmul(x()?, y)?
            }
            op::SOFTMAX => {
                let axis = self.axis(value(1)?, rank)?;
                self.b.softmax(x()?, axis)?
            }
            op::RESHAPE => {
                let shape = self.shape_of(value(1)?, declared)?;
                self.b.reshape(x()?, &shape)?
            }
            op::TRANSPOSE => {
                let perm = self.counts(value(1)?)?;
                self.b.transpose(x()?, &perm)?
            }
            op::BROADCAST_TO => {
                let shape = self.shape_of(value(1)?, declared)?;
                self.b.op(BroadcastTo { shape }, &[x()?])?
            }
            op::BROADCAST_IN_DIMS => self.b.op(BroadcastTo { shape: declared.shape.clone() }, &[x()?])?,
            op::CONCAT => {
                let axis = self.axis(value(0)?, rank)?;
                let parts = values[1..].iter().map(|v| self.tensor(*v)).collect::<Result<Vec<_>>>()?;
                self.b.concat(&parts, axis)?
            }
            op::SLICE => {
                let extents = self.b.shape(x()?).to_vec();
                let [begin, end, stride] =
                    [self.integers(value(1)?)?, self.integers(value(2)?)?, self.integers(value(3)?)?];
                ensure!(
                    [&begin, &end, &stride].iter().all(|p| p.len() == extents.len()),
                    "positions for another number of axes than {}",
                    extents.len()
                );
                ensure!(stride.iter().all(|s| *s > 0), "found a step of {stride:?}, expected positive ones");
                let cut = |at: i64, extent: usize| {
                    let at = if at < 0 { at + extent as i64 } else { at };
                    at.clamp(0, extent as i64) as usize
                };
                let slice = Slice {
                    begin: begin.iter().zip(&extents).map(|(at, extent)| cut(*at, *extent)).collect(),
                    end: end.iter().zip(&extents).map(|(at, extent)| cut(*at, *extent)).collect(),
                    stride: stride.iter().map(|s| *s as usize).collect(),
                };
                self.b.op(slice, &[x()?])?
            }
            op::PAD => {
                let [Property::Required(Attribute::Choice { value: 1, .. })] = &operation.properties[..] else {
                    bail!("a border of other than a constant");
                };
                let (pads, with) = (self.counts(value(1)?)?, self.number(value(2)?)?);
                ensure!(pads.len() == 2 * rank, "found {} borders, expected {}", pads.len(), 2 * rank);
                let before: Vec<usize> = pads.iter().copied().step_by(2).collect();
                let after: Vec<usize> = pads.iter().copied().skip(1).step_by(2).collect();
                self.b.pad(x()?, &before, &after, with)?
            }
            op::CONV_2D | op::CONV_3D => {
                let (w, strides, dilations) =
                    (self.tensor(value(1)?)?, self.counts(value(2)?)?, self.counts(value(3)?)?);
                let none = vec![0; strides.len()];
                let groups = self.number(value(4)?)? as usize;
                let conv = Conv { strides, pad_before: none.clone(), pad_after: none, dilations, groups };
                self.b.conv(conv, x()?, w, None)?
            }
            op::GATHER_ND => {
                let positions = self.tensor(value(1)?)?;
                self.b.op(GatherNd { batch: 0 }, &[x()?, positions])?
            }
            op::GATHER_ALONG_AXIS => {
                let positions = self.tensor(value(1)?)?;
                let axis = self.axis(value(2)?, rank)?;
                self.b.op(GatherAlongAxis { axis }, &[x()?, positions])?
            }
            op::LUT_TO_DENSE | op::BLOCKWISE_SHIFT_SCALE => {
                let resource = |i: usize| match self.constants.get(&value(i)?).map(|c| &c.value) {
                    Some(Attribute::Resource(number)) => Ok(*number),
                    _ => bail!("a compressed weight whose parts are no weights"),
                };
                let name = stored::compressed(resource(0)?, resource(1)?);
                for i in 2..values.len() {
                    ensure!(self.number(value(i)?)? == 0.0, "a compressed weight with a shift or an axis");
                }
                self.b.load(&name, declared)?
            }
            _ => bail!("this op is not known here"),
        })
    }
}
