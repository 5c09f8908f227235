//! Compressed weights: `constexpr` ops of iOS 18, decoded from the records that they refer to.
//!
//! - `constexpr_lut_to_dense`: `indices` of K axes into `lut` of K + 2: palettes an axis, entries, elements of an entry;
//! - `constexpr_blockwise_shift_scale`: `scale` · (`data` − `offset`), with as many scales an axis as divide it.
//!
//! A parameter is written in place, or is the result of another `constexpr` op.

use std::borrow::Cow;

use anyhow::{Context, Result, bail, ensure};
use s2dit_ir::compress::Scheme;
use s2dit_ir::{DType, Tensor, TensorType};

use super::{Package, WEIGHTS};
use crate::coreml::proto::{DataType, Operation, TensorValues, Value, binding, dimension, value, value_type};

/// Ops of this kind that feed each other.
const DEPTH: usize = 4;

/// A compressed weight, checked and ready to be decoded.
pub(in crate::coreml) struct Compressed<'p> {
    kind: Kind<'p>,
    /// Type of the result.
    pub ty: TensorType,
}

enum Kind<'p> {
    Lut { indices: Parameter<'p>, lut: Parameter<'p>, vector_axis: Option<usize> },
    ShiftScale { data: Parameter<'p>, scale: Parameter<'p>, offset: Option<Parameter<'p>> },
}

struct Parameter<'p> {
    /// Offset of the record in the weight file, if it is in one.
    record: Option<u64>,
    data_type: DataType,
    shape: Vec<usize>,
    elements: Elements<'p>,
}

enum Elements<'p> {
    /// Elements as the format packs them.
    Packed(Cow<'p, [u8]>),
    Computed(Box<Compressed<'p>>),
}

/// `true` for the ops that are read here.
pub(in crate::coreml) fn is_compressed(op: &str) -> bool {
    matches!(op, "constexpr_lut_to_dense" | "constexpr_blockwise_shift_scale")
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
        let defines = |op: &&Operation| op.outputs.iter().any(|o| o.name == value);
        let op = block.operations.iter().find(defines).with_context(|| format!("`{value}` is not defined"))?;
        let parameter =
            |name: &str| self.parameter(function, op, name, depth).with_context(|| format!("input `{name}`"));
        let required = |name: &str| parameter(name)?.with_context(|| format!("input `{name}` is missing"));
        match op.r#type.as_str() {
            "constexpr_lut_to_dense" => {
                lut(required("indices")?, required("lut")?, parameter("vector_axis")?.map(|p| p.axis()).transpose()?)
            }
            "constexpr_blockwise_shift_scale" => {
                shift_scale(required("data")?, required("scale")?, parameter("offset")?)
            }
            other => bail!("`{value}` is the result of `{other}`, expected a compressed weight"),
        }
        .with_context(|| format!("`{}` of value `{value}`", op.r#type))
    }

    fn parameter<'p>(
        &'p self,
        function: &str,
        op: &'p Operation,
        input: &str,
        depth: usize,
    ) -> Result<Option<Parameter<'p>>> {
        let Some(argument) = op.inputs.get(input) else { return Ok(None) };
        let [bound] = &argument.arguments[..] else { bail!("expected one value, found {}", argument.arguments.len()) };
        match bound.binding.as_ref().context("bound to nothing")? {
            binding::Binding::Value(v) => self.in_place(v).map(Some),
            binding::Binding::Name(name) => {
                let inner = self.compressed_at(function, name, depth + 1)?;
                let data_type = if inner.ty.dtype == DType::F16 { DataType::Float16 } else { DataType::Float32 };
                let shape = inner.ty.shape.clone();
                Ok(Some(Parameter { record: None, data_type, shape, elements: Elements::Computed(Box::new(inner)) }))
            }
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
    let vector_axis = match vector_axis {
        Some(axis) => {
            let axis = if axis < 0 { axis + rank as i64 } else { axis };
            Some(usize::try_from(axis).ok().filter(|a| *a < rank).with_context(|| format!("vector_axis {axis}"))?)
        }
        None => None,
    };
    ensure!(vector == 1 || vector_axis.is_some(), "entries of {vector} elements without a vector_axis");
    if let Some(axis) = vector_axis {
        shape[axis] *= vector;
    }
    let ty = TensorType::new(float(lut.data_type)?, shape);
    Ok(Compressed { kind: Kind::Lut { indices, lut, vector_axis }, ty })
}

fn shift_scale<'p>(data: Parameter<'p>, scale: Parameter<'p>, offset: Option<Parameter<'p>>) -> Result<Compressed<'p>> {
    divides(&data.shape, &scale.shape, "a scale")?;
    if let Some(offset) = &offset {
        ensure!(offset.shape == scale.shape, "an offset of shape {:?}, a scale of {:?}", offset.shape, scale.shape);
    }
    let ty = TensorType::new(float(scale.data_type)?, data.shape.clone());
    Ok(Compressed { kind: Kind::ShiftScale { data, scale, offset }, ty })
}

