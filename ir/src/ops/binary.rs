//! Elementwise functions of two operands with numpy broadcasting.

use ndarray::{ArrayD, ArrayViewD, IxDyn, Zip};
use serde::{Deserialize, Serialize};

use super::{Attrs, OpDef, OpError, TensorOp, arity, require};
use crate::{Tensor, TensorType};

/// An elementwise function of two operands of one dtype, with numpy broadcasting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binary {
    /// x + y
    Add,
    /// x − y
    Sub,
    /// x·y
    Mul,
    /// x / y
    Div,
    /// max(x, y)
    Maximum,
    /// min(x, y)
    Minimum,
    /// x^y
    Pow,
}

impl Binary {
    /// Every binary op.
    pub const ALL: &'static [Binary] =
        &[Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Maximum, Binary::Minimum, Binary::Pow];

    /// The function in float64.
    pub fn apply(self, x: f64, y: f64) -> f64 {
        match self {
            Binary::Add => x + y,
            Binary::Sub => x - y,
            Binary::Mul => x * y,
            Binary::Div => x / y,
            Binary::Maximum => x.max(y),
            Binary::Minimum => x.min(y),
            Binary::Pow => x.powf(y),
        }
    }
}

/// The numpy broadcast of two shapes.
///
/// # Errors
/// Extents that differ and are not 1.
pub fn broadcast_shapes(a: &[usize], b: &[usize]) -> Result<Vec<usize>, OpError> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| if i + s.len() < rank { 1 } else { s[i + s.len() - rank] };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(OpError::new(format!("shapes {a:?} and {b:?} do not broadcast"))),
        })
        .collect()
}

/// A function of two arrays of one shape, row by row: a row lies in one piece, or repeats one number.
fn elementwise(x: &ArrayViewD<f64>, y: &ArrayViewD<f64>, apply: impl Fn(f64, f64) -> f64) -> ArrayD<f64> {
    let mut data = ArrayD::zeros(x.raw_dim());
    if x.ndim() == 0 {
        Zip::from(&mut data).and(x).and(y).for_each(|o, &x, &y| *o = apply(x, y));
        return data;
    }
    Zip::from(data.rows_mut()).and(x.rows()).and(y.rows()).for_each(|mut out, x, y| {
        let repeated = y.strides() == [0];
        match (out.as_slice_mut(), x.as_slice(), y.as_slice()) {
            (Some(out), Some(x), Some(y)) => {
                out.iter_mut().zip(x.iter().zip(y)).for_each(|(o, (x, y))| *o = apply(*x, *y));
            }
            (Some(out), Some(x), None) if repeated => {
                let y = y.first().copied().unwrap_or_default();
                out.iter_mut().zip(x).for_each(|(o, x)| *o = apply(*x, y));
            }
            _ => Zip::from(&mut out).and(&x).and(&y).for_each(|o, &x, &y| *o = apply(x, y)),
        }
    });
    data
}

impl OpDef for Binary {
    fn name(&self) -> &'static str {
        match self {
            Binary::Add => "add",
            Binary::Sub => "sub",
            Binary::Mul => "mul",
            Binary::Div => "div",
            Binary::Maximum => "maximum",
            Binary::Minimum => "minimum",
            Binary::Pow => "pow",
        }
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 2..=2)?;
        let (x, y) = (operands[0], operands[1]);
        require!(x.dtype == y.dtype, "operands must have one dtype, found {x} and {y}");
        Ok(TensorType::new(x.dtype, broadcast_shapes(&x.shape, &y.shape)?))
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn parse(name: &str, attrs: Attrs) -> Result<Self, OpError> {
        require!(attrs.is_empty(), "`{name}` has no attributes");
        Binary::ALL
            .iter()
            .copied()
            .find(|b| b.name() == name)
            .ok_or_else(|| OpError::new(format!("unknown op `{name}`")))
    }
}

impl TensorOp for Binary {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let shape = IxDyn(&ty.shape);
        let mismatch = || OpError::new("operands do not broadcast");
        let x = operands[0].data.broadcast(shape.clone()).ok_or_else(mismatch)?;
        let y = operands[1].data.broadcast(shape.clone()).ok_or_else(mismatch)?;
        // The function is chosen once, so that the loop over it becomes vector instructions.
        let data = match self {
            Binary::Add => elementwise(&x, &y, |x, y| Binary::Add.apply(x, y)),
            Binary::Sub => elementwise(&x, &y, |x, y| Binary::Sub.apply(x, y)),
            Binary::Mul => elementwise(&x, &y, |x, y| Binary::Mul.apply(x, y)),
            other => elementwise(&x, &y, |x, y| other.apply(x, y)),
        };
        Ok(Tensor { dtype: ty.dtype, data })
    }
}
