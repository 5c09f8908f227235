//! Compressed weights: `constexpr` ops, decoded from the records that they refer to.
//!
//! - `constexpr_lut_to_dense`: `indices` of K axes into `lut` of K + 2: palettes an axis, entries, elements of an entry;
//! - `constexpr_blockwise_shift_scale`: `scale` · (`data` − `offset`), with as many scales an axis as divide it;
//! - `constexpr_sparse_to_dense`: elements where a mask is 1, zeros elsewhere;
//! - `constexpr_lut_to_sparse`, `constexpr_sparse_blockwise_shift_scale`: the first two, of the elements where a mask is 1; they return the mask
//!   and those elements;
//! - `constexpr_cast`: other element types;
//! - the forms of iOS 16, whose parameters are attributes: `constexpr_affine_dequantize` with scales along one axis, palettes and masks of bytes that
//!   hold several elements, with the shape beside them.
//!
//! A parameter is written in place, or is the result of another `constexpr` op.

mod decode;
mod stored;

pub use stored::StoredWeight;

use std::borrow::Cow;

use anyhow::{Context, Result, bail, ensure};
use s2dit_ir::{DType, TensorType};

use super::{Package, WEIGHTS};
use crate::coreml::proto::{DataType, Operation, TensorValues, Value, binding, dimension, value, value_type};

/// Ops of this kind that feed each other.
const DEPTH: usize = 4;

/// A compressed weight, checked and ready to be decoded.
pub(in crate::coreml) struct Compressed<'p> {
    kind: Kind<'p>,
    data_type: DataType,
    shape: Vec<usize>,
}

enum Kind<'p> {
    Lut {
        indices: Parameter<'p>,
        lut: Parameter<'p>,
        vector_axis: Option<usize>,
    },
    ShiftScale {
        data: Parameter<'p>,
        scale: Parameter<'p>,
        offset: Option<Parameter<'p>>,
    },
    /// The elements where the mask is 1, the others being zeros.
    Scattered {
        values: Parameter<'p>,
        mask: Parameter<'p>,
    },
    /// The elements of another one where the mask is 1.
    Gathered {
        dense: Box<Compressed<'p>>,
        mask: Parameter<'p>,
    },
    /// Each element `count` times along an axis.
    Repeated {
        of: Parameter<'p>,
        axis: usize,
        count: usize,
    },
    Same {
        of: Parameter<'p>,
    },
}

#[derive(Clone)]
struct Parameter<'p> {
    /// Offset of the record in the weight file, if it is in one.
    record: Option<u64>,
    data_type: DataType,
    shape: Vec<usize>,
    elements: Elements<'p>,
}

