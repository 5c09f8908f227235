//! Compressed weights: `constexpr` ops, whose parameters are records of the weight file.

use anyhow::{Context, Result};
use s2dit_ir::compress::Scheme;
use s2dit_ir::weights::ExpressionId;
use s2dit_ir::{DType, ValueId};

use super::super::blob::BlobType;
use super::super::proto::{Argument, Binding, DataType, Value, binding};
use super::constants::{Data, Piece};
use super::{Inputs, Lowering, value};

impl Lowering<'_> {
    /// Emits the op that gives the compressed weight `v` the name `name`; its errors call it `shown`.
    pub(super) fn compressed(&mut self, v: ValueId, name: &str, shown: &str, scheme: Scheme) -> Result<()> {
        let f = self.f;
        let ty = f.ty(v);
        let runs = scheme.runs(&ty.shape).with_context(|| format!("weight `{shown}`"))?;
        // One table entry for each run, spread over the axes that count runs.
        let mut table_shape = vec![1; ty.rank()];
        match scheme {
            Scheme::Int8 => table_shape[0] = runs.count,
            Scheme::Block { block, .. } => table_shape[..2].copy_from_slice(&[ty.shape[0], ty.shape[1] / block]),
            Scheme::Palette { .. } => {
                table_shape[0] = runs.count;
                table_shape.extend([runs.entries, 1]);
            }
        }
        let (codes_type, codes_blob) = code_types(scheme);
        let codes = self.record(v, Piece::Codes, codes_blob, ty.elements(), shown);
        let codes = value::blob(codes_type, &ty.shape, codes);
        let (table_type, table_blob) = match ty.dtype {
            DType::F16 => (DataType::Float16, BlobType::F16),
            _ => (DataType::Float32, BlobType::F32),
        };
        let table = self.record(v, Piece::Table, table_blob, runs.count * runs.entries, shown);
        let table = value::blob(table_type, &table_shape, table);
        let (op, inputs): (_, Inputs) = match scheme {
            Scheme::Palette { .. } => {
                ("constexpr_lut_to_dense", vec![("indices", in_place(codes)), ("lut", in_place(table))])
            }
            Scheme::Int8 | Scheme::Block { .. } => {
                ("constexpr_blockwise_shift_scale", vec![("data", in_place(codes)), ("scale", in_place(table))])
            }
        };
        let result = self.value_type(ty)?;
        self.push(op, name, inputs, Some(result));
        Ok(())
    }

    fn record(&mut self, v: ValueId, piece: Piece, blob: BlobType, elements: usize, shown: &str) -> u64 {
        let key = format!("{piece:?} of {}", ExpressionId::of(self.f, v));
        let data = Data::Compressed { function: self.index, value: v, piece, name: shown.into() };
        self.out.blobs.offset(key, blob, elements, data)
    }
}

fn code_types(scheme: Scheme) -> (DataType, BlobType) {
    match (scheme, scheme.bits()) {
        (Scheme::Palette { .. }, 1) => (DataType::Uint1, BlobType::U1),
        (Scheme::Palette { .. }, 2) => (DataType::Uint2, BlobType::U2),
        (Scheme::Palette { .. }, 3) => (DataType::Uint3, BlobType::U3),
        (Scheme::Palette { .. }, 4) => (DataType::Uint4, BlobType::U4),
        (Scheme::Palette { .. }, 6) => (DataType::Uint6, BlobType::U6),
        (Scheme::Palette { .. }, _) => (DataType::Uint8, BlobType::U8),
        (_, 4) => (DataType::Int4, BlobType::I4),
        _ => (DataType::Int8, BlobType::I8),
    }
}

/// `constexpr` ops have their parameters in place.
fn in_place(value: Value) -> Argument {
    Argument { arguments: vec![Binding { binding: Some(binding::Binding::Value(value)) }] }
}
