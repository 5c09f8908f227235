//! Constants: small ones in the model, large ones as records of the weight file.

use std::collections::HashMap;

use anyhow::{Context, Result};
use s2dit_ir::weights::{self, ExpressionId};
use s2dit_ir::{DType, Function, ValueId, WeightSource};

use super::super::blob::{BlobLayout, BlobType};
use super::super::proto::Value;
use super::value;
use crate::held;

/// Constants of this many elements go to the weight file: coremltools' rule, which Core ML is used to.
const BLOB_ELEMENTS: usize = 10;

/// The contents of a record.
pub(in super::super) enum Data {
    /// A constant of one of the functions; its errors name it so.
    Value { function: usize, value: ValueId, name: String },
    /// A piece of a compressed weight of one of the functions.
    Compressed { function: usize, value: ValueId, piece: Piece, name: String },
    /// Bytes as they are.
    Bytes(Vec<u8>),
}

/// The records of a compressed weight, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Piece {
    /// One an element.
    Codes,
    /// Scales or palettes.
    Table,
}

/// The weight file, planned: each different constant once, whichever functions use it, in order of first use.
#[derive(Default)]
pub(in super::super) struct Blobs {
    pub layout: BlobLayout,
    /// One entry a record.
    pub data: Vec<Data>,
    by_key: HashMap<String, u64>,
}

impl Blobs {
    /// Where the record of this key is, which `data` fills.
    pub(super) fn offset(&mut self, key: String, ty: BlobType, elements: usize, data: Data) -> u64 {
        *self.by_key.entry(key).or_insert_with(|| {
            self.data.push(data);
            self.layout.push(ty, elements as u64).offset
        })
    }

    /// The constant `v` of function number `function`. `name` is for errors.
    pub(super) fn value(
        &mut self,
        f: &Function,
        function: usize,
        v: ValueId,
        name: &str,
        source: &dyn WeightSource,
        summary: &mut Vec<(String, u64)>,
    ) -> Result<Value> {
        let ty = f.ty(v);
        let data_type = value::data_type(ty.dtype)
            .with_context(|| format!("constant `{name}`: Core ML has no constants of type {}", ty.dtype))?;
        match BlobType::of(ty.dtype) {
            Some(blob) if ty.elements() >= BLOB_ELEMENTS => {
                let data = Data::Value { function, value: v, name: name.into() };
                let offset = self.offset(ExpressionId::of(f, v).to_string(), blob, ty.elements(), data);
                Ok(value::blob(data_type, &ty.shape, offset))
            }
            _ => {
                let mut bytes = Vec::with_capacity(ty.bytes());
                let written = weights::write_constant(f, v, source, &mut bytes)
                    .with_context(|| format!("cannot compute the constant `{name}`"))?;
                held::check(name, ty.dtype, &written, summary)?;
                Ok(value::dense(data_type, &ty.shape, &bytes))
            }
        }
    }

    /// A constant that the lowering makes up, from its little-endian elements.
    pub(super) fn made(&mut self, dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Result<Value> {
        let data_type = value::data_type(dtype).with_context(|| format!("Core ML has no constants of type {dtype}"))?;
        let elements = shape.iter().product::<usize>();
        match BlobType::of(dtype) {
            Some(blob) if elements >= BLOB_ELEMENTS => {
                let key = format!("{dtype}{shape:?}{}", blake3::hash(&bytes).to_hex());
                let offset = self.offset(key, blob, elements, Data::Bytes(bytes));
                Ok(value::blob(data_type, shape, offset))
            }
            _ => Ok(value::dense(data_type, shape, &bytes)),
        }
    }
}