#[derive(Clone)]
enum Elements<'p> {
    /// Elements as the format packs them.
    Packed(Cow<'p, [u8]>),
    Computed(std::rc::Rc<Compressed<'p>>),
}

/// `true` for the ops that are read here.
pub(in crate::coreml) fn is_compressed(op: &str) -> bool {
    matches!(
        op,
        "constexpr_lut_to_dense"
            | "constexpr_blockwise_shift_scale"
            | "constexpr_sparse_to_dense"
            | "constexpr_lut_to_sparse"
            | "constexpr_sparse_blockwise_shift_scale"
            | "constexpr_affine_dequantize"
            | "constexpr_cast"
    )
}

impl Package {
    /// The compressed weight `value` of a function.
    pub(in crate::coreml) fn compressed(&self, function: &str, value: &str) -> Result<Compressed<'_>> {
        self.compressed_at(function, value, 0)
    }

    fn compressed_at(&self, function: &str, value: &str, depth: usize) -> Result<Compressed<'_>> {
        ensure!(depth < DEPTH, "`{value}`: compressed weights that refer to each other more than {DEPTH} deep");
        let (name, program) = self.function(Some(function))?;
        let block = self.block(&name, program)?;
        let op = defining(&block.operations, value).with_context(|| format!("`{value}` is not defined"))?;
        let output = op.outputs.iter().position(|o| o.name == value).unwrap_or_default();
        self.op(function, op, output, depth).with_context(|| format!("`{}` of value `{value}`", op.r#type))
    }

    /// Result number `output` of an op.
    fn op<'p>(&'p self, function: &str, op: &'p Operation, output: usize, depth: usize) -> Result<Compressed<'p>> {
        let parameter =
            |name: &str| self.parameter(function, op, name, depth).with_context(|| format!("input `{name}`"));
        let required = |name: &str| parameter(name)?.with_context(|| format!("input `{name}` is missing"));
        let axis = |name: &str| parameter(name)?.map(|p| p.axis()).transpose();
        match op.r#type.as_str() {
            "constexpr_lut_to_dense" if op.attributes.contains_key("indices") => {
                old_lut(required("indices")?, required("lut")?, required("shape")?.extents()?)
            }
            "constexpr_lut_to_dense" => lut(required("indices")?, required("lut")?, axis("vector_axis")?),
            "constexpr_blockwise_shift_scale" => {
                shift_scale(required("data")?, required("scale")?, parameter("offset")?)
            }
            "constexpr_affine_dequantize" => {
                let data = required("quantized_data")?;
                let axis = axis("axis")?.unwrap_or_default();
                let scale = required("scale")?.along(axis, data.shape.len())?;
                let Some(zero) = parameter("zero_point")? else { return shift_scale(data, scale, None) };
                // Each of the two is one number, or one for each place along the axis.
                let zero = zero.along(axis, data.shape.len())?;
                let scale = scale.stretched(&zero.shape)?;
                let zero = zero.stretched(&scale.shape)?;
                shift_scale(data, scale, Some(zero))
            }
            "constexpr_sparse_to_dense" => {
                let (values, mut mask) = (required("nonzero_data")?, required("mask")?);
                if op.attributes.contains_key("mask") {
                    mask = mask.unpacked(DataType::Uint1, required("shape")?.extents()?)?;
                }
                scattered(values, mask)
            }
            "constexpr_cast" => {
                let of = required("source_val")?;
                Ok(Compressed { data_type: DataType::Float32, shape: of.shape.clone(), kind: Kind::Same { of } })
            }
            "constexpr_lut_to_sparse" => {
                let mask = required("indices_mask")?;
                let indices = scattered(required("indices_nonzero_data")?, mask.clone())?.parameter();
                let table = required("lut")?;
                let vector = *table.shape.last().context("a lut of rank 0")?;
                let axis = axis("vector_axis")?;
                let dense = lut(indices, table, axis)?;
                let mask = match axis.filter(|_| vector > 1) {
                    Some(axis) => {
                        let axis = wrapped(axis, mask.shape.len())?;
                        let (data_type, shape) = (mask.data_type, dense.shape.clone());
                        Compressed { kind: Kind::Repeated { of: mask, axis, count: vector }, data_type, shape }
                            .parameter()
                    }
                    None => mask,
                };
                sparse(dense, mask, output)
            }
            "constexpr_sparse_blockwise_shift_scale" => {
                let mask = required("data_mask")?;
                let data = scattered(required("nonzero_data")?, mask.clone())?.parameter();
                let dense = shift_scale(data, required("scale")?, parameter("offset")?)?;
                sparse(dense, mask, output)
            }
            other => bail!("the result of `{other}`, expected a compressed weight"),
        }
    }

    fn parameter<'p>(
        &'p self,
        function: &str,
        op: &'p Operation,
        input: &str,
        depth: usize,
    ) -> Result<Option<Parameter<'p>>> {
        let Some(argument) = op.inputs.get(input) else {
            return op.attributes.get(input).map(|v| self.in_place(v)).transpose();
        };
        let [bound] = &argument.arguments[..] else { bail!("expected one value, found {}", argument.arguments.len()) };
        match bound.binding.as_ref().context("bound to nothing")? {
            binding::Binding::Value(v) => self.in_place(v).map(Some),
            binding::Binding::Name(name) => Ok(Some(self.compressed_at(function, name, depth + 1)?.parameter())),
        }
    }

    /// A value written in place: a record of the weight file, or elements in the model.
    fn in_place<'p>(&'p self, v: &'p Value) -> Result<Parameter<'p>> {
        let Some(value_type::Type::TensorType(t)) = v.r#type.as_ref().and_then(|t| t.r#type.as_ref()) else {
            bail!("expected a tensor")
        };
        let data_type =
            DataType::try_from(t.data_type).ok().with_context(|| format!("element type {}", t.data_type))?;
        let extent = |d: &crate::coreml::proto::Dimension| match &d.dimension {
            Some(dimension::Dimension::Constant(c)) if c.size > 0 => Ok(usize::try_from(c.size)?),
            _ => bail!("a dimension that is empty or not static"),
        };
        let shape: Vec<usize> = t.dimensions.iter().map(extent).collect::<Result<_>>()?;
        ensure!(t.rank == shape.len() as i64, "rank {} with {} dimensions", t.rank, shape.len());
        let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let elements = elements.filter(|n| n.checked_mul(64).is_some());
        let elements = elements.with_context(|| format!("shape {shape:?} is too large"))?;
        let bits = data_type.bits().with_context(|| format!("elements of type {data_type:?}"))? as usize;
        let expected = (elements * bits).div_ceil(8);
        let bytes: Cow<[u8]> = match v.value.as_ref().context("no value")? {
            value::Value::BlobFileValue(blob) => {
                ensure!(blob.file_name == WEIGHTS, "found weight file `{}`, expected `{WEIGHTS}`", blob.file_name);
                let file = self.weights.as_ref().context("the package has no weights/weight.bin")?;
                let record = file.record(blob.offset)?;
                ensure!(
                    record.data_type() == Some(data_type) && record.size == expected as u64,
                    "`{}`, record at offset {}: found {} and {} bytes, expected {data_type:?}{shape:?} ({expected} bytes)",
                    file.path().display(),
                    blob.offset,
                    record.type_name(),
                    record.size
                );
                Cow::Borrowed(file.data(&record))
            }
            value::Value::ImmediateValue(i) => {
                let values = i.tensor.as_ref().and_then(|t| t.value.as_ref()).context("no elements")?;
                match values {
                    TensorValues::Bytes(b) => Cow::Borrowed(b.values.as_slice()),
                    TensorValues::Floats(v) => v.values.iter().flat_map(|x| x.to_le_bytes()).collect(),
                    TensorValues::Ints(v) => v.values.iter().flat_map(|x| x.to_le_bytes()).collect(),
                    _ => bail!("elements in a field that numbers do not have"),
                }
            }
        };
        ensure!(bytes.len() == expected, "{} bytes for {data_type:?}{shape:?}, expected {expected}", bytes.len());
        let record = match &v.value {
            Some(value::Value::BlobFileValue(blob)) => Some(blob.offset),
            _ => None,
        };
        Ok(Parameter { record, data_type, shape, elements: Elements::Packed(bytes) })
    }
}

