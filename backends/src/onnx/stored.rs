//! Initializers: what of a weight they hold, their types, their bytes.

use std::io::Write;

use s2dit_ir::compress::{Compressed, pack, packed_len};
use s2dit_ir::weights::ExpressionId;
use s2dit_ir::weights::{self, Written};
use s2dit_ir::{DType, Function, Op, TensorType, ValueId, WeightError, WeightSource};

use super::proto::{INT4, TensorProto, data_type};

/// An initializer that a weight expression fills.
#[derive(Clone, Debug)]
pub(super) struct Constant {
    /// Name of the initializer.
    pub name: String,
    /// Value of the function.
    pub value: ValueId,
    /// The piece of the value that the initializer holds.
    pub piece: Piece,
}

/// The piece of a value that an initializer holds. All variants but the whole belong to a compressed weight.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    /// The elements.
    Whole,
    /// Integer codes.
    Integers { dims: Vec<usize> },
    /// `bits` bits from `low` on of each index, packed into bytes.
    Plane { low: u8, bits: u8 },
    /// Scales or palettes.
    Table { dims: Vec<usize> },
}

impl Constant {
    /// Dimensions and ONNX data type.
    fn dims(&self, f: &Function) -> (Vec<usize>, i32) {
        let ty = f.ty(self.value);
        match &self.piece {
            Piece::Whole => (ty.shape.clone(), data_type(ty.dtype)),
            Piece::Integers { dims } => {
                (dims.clone(), if code_bits(f, self.value) == 4 { INT4 } else { data_type(DType::I8) })
            }
            Piece::Plane { bits: 8, .. } => (vec![ty.elements()], data_type(DType::U8)),
            Piece::Plane { bits, .. } => (vec![packed_len(ty.elements(), *bits), 1], data_type(DType::U8)),
            Piece::Table { dims } => (dims.clone(), data_type(ty.dtype)),
        }
    }

    /// Bytes of the elements.
    pub(super) fn bytes(&self, f: &Function) -> u64 {
        let ty = f.ty(self.value);
        let bytes = match &self.piece {
            Piece::Whole => ty.bytes(),
            Piece::Integers { .. } => packed_len(ty.elements(), code_bits(f, self.value)),
            Piece::Plane { bits, .. } => packed_len(ty.elements(), *bits),
            Piece::Table { dims } => TensorType::new(ty.dtype, dims.clone()).bytes(),
        };
        bytes as u64
    }

    /// The initializer, without elements.
    pub(super) fn tensor(&self, f: &Function) -> TensorProto {
        let (dims, data_type) = self.dims(f);
        let dims = dims.into_iter().map(|d| d as i64).collect();
        TensorProto { dims, data_type, name: self.name.clone(), ..TensorProto::default() }
    }

    /// Two initializers with one key hold the same bytes.
    pub(super) fn key(&self, f: &Function) -> String {
        format!("{:?} {}", self.piece, ExpressionId::of(f, self.value))
    }
}

fn code_bits(f: &Function, v: ValueId) -> u8 {
    match f.op(v) {
        Op::Compress(c) => c.scheme.bits(),
        _ => 8,
    }
}

/// Writes initializers. Parts of one weight that follow each other are computed once.
#[derive(Default)]
pub(super) struct Filler {
    last: Option<(ExpressionId, Compressed)>,
}

impl Filler {
    /// Writes the elements of an initializer.
    ///
    /// # Errors
    /// See [`weights::write_constant`].
    pub(super) fn write(
        &mut self,
        f: &Function,
        constant: &Constant,
        source: &dyn WeightSource,
        out: &mut dyn Write,
    ) -> Result<Written, WeightError> {
        let v = constant.value;
        if matches!(constant.piece, Piece::Whole) {
            return weights::write_constant(f, v, source, out);
        }
        let key = ExpressionId::of(f, v);
        let weight = match self.last.take() {
            Some((last, weight)) if last == key => weight,
            _ => weights::compressed(f, v, source)?,
        };
        let bytes = match &constant.piece {
            Piece::Plane { low, bits } => {
                let plane: Vec<u8> = weight.codes.iter().map(|c| c >> low).collect();
                pack(&plane, *bits)
            }
            Piece::Table { .. } => weight.table_bytes(f.dtype(v)),
            Piece::Integers { .. } | Piece::Whole => weight.packed(),
        };
        out.write_all(&bytes)?;
        self.last = Some((key, weight));
        Ok(Written { bytes: bytes.len() as u64, ..Written::default() })
    }
}
