//! Compressed weights in standard ops: integers by `DequantizeLinear`, palettes by bit planes and `Gather`.
//!
//! ONNX has no types of 1, 3 or 6 bits, so palette indices are stored as bytes that hold 8, 4, 2 or 1 bits of 1, 2, 4 or 8
//! indices, lowest first (3 bits are 2 + 1, 6 bits are 4 + 2):
//!
//! ```text
//! bytes [n/2, 1] ─BitShift→ [n/2, 2] ─BitwiseAnd→ Cast → Reshape [groups, n/groups] ─┐
//! 16 · [0, 1, …]ᵀ [groups, 1] ────────────────────────────────────────────────── Add ┴┐
//! palettes [groups · 16] ───────────────────────────────────────────────────── Gather ┴→ Reshape → the weight
//! ```

use anyhow::{Context, Result};
use s2dit_ir::compress::Scheme;
use s2dit_ir::{DType, ValueId};

use super::super::proto::{TensorProto, data_type};
use super::{Constant, Lowering, Piece, int, string, value_info};

impl Lowering<'_> {
    /// Emits the nodes that give the compressed weight `v` the name `name`.
    pub(super) fn compressed(&mut self, v: ValueId, name: &str, scheme: Scheme) -> Result<()> {
        let f = self.f;
        let shape = f.shape(v).to_vec();
        let runs = scheme.runs(&shape).with_context(|| format!("weight `{name}`"))?;
        self.graph.value_info.push(value_info(name, f.ty(v)));
        match scheme {
            Scheme::Int8 => {
                let codes = self.piece(name, "int8", v, Piece::Integers { dims: shape });
                let scale = self.piece(name, "scale", v, Piece::Table { dims: vec![runs.count] });
                self.push("DequantizeLinear", &[codes, scale], name.to_string(), vec![int("axis", 0)]);
            }
            Scheme::Block { bits, block } => {
                // As a matrix: a block of input channels with their kernel positions is one run of a row.
                let matrix = vec![shape[0], shape[1..].iter().product()];
                let codes = self.piece(name, &format!("int{bits}"), v, Piece::Integers { dims: matrix.clone() });
                let dims = vec![shape[0], shape[1] / block];
                let scale = self.piece(name, "scale", v, Piece::Table { dims });
                let attributes = vec![int("axis", 1), int("block_size", runs.len as i64)];
                if matrix == shape {
                    self.push("DequantizeLinear", &[codes, scale], name.to_string(), attributes);
                } else {
                    let flat = self.step("DequantizeLinear", &[codes, scale], attributes);
                    let shape = self.ints(&shape);
                    self.push("Reshape", &[flat, shape], name.to_string(), vec![]);
                }
            }
            Scheme::Palette { bits, .. } => {
                let indices = self.indices(v, name, bits, runs.count * runs.len);
                let palettes = self.piece(name, "palettes", v, Piece::Table { dims: vec![runs.count * runs.entries] });
                let indices = self.step("Cast", &[indices], vec![int("to", i64::from(data_type(DType::I32)))]);
                let rows = self.ints(&[runs.count, runs.len]);
                let mut indices = self.step("Reshape", &[indices, rows], vec![]);
                if runs.count > 1 {
                    let starts = self.starts(runs.count, runs.entries);
                    indices = self.step("Add", &[indices, starts], vec![]);
                }
                let flat = self.step("Gather", &[palettes, indices], vec![int("axis", 0)]);
                let shape = self.ints(&shape);
                self.push("Reshape", &[flat, shape], name.to_string(), vec![]);
            }
        }
        Ok(())
    }

    /// `elements` indices as uint8, from the planes that they are stored in.
    fn indices(&mut self, v: ValueId, name: &str, bits: u8, elements: usize) -> String {
        let planes: &[(u8, u8)] = match bits {
            3 => &[(0, 2), (2, 1)],
            6 => &[(0, 4), (4, 2)],
            _ => &[(0, bits)],
        };
        let mut sum: Option<String> = None;
        for &(low, bits) in planes {
            let label = if planes.len() == 1 { "indices".into() } else { format!("indices_{low}") };
            let bytes = self.piece(name, &label, v, Piece::Plane { low, bits });
            let mut plane = self.unpacked(bytes, bits, elements);
            if low > 0 {
                let by = self.bytes(&[low]);
                plane = self.step("BitShift", &[plane, by], vec![string("direction", "LEFT")]);
            }
            sum = Some(match sum {
                Some(below) => self.step("BitwiseOr", &[below, plane], vec![]),
                None => plane,
            });
        }
        sum.unwrap_or_default()
    }

    /// The numbers of `bits` bits that bytes hold, lowest first, in one row.
    fn unpacked(&mut self, bytes: String, bits: u8, elements: usize) -> String {
        if bits == 8 {
            return bytes;
        }
        let in_byte = 8 / bits;
        let shifts: Vec<u8> = (0..in_byte).map(|i| i * bits).collect();
        let shifts = self.bytes(&shifts);
        let mask = self.bytes(&[(1 << bits) - 1]);
        let shifted = self.step("BitShift", &[bytes, shifts], vec![string("direction", "RIGHT")]);
        let numbers = self.step("BitwiseAnd", &[shifted, mask], vec![]);
        let held = elements.next_multiple_of(usize::from(in_byte));
        let row = self.ints(&[held]);
        let row = self.step("Reshape", &[numbers, row], vec![]);
        if held == elements {
            return row;
        }
        // The last byte is not full.
        let (from, to) = (self.ints(&[0]), self.ints(&[elements]));
        self.step("Slice", &[row, from, to], vec![])
    }

    /// A stored piece of a compressed weight; equal weights share it.
    fn piece(&mut self, name: &str, what: &str, v: ValueId, piece: Piece) -> String {
        let name = self.names.unique(&format!("{name}.{what}"));
        self.constants.push(Constant { name: name.clone(), value: v, piece });
        name
    }

    /// A few uint8 numbers.
    fn bytes(&mut self, values: &[u8]) -> String {
        let joined: Vec<String> = values.iter().map(ToString::to_string).collect();
        self.small(&format!("bytes_{}", joined.join("_")), DType::U8, &[values.len()], values.to_vec())
    }

    /// A column of int32: the index at which each palette starts.
    fn starts(&mut self, count: usize, entries: usize) -> String {
        let raw = (0..count).flat_map(|i| ((i * entries) as i32).to_le_bytes()).collect();
        self.small(&format!("starts_{count}_{entries}"), DType::I32, &[count, 1], raw)
    }

    /// A small initializer, which `wanted` describes.
    fn small(&mut self, wanted: &str, dtype: DType, dims: &[usize], raw_data: Vec<u8>) -> String {
        let key = format!("small {wanted}");
        if let Some(name) = self.by_key.get(&key) {
            return name.clone();
        }
        let name = self.names.unique(wanted);
        self.graph.initializer.push(TensorProto {
            dims: dims.iter().map(|d| *d as i64).collect(),
            data_type: data_type(dtype),
            name: name.clone(),
            raw_data: raw_data.into(),
            ..TensorProto::default()
        });
        self.by_key.insert(key, name.clone());
        name
    }
}
