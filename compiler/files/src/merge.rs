//! Tensors that something is added to: a low-rank product or another tensor, as LoRA files hold them.

use std::ops::Range;
use std::sync::Arc;

use s2dit_ir::convert;
use s2dit_ir::{DType, TensorType, WeightError};

use crate::Door;
use crate::problems::shown;

/// Elements that are looked at together.
pub(crate) const PART: usize = 1 << 16;

/// A tensor of another file.
#[derive(Clone, Debug)]
pub struct Factor {
    /// The file.
    pub door: Arc<dyn Door>,
    /// The tensor's name in it.
    pub name: String,
}

impl Factor {
    /// Element type and shape.
    #[must_use]
    pub fn ty(&self) -> Option<TensorType> {
        self.door.ty(&self.name)
    }

    /// The only element, of any type of numbers.
    ///
    /// # Errors
    /// What was found instead: several elements, no number, NaN or an infinity.
    pub fn scalar(&self) -> Result<f64, String> {
        let ty = self.ty().ok_or("no such tensor")?;
        let one = ty.elements() == 1 && ty.dtype != DType::Bool;
        if !one {
            return Err(ty.to_string());
        }
        let bytes = self.door.bytes(&self.name).map_err(|error| error.to_string())?;
        match number(ty.dtype, &bytes) {
            number if number.is_finite() => Ok(number),
            other => Err(format!("{other} of type {}", ty.dtype)),
        }
    }

    /// The largest magnitude of the elements, which are bf16, f16 or f32.
    ///
    /// # Errors
    /// What was found, if an element is NaN or infinite, or cannot be read.
    fn largest(&self) -> Result<f64, String> {
        let elements = self.ty().map(|ty| ty.elements()).unwrap_or_default();
        let mut most: f64 = 0.0;
        for begin in (0..elements).step_by(PART) {
            let values = self.values(begin..elements.min(begin + PART)).map_err(|error| error.to_string())?;
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                return Err(format!("{} at element {} of `{}`", values[at], begin + at, shown(&self.name)));
            }
            most = values.iter().fold(most, |most, value| most.max(value.abs()));
        }
        self.door.done(&self.name);
        Ok(most)
    }

    /// Some elements in float64.
    pub(crate) fn values(&self, elements: Range<usize>) -> Result<Vec<f64>, WeightError> {
        let missing = || WeightError::Missing { name: self.name.clone() };
        values(&*self.door, &self.name, &self.ty().ok_or_else(missing)?, elements)
    }
}

/// What is added to a tensor `W [out, …]`, whose other axes count as one here.
#[derive(Clone, Debug)]
pub enum Change {
    /// `scale · B·A`, with `B [out, rank]` and `A [rank, …]`.
    Product {
        /// The factor that is applied first.
        a: Factor,
        /// The factor that is applied last.
        b: Factor,
        /// The multiple that is added.
        scale: f64,
    },
    /// `scale · D`, with `D` of the tensor's shape.
    Sum {
        /// The tensor that is added.
        d: Factor,
        /// The multiple that is added.
        scale: f64,
    },
}

impl Change {
    /// Whether it fits a tensor: if not, what was found and what was expected.
    pub(crate) fn check(&self, ty: &TensorType) -> Result<(), (String, String)> {
        let factors = match self {
            Change::Product { a, b, .. } => vec![a, b],
            Change::Sum { d, .. } => vec![d],
        };
        if let Some(ty) = factors.iter().filter_map(|factor| factor.ty()).find(|ty| !is_float(ty.dtype)) {
            return Err((format!("{ty} to add"), "bf16, f16 or f32".into()));
        }
        let shape = |factor: &Factor| factor.ty().map(|ty| ty.shape).unwrap_or_default();
        let outputs = ty.shape.first().copied().unwrap_or(1);
        let inner: usize = ty.shape.iter().skip(1).product();
        match self {
            Change::Product { a, b, .. } => {
                let (a, b) = (shape(a), shape(b));
                let rank = a.first().copied().unwrap_or(0);
                let wide = |shape: &[usize]| shape.iter().skip(1).product::<usize>();
                let fits = ty.shape.len() >= 2
                    && rank > 0
                    && wide(&a) == inner
                    && b.first() == Some(&outputs)
                    && wide(&b) == rank;
                let found = || format!("{b:?} times {a:?} for a tensor {:?}", ty.shape);
                if fits { Ok(()) } else { Err((found(), format!("[{outputs}, RANK] times [RANK, {inner}]"))) }
            }
            Change::Sum { d, .. } => {
                let d = shape(d);
                if d == ty.shape { Ok(()) } else { Err((format!("{d:?}"), format!("{:?}", ty.shape))) }
            }
        }
    }

