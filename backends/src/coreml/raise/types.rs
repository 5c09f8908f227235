//! Types as a program declares them, which may leave extents open.

use std::fmt;

use anyhow::{Context, Result, bail};
use s2dit_ir::{DType, TensorType};

use crate::coreml::proto::{self, DataType, ValueType, dimension, value_type};

/// A declared tensor type: an element type, and extents of which some may be open.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Declared {
    pub dtype: DType,
    /// Extents; `None` for all of them if even their number is open.
    pub shape: Option<Vec<Option<usize>>>,
}

impl Declared {
    pub fn of(ty: &ValueType) -> Result<Declared> {
        match ty.r#type.as_ref() {
            Some(value_type::Type::TensorType(t)) => Declared::tensor(t),
            _ => bail!("expected a tensor type"),
        }
    }

    pub fn tensor(t: &proto::TensorType) -> Result<Declared> {
        let dtype = match DataType::try_from(t.data_type) {
            Ok(DataType::Bool) => DType::Bool,
            Ok(DataType::Float16) => DType::F16,
            Ok(DataType::Float32) => DType::F32,
            Ok(DataType::Int8) => DType::I8,
            Ok(DataType::Int16) => DType::I16,
            Ok(DataType::Int32) => DType::I32,
            Ok(DataType::Uint8) => DType::U8,
            Ok(DataType::Uint16) => DType::U16,
            Ok(DataType::Uint32) => DType::U32,
            Ok(other) => bail!("element type {other:?} cannot be run here"),
            Err(_) => bail!("unknown element type {}", t.data_type),
        };
        if t.rank < 0 {
            return Ok(Declared { dtype, shape: None });
        }
        if t.rank != t.dimensions.len() as i64 {
            bail!("rank {} with {} dimensions", t.rank, t.dimensions.len());
        }
        let mut shape = Vec::with_capacity(t.dimensions.len());
        for d in &t.dimensions {
            shape.push(match &d.dimension {
                // Extents are 32-bit in MIL; with this, no product of two of them overflows below.
                Some(dimension::Dimension::Constant(c)) if c.size > i32::MAX as u64 => {
                    bail!("an extent of {}", c.size)
                }
                Some(dimension::Dimension::Constant(c)) => Some(c.size as usize),
                Some(dimension::Dimension::Unknown(u)) if u.variadic => return Ok(Declared { dtype, shape: None }),
                _ => None,
            });
        }
        let known = shape.iter().flatten().try_fold(1usize, |n, d| n.checked_mul(*d));
        if known.and_then(|n| n.checked_mul(8)).is_none() {
            bail!("shape {shape:?} is too large");
        }
        Ok(Declared { dtype, shape: Some(shape) })
    }

    /// The type, if nothing in it is open.
    pub fn fixed(&self) -> Result<TensorType> {
        let shape: Option<Vec<usize>> = self.shape.as_ref().and_then(|shape| shape.iter().copied().collect());
        Ok(TensorType::new(self.dtype, shape.context("a dimension that is not static")?))
    }

    /// Whether a value of this type is one of those that are declared.
    pub fn takes(&self, ty: &TensorType) -> bool {
        let fits = |declared: &Option<usize>, found: &usize| declared.is_none_or(|d| d == *found);
        let shape = |shape: &Vec<Option<usize>>| {
            shape.len() == ty.rank() && shape.iter().zip(&ty.shape).all(|(d, found)| fits(d, found))
        };
        self.dtype == ty.dtype && self.shape.as_ref().is_none_or(shape)
    }
}

impl fmt::Display for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extent = |d: &Option<usize>| d.map_or("?".to_string(), |d| d.to_string());
        match &self.shape {
            Some(shape) => write!(f, "{}[{}]", self.dtype, shape.iter().map(extent).collect::<Vec<_>>().join(", ")),
            None => write!(f, "{}[…]", self.dtype),
        }
    }
}

/// A declared type with every extent given.
pub(super) fn tensor_type(t: &proto::TensorType) -> Result<TensorType> {
    Declared::tensor(t)?.fixed()
}