impl Parameter<'_> {
    /// The elements as numbers.
    fn numbers(&self) -> Result<Vec<f32>> {
        let bytes = match &self.elements {
            Elements::Computed(inner) => return inner.numbers(),
            Elements::Packed(bytes) => bytes,
        };
        let floats = |dtype| {
            let tensor = Tensor::from_le_bytes(&TensorType::new(dtype, self.shape.clone()), bytes);
            Ok(tensor.context("too few bytes")?.data.iter().map(|x| *x as f32).collect())
        };
        match self.data_type {
            DataType::Float16 => floats(DType::F16),
            DataType::Float32 => floats(DType::F32),
            DataType::Int32 => floats(DType::I32),
            DataType::Int8 => Ok(bytes.iter().map(|b| f32::from(*b as i8)).collect()),
            // The sign of four bits is the highest of them.
            DataType::Int4 => Ok(self.codes()?.into_iter().map(|c| f32::from((c << 4) as i8 >> 4)).collect()),
            _ => Ok(self.codes()?.into_iter().map(f32::from).collect()),
        }
    }

    /// Unsigned elements of at most eight bits, lowest bit first.
    fn codes(&self) -> Result<Vec<u8>> {
        let Elements::Packed(bytes) = &self.elements else { bail!("computed indices") };
        let bits = match self.data_type.bits() {
            Some(bits) if bits <= 8 => bits as usize,
            _ => bail!("elements of type {:?}", self.data_type),
        };
        let n = self.shape.iter().product();
        let mut codes = Vec::with_capacity(n);
        let (mut window, mut held) = (0u32, 0);
        let mut bytes = bytes.iter();
        for _ in 0..n {
            if held < bits {
                window |= u32::from(*bytes.next().context("too few bytes")?) << held;
                held += 8;
            }
            codes.push((window & ((1 << bits) - 1)) as u8);
            window >>= bits;
            held -= bits;
        }
        Ok(codes)
    }

    /// The one number of an axis.
    fn axis(&self) -> Result<i64> {
        match self.numbers()?[..] {
            [axis] => Ok(axis as i64),
            _ => bail!("vector_axis of shape {:?}", self.shape),
        }
    }
}

/// A compressed weight as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWeight {
    /// The scheme of this compiler that stores a weight this way.
    pub scheme: Scheme,
    /// The weight source's name of the record with the codes: weights of two functions that share it are one.
    pub codes: String,
}

impl Package {
    /// How the weight is stored that [`crate::coreml::raise`] loads as `name`; `None` for one that is stored whole, or in no scheme of this
    /// compiler.
    #[must_use]
    pub fn stored(&self, name: &str) -> Option<StoredWeight> {
        let (function, value) = name.split_once('%')?;
        let found = self.compressed(function, value).ok()?;
        let (scheme, codes) = match &found.kind {
            Kind::Lut { indices, lut, vector_axis: None } => {
                let rank = indices.shape.len();
                let (groups, others) = lut.shape[..rank].split_first()?;
                let group = (*groups > 1).then_some(indices.shape[0] / groups);
                let bits = u8::try_from(indices.data_type.bits()?).ok()?;
                others.iter().all(|n| *n == 1).then_some((Scheme::Palette { bits, group }, indices))?
            }
            Kind::ShiftScale { data, scale, offset: None } => {
                let bits = u8::try_from(data.data_type.bits()?).ok()?;
                let inputs = *scale.shape.get(1)?;
                let by_channel = scale.shape[0] == data.shape[0] && scale.shape[2..].iter().all(|n| *n == 1);
                let scheme = match (bits, inputs) {
                    (8, 1) => Scheme::Int8,
                    (4 | 8, blocks) => Scheme::Block { bits, block: data.shape[1] / blocks },
                    _ => return None,
                };
                by_channel.then_some((scheme, data))?
            }
            _ => return None,
        };
        Some(StoredWeight { scheme, codes: super::record_name(codes.record?) })
    }
}

