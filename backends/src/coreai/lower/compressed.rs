//! Compressed weights: codes and tables as resources, put together by an op.

use anyhow::{Context, Result};
use s2dit_ir::ValueId;
use s2dit_ir::compress::{Scheme, packed_len};

use super::super::block::{dense, tensor};
use super::super::op;
use super::super::program::{Attribute, Element, Value};
use super::constants::Piece;
use super::{Lowering, element_of};

impl Lowering<'_> {
    /// The compressed weight `v`; its errors call it `name`.
    pub(super) fn compressed(&mut self, v: ValueId, name: &str, scheme: Scheme) -> Result<Value> {
        let ty = self.f.ty(v).clone();
        let runs = scheme.runs(&ty.shape).with_context(|| format!("weight `{name}`"))?;
        let element = element_of(ty.dtype);
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
        let codes = code_type(scheme);
        let code_bytes = packed_len(ty.elements(), scheme.bits()) as u64;
        let table_bytes = (runs.count * runs.entries * ty.dtype.size()) as u64;
        let data = self.piece(v, name, Piece::Codes, code_bytes, tensor(&ty.shape, codes));
        let table = self.piece(v, name, Piece::Table, table_bytes, tensor(&table_shape, element));
        let result = tensor(&ty.shape, element);
        Ok(match scheme {
            Scheme::Palette { .. } => {
                // Entries are single numbers.
                let axis =
                    self.shared("lut axis".into(), |b| b.constant(tensor(&[], Element::Si16), dense(vec![0; 2], 2)));
                self.emit(op::LUT_TO_DENSE, &[data, table, axis], result)
            }
            Scheme::Int8 | Scheme::Block { .. } => {
                let no_shift = |size| Attribute::Dense { splat: true, bytes: vec![0; size] };
                let of_codes = self.block.constant(tensor(&table_shape, codes), no_shift(1));
                let of_numbers = self.block.constant(tensor(&table_shape, element), no_shift(ty.dtype.size()));
                self.emit(op::BLOCKWISE_SHIFT_SCALE, &[data, table, of_codes, of_numbers], result)
            }
        })
    }
}

fn code_type(scheme: Scheme) -> Element {
    match (scheme, scheme.bits()) {
        (Scheme::Palette { .. }, 1) => Element::Ui1,
        (Scheme::Palette { .. }, 2) => Element::Ui2,
        (Scheme::Palette { .. }, 3) => Element::Ui3,
        (Scheme::Palette { .. }, 4) => Element::Ui4,
        (Scheme::Palette { .. }, 6) => Element::Ui6,
        (Scheme::Palette { .. }, _) => Element::Ui8,
        (_, 4) => Element::Si4,
        _ => Element::Si8,
    }
}