/// The op of a value, also in nested blocks.
fn defining<'p>(operations: &'p [Operation], value: &str) -> Option<&'p Operation> {
    operations.iter().find_map(|op| {
        if op.outputs.iter().any(|o| o.name == value) {
            return Some(op);
        }
        op.blocks.iter().find_map(|block| defining(&block.operations, value))
    })
}

fn wrapped(axis: i64, rank: usize) -> Result<usize> {
    let wrapped = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(wrapped).ok().filter(|a| *a < rank).with_context(|| format!("axis {axis} of rank {rank}"))
}

fn float(data_type: DataType) -> Result<DType> {
    match data_type {
        DataType::Float16 => Ok(DType::F16),
        DataType::Float32 => Ok(DType::F32),
        other => bail!("{other:?} decides the result's type, expected Float16 or Float32"),
    }
}

fn divides(shape: &[usize], parts: &[usize], what: &str) -> Result<()> {
    let fits = shape.len() == parts.len() && shape.iter().zip(parts).all(|(d, p)| d.is_multiple_of(*p));
    ensure!(fits, "{what} of shape {parts:?} does not divide {shape:?}");
    Ok(())
}

fn lut<'p>(indices: Parameter<'p>, lut: Parameter<'p>, vector_axis: Option<i64>) -> Result<Compressed<'p>> {
    use DataType::{Uint1, Uint2, Uint3, Uint4, Uint6, Uint8};
    let rank = indices.shape.len();
    ensure!(
        matches!(indices.data_type, Uint1 | Uint2 | Uint3 | Uint4 | Uint6 | Uint8),
        "indices of type {:?}",
        indices.data_type
    );
    ensure!(lut.shape.len() == rank + 2, "a lut of shape {:?} for indices of shape {:?}", lut.shape, indices.shape);
    divides(&indices.shape, &lut.shape[..rank], "a lut")?;
    let entries = 1usize << indices.data_type.bits().unwrap_or_default();
    let (found, vector) = (lut.shape[rank], lut.shape[rank + 1]);
    ensure!(found == entries, "palettes of {found} entries for {:?}, expected {entries}", indices.data_type);
    let mut shape = indices.shape.clone();
    let vector_axis = vector_axis.map(|axis| wrapped(axis, rank).context("vector_axis")).transpose()?;
    ensure!(vector == 1 || vector_axis.is_some(), "entries of {vector} elements without a vector_axis");
    if let Some(axis) = vector_axis {
        shape[axis] *= vector;
    }
    Ok(Compressed { data_type: lut.data_type, shape, kind: Kind::Lut { indices, lut, vector_axis } })
}