impl Compressed<'_> {
    /// The weight, little-endian.
    pub(in crate::coreml) fn bytes(&self) -> Result<Vec<u8>> {
        let numbers = self.numbers()?;
        Ok(match self.ty.dtype {
            DType::F16 => numbers.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect(),
            _ => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        })
    }

    fn numbers(&self) -> Result<Vec<f32>> {
        match &self.kind {
            Kind::Lut { indices, lut, vector_axis } => {
                let rank = indices.shape.len();
                let (entries, vector) = (lut.shape[rank], lut.shape[rank + 1]);
                let (codes, table) = (indices.codes()?, lut.numbers()?);
                let runs = Runs::new(&indices.shape, &lut.shape[..rank]);
                let mut out = vec![0.0; codes.len() * vector];
                // The elements of an entry lie along the vector's axis.
                let inner: usize = vector_axis.map_or(1, |a| indices.shape[a + 1..].iter().product());
                for (run, codes) in codes.chunks(runs.len).enumerate() {
                    let palette = &table[runs.part(run) * entries * vector..];
                    for (i, code) in codes.iter().enumerate() {
                        let at = run * runs.len + i;
                        let entry = &palette[usize::from(*code) * vector..][..vector];
                        for (j, x) in entry.iter().enumerate() {
                            out[at / inner * inner * vector + j * inner + at % inner] = *x;
                        }
                    }
                }
                Ok(out)
            }
            Kind::ShiftScale { data, scale, offset } => {
                let mut out = data.numbers()?;
                let (scales, offsets) = (scale.numbers()?, offset.as_ref().map(Parameter::numbers).transpose()?);
                let runs = Runs::new(&data.shape, &scale.shape);
                for (run, out) in out.chunks_mut(runs.len).enumerate() {
                    let part = runs.part(run);
                    let (scale, offset) = (scales[part], offsets.as_ref().map_or(0.0, |o| o[part]));
                    for x in out {
                        *x = scale * (*x - offset);
                    }
                }
                Ok(out)
            }
        }
    }
}

/// Consecutive elements that belong to one part, where each axis has some parts.
struct Runs {
    len: usize,
    /// Runs and parts along the axes up to the last one that has parts, outermost first.
    axes: Vec<(usize, usize)>,
}

impl Runs {
    fn new(shape: &[usize], parts: &[usize]) -> Runs {
        let Some(last) = parts.iter().rposition(|p| *p > 1) else {
            return Runs { len: shape.iter().product::<usize>().max(1), axes: Vec::new() };
        };
        let mut axes: Vec<(usize, usize)> = shape.iter().copied().zip(parts.iter().copied()).take(last + 1).collect();
        axes[last].0 = parts[last];
        Runs { len: shape[last..].iter().product::<usize>() / parts[last], axes }
    }

    /// The part that a run belongs to.
    fn part(&self, run: usize) -> usize {
        let (mut part, mut run, mut stride) = (0, run, 1);
        for (runs, parts) in self.axes.iter().rev() {
            part += run % runs / (runs / parts) * stride;
            run /= runs;
            stride *= parts;
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_follow_the_parts_of_each_axis() {
        let parts = |shape: &[usize], parts: &[usize]| {
            let runs = Runs::new(shape, parts);
            let n: usize = shape.iter().product();
            (0..n).map(|i| runs.part(i / runs.len)).collect::<Vec<_>>()
        };
        assert_eq!(parts(&[2, 2], &[1, 1]), [0; 4]);
        assert_eq!(parts(&[4, 2], &[2, 1]), [0, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(parts(&[2, 4], &[2, 2]), [0, 0, 1, 1, 2, 2, 3, 3]);
        assert_eq!(parts(&[4, 4], &[2, 2]), [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]);
        assert_eq!(parts(&[2, 2, 2], &[1, 2, 1]), [0, 0, 1, 1, 0, 0, 1, 1]);
    }
}