    /// A bound of the magnitudes that it adds to a tensor.
    ///
    /// # Errors
    /// What was found, if an element of a factor is NaN or infinite.
    pub(crate) fn bound(&self) -> Result<f64, String> {
        match self {
            Change::Sum { d, scale } => Ok(scale.abs() * d.largest()?),
            Change::Product { a, b, scale } => {
                let rank = a.ty().and_then(|ty| ty.shape.first().copied()).unwrap_or_default();
                Ok(scale.abs() * rank as f64 * a.largest()? * b.largest()?)
            }
        }
    }

    /// Adds its part to some elements of a tensor, of which `out` has the values.
    pub(crate) fn add(&self, shape: &[usize], elements: &Range<usize>, out: &mut [f64]) -> Result<(), WeightError> {
        match self {
            Change::Sum { d, scale } => {
                for (out, d) in out.iter_mut().zip(d.values(elements.clone())?) {
                    *out += scale * d;
                }
            }
            Change::Product { a, b, scale } => {
                let inner: usize = shape[1..].iter().product();
                let rank = a.ty().and_then(|ty| ty.shape.first().copied()).unwrap_or_default();
                let (first, last) = (elements.start / inner, elements.end.div_ceil(inner));
                let a = a.values(0..rank * inner)?;
                let b = b.values(first * rank..last * rank)?;
                for (row, b) in (first..last).zip(b.chunks_exact(rank)) {
                    let (begin, end) = (elements.start.max(row * inner), elements.end.min((row + 1) * inner));
                    let out = &mut out[begin - elements.start..end - elements.start];
                    let columns = begin - row * inner..end - row * inner;
                    for (b, a) in b.iter().zip(a.chunks_exact(inner)) {
                        let factor = scale * b;
                        for (out, a) in out.iter_mut().zip(&a[columns.clone()]) {
                            *out += factor * a;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Some elements of a tensor in float64.
pub(crate) fn values(
    door: &dyn Door,
    name: &str,
    ty: &TensorType,
    elements: Range<usize>,
) -> Result<Vec<f64>, WeightError> {
    let size = ty.dtype.size();
    let range = elements.start * size..elements.end * size;
    let mut values = vec![0.0; elements.len()];
    let mut read = |bytes: &[u8]| convert::to_f64(ty.dtype, bytes, &mut values);
    match door.part(name, range.clone()) {
        Some(part) => read(&part?),
        None => read(&door.bytes(name)?[range]),
    }
    Ok(values)
}

/// A number of any type but bool, little-endian; NaN if there are too few bytes.
fn number(dtype: DType, bytes: &[u8]) -> f64 {
    let Some(bytes) = bytes.get(..dtype.size()) else { return f64::NAN };
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let wide = u64::from_le_bytes(wide);
    match dtype {
        DType::F64 => f64::from_bits(wide),
        DType::I64 => wide as i64 as f64,
        DType::I32 => f64::from(wide as i32),
        DType::I16 => f64::from(wide as i16),
        DType::I8 => f64::from(wide as i8),
        DType::U32 | DType::U16 | DType::U8 | DType::Bool => wide as f64,
        DType::F32 | DType::F16 | DType::BF16 => {
            let mut out = [0.0];
            convert::to_f64(dtype, bytes, &mut out);
            out[0]
        }
    }
}

/// Whether the elements of a type can be computed with.
pub(crate) fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}
