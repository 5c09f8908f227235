//! Constants: immediate values and records of the weight file.

use std::borrow::Cow;

use anyhow::{Context, Result, bail};
use s2dit_ir::ops::Load;
use s2dit_ir::{DType, Tensor, TensorType, ValueId, WeightSource};

use super::Raise;
use super::types::tensor_type;
use crate::coreml::proto::{Operation, TensorValues, Value, binding, value, value_type};
use crate::coreml::read::{WEIGHTS, record_name};

/// A MIL constant.
#[derive(Clone, Debug)]
pub(super) enum Constant {
    /// Numbers of a type that the IR has. Bools are 0 and 1.
    Numbers(TensorType, Vec<f64>),
    /// A record of the weight file.
    Stored(TensorType, String),
    /// Strings.
    Text(Vec<String>),
    /// The tensor that it became when an op first used it.
    Value(Box<Constant>, ValueId),
}

impl Constant {
    /// The text of an immediate string.
    pub(super) fn immediate_text(v: &Value) -> Option<String> {
        let Some(value::Value::ImmediateValue(i)) = &v.value else { return None };
        match i.tensor.as_ref()?.value.as_ref()? {
            TensorValues::Strings(s) => s.values.first().cloned(),
            _ => None,
        }
    }
}

/// The field of an immediate value that holds elements of a type.
fn field_for(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "floats",
        DType::I32 | DType::I16 | DType::U16 => "ints",
        DType::Bool => "bools",
        _ => "bytes",
    }
}

fn field_of(values: &TensorValues) -> &'static str {
    match values {
        TensorValues::Floats(_) => "floats",
        TensorValues::Ints(_) => "ints",
        TensorValues::Bools(_) => "bools",
        TensorValues::Strings(_) => "strings",
        TensorValues::LongInts(_) => "longInts",
        TensorValues::Doubles(_) => "doubles",
        TensorValues::Bytes(_) => "bytes",
    }
}