/// The form of iOS 16: one palette, and indices packed into bytes.
fn old_lut<'p>(indices: Parameter<'p>, table: Parameter<'p>, shape: Vec<usize>) -> Result<Compressed<'p>> {
    let entries = table.shape.iter().product::<usize>();
    let data_type = match entries {
        2 => DataType::Uint1,
        4 => DataType::Uint2,
        16 => DataType::Uint4,
        64 => DataType::Uint6,
        256 => DataType::Uint8,
        _ => bail!("a palette of {entries} entries, expected 2, 4, 16, 64 or 256"),
    };
    let palette = [vec![1; shape.len()], vec![entries, 1]].concat();
    lut(indices.unpacked(data_type, shape)?, Parameter { shape: palette, ..table }, None)
}

fn shift_scale<'p>(data: Parameter<'p>, scale: Parameter<'p>, offset: Option<Parameter<'p>>) -> Result<Compressed<'p>> {
    divides(&data.shape, &scale.shape, "a scale")?;
    if let Some(offset) = &offset {
        ensure!(offset.shape == scale.shape, "an offset of shape {:?}, a scale of {:?}", offset.shape, scale.shape);
    }
    let (data_type, shape) = (scale.data_type, data.shape.clone());
    Ok(Compressed { data_type, shape, kind: Kind::ShiftScale { data, scale, offset } })
}

fn scattered<'p>(values: Parameter<'p>, mask: Parameter<'p>) -> Result<Compressed<'p>> {
    ensure!(mask.data_type == DataType::Uint1, "a mask of type {:?}, expected Uint1", mask.data_type);
    Ok(Compressed { data_type: values.data_type, shape: mask.shape.clone(), kind: Kind::Scattered { values, mask } })
}

/// Result number `output` of an op that gives a mask and the elements where it is 1.
fn sparse<'p>(dense: Compressed<'p>, mask: Parameter<'p>, output: usize) -> Result<Compressed<'p>> {
    if output == 0 {
        return Ok(Compressed { data_type: mask.data_type, shape: mask.shape.clone(), kind: Kind::Same { of: mask } });
    }
    let count = mask.numbers()?.iter().filter(|x| **x != 0.0).count();
    Ok(Compressed {
        data_type: dense.data_type,
        shape: vec![count],
        kind: Kind::Gathered { dense: Box::new(dense), mask },
    })
}

impl<'p> Parameter<'p> {
    /// Bytes that hold elements of another type and shape.
    fn unpacked(self, data_type: DataType, shape: Vec<usize>) -> Result<Parameter<'p>> {
        let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).context("a shape that is too large")?;
        let bits = data_type.bits().unwrap_or_default() as usize;
        let expected = elements.checked_mul(bits).context("a shape that is too large")?.div_ceil(8);
        let found = self.shape.iter().product::<usize>();
        ensure!(self.data_type == DataType::Uint8, "packed elements of type {:?}, expected Uint8", self.data_type);
        ensure!(found == expected, "{found} bytes for {data_type:?}{shape:?}, expected {expected}");
        Ok(Parameter { data_type, shape, ..self })
    }

    /// A vector along an axis of `rank`, or one number for all of them.
    fn along(self, axis: i64, rank: usize) -> Result<Parameter<'p>> {
        let count = self.shape.iter().product::<usize>();
        let mut shape = vec![1; rank];
        if count != 1 {
            shape[wrapped(axis, rank)?] = count;
        }
        Ok(Parameter { shape, ..self })
    }

    /// One number as often as the shape has elements.
    fn stretched(self, shape: &[usize]) -> Result<Parameter<'p>> {
        let count = shape.iter().product();
        if self.shape == shape || self.shape.iter().product::<usize>() != 1 {
            return Ok(self);
        }
        let (of, data_type) = (Parameter { shape: vec![1], ..self }, self.data_type);
        let repeated = Compressed { kind: Kind::Repeated { of, axis: 0, count }, data_type, shape: vec![count] };
        Ok(Parameter { shape: shape.to_vec(), ..repeated.parameter() })
    }
}

impl<'p> Compressed<'p> {
    /// The weight as a parameter of another one.
    fn parameter(self) -> Parameter<'p> {
        let (data_type, shape) = (self.data_type, self.shape.clone());
        Parameter { record: None, data_type, shape, elements: Elements::Computed(std::rc::Rc::new(self)) }
    }

    /// Type of the result, if it is one that ops compute with.
    pub(in crate::coreml) fn ty(&self) -> Result<TensorType> {
        Ok(TensorType::new(float(self.data_type)?, self.shape.clone()))
    }
}