impl Raise<'_, '_> {
    /// A `const` op.
    pub(super) fn constant(&mut self, op: &Operation) -> Result<()> {
        let output = op.outputs.first().context("a constant without a result")?;
        let value = op.attributes.get("val").context("a constant without the attribute `val`")?;
        let declared = output.r#type.as_ref();
        if declared != value.r#type.as_ref() {
            bail!("the constant's value has another type than the constant");
        }
        let constant = self.parse(value)?;
        self.claim(&output.name)?;
        self.constants.insert(output.name.clone(), constant);
        Ok(())
    }

    /// A value written in place.
    pub(super) fn parse(&self, v: &Value) -> Result<Constant> {
        let Some(value_type::Type::TensorType(t)) = v.r#type.as_ref().and_then(|t| t.r#type.as_ref()) else {
            bail!("expected a constant tensor");
        };
        match v.value.as_ref().context("a constant without a value")? {
            value::Value::ImmediateValue(i) => {
                let values =
                    i.tensor.as_ref().and_then(|t| t.value.as_ref()).context("an immediate that is not a tensor")?;
                if let TensorValues::Strings(s) = values {
                    return Ok(Constant::Text(s.values.clone()));
                }
                let ty = tensor_type(t)?;
                let field = field_of(values);
                if field != field_for(ty.dtype) {
                    bail!("elements of {ty} in the field `{field}`, expected `{}`", field_for(ty.dtype));
                }
                let numbers: Vec<f64> = match values {
                    TensorValues::Floats(v) => v.values.iter().map(|x| f64::from(*x)).collect(),
                    TensorValues::Ints(v) => v.values.iter().map(|x| f64::from(*x)).collect(),
                    TensorValues::Bools(v) => v.values.iter().map(|x| f64::from(u8::from(*x))).collect(),
                    TensorValues::Bytes(v) => {
                        let tensor = Tensor::from_le_bytes(&ty, &v.values)
                            .with_context(|| format!("{} bytes for {ty}", v.values.len()))?;
                        tensor.data.iter().copied().collect()
                    }
                    _ => bail!("elements in the field `{field}`"),
                };
                if numbers.len() != ty.elements() {
                    bail!("{} values for {ty}", numbers.len());
                }
                Ok(Constant::Numbers(ty, numbers))
            }
            value::Value::BlobFileValue(blob) => {
                if blob.file_name != WEIGHTS {
                    bail!("found weight file `{}`, expected `{WEIGHTS}`", blob.file_name);
                }
                let ty = tensor_type(t)?;
                let file = self.package.weights().context("the package has no weights/weight.bin")?;
                let record = file.record(blob.offset)?;
                if record.dtype != Some(ty.dtype) || record.size != ty.bytes() as u64 {
                    bail!(
                        "`{}`, record at offset {}: found {} and {} bytes, expected {ty} ({} bytes)",
                        file.path().display(),
                        blob.offset,
                        record.type_name(),
                        record.size,
                        ty.bytes()
                    );
                }
                Ok(Constant::Stored(ty, record_name(blob.offset)))
            }
        }
    }

    /// The IR value of a name: an op's result, an input, or a constant that becomes a tensor now.
    pub(super) fn value(&mut self, name: &str) -> Result<ValueId> {
        if let Some(&v) = self.values.get(name) {
            return Ok(v);
        }
        let constant = self.constants.get(name).with_context(|| format!("`{name}` is not defined above"))?.clone();
        let v = match &constant {
            Constant::Value(_, v) => return Ok(*v),
            _ => self.tensor(&constant).with_context(|| format!("constant `{name}`"))?,
        };
        if self.b.f.node(v).name.is_none() && self.depth == 0 {
            self.b.f.set_name(v, name);
        }
        self.constants.insert(name.into(), Constant::Value(Box::new(constant), v));
        Ok(v)
    }

    pub(super) fn tensor(&mut self, constant: &Constant) -> Result<ValueId> {
        Ok(match constant {
            Constant::Numbers(ty, values) => self.literal(ty, values)?,
            Constant::Stored(ty, record) => self.b.f.add_leaf(Load { tensor: record.clone() }.into(), ty, "")?,
            Constant::Text(_) => bail!("a string is not a tensor"),
            Constant::Value(_, v) => *v,
        })
    }

    /// A tensor of these numbers. Literals are finite, so infinities and NaN are quotients by zero.
    pub(super) fn literal(&mut self, ty: &TensorType, values: &[f64]) -> Result<ValueId> {
        if values.iter().all(|x| x.is_finite()) {
            return Ok(self.b.literal(ty, values.to_vec())?);
        }
        let over = |x: &f64| match *x {
            x if x.is_finite() => (x, 1.0),
            x if x.is_nan() => (0.0, 0.0),
            x => (x.signum(), 0.0),
        };
        let (numerators, denominators) = values.iter().map(over).unzip();
        let numerators = self.b.literal(ty, numerators)?;
        let denominators = self.b.literal(ty, denominators)?;
        Ok(self.b.div(numerators, denominators)?)
    }

    /// The numbers of a constant.
    pub(super) fn numbers(&self, constant: &Constant) -> Result<Vec<f64>> {
        Ok(match constant {
            Constant::Numbers(_, values) => values.clone(),
            Constant::Stored(ty, record) => {
                let bytes: Cow<[u8]> = self.package.bytes(record)?;
                let tensor = Tensor::from_le_bytes(ty, &bytes).context("a record of another size")?;
                tensor.data.iter().copied().collect()
            }
            Constant::Value(inner, _) => self.numbers(inner)?,
            Constant::Text(_) => bail!("expected numbers, found a string"),
        })
    }

    /// The constant that a binding names or holds. A value that an op computes is computed now.
    pub(super) fn bound_constant(&self, b: &binding::Binding) -> Result<Constant> {
        let name = match b {
            binding::Binding::Name(name) => name,
            binding::Binding::Value(v) => return self.parse(v),
        };
        if let Some(constant) = self.constants.get(name) {
            return Ok(constant.clone());
        }
        let v = *self.values.get(name).with_context(|| format!("`{name}` is not defined above"))?;
        let known = self.known(v)?;
        Ok(Constant::Numbers(self.b.f.ty(v).clone(), known.data.iter().copied().collect()))
    }
}
