//! A weight as its scheme stores it.

use half::f16;
use rayon::prelude::*;

use super::scheme::{Scheme, packed_len};
use crate::DType;

/// A weight as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compressed {
    /// Scheme by which the codes are read.
    pub scheme: Scheme,
    /// Codes, one byte for each element, row-major: indices, or integers in two's complement.
    pub codes: Vec<u8>,
    /// fp16 bits of each run's scale or palette, run after run.
    pub table: Vec<u16>,
}

impl Compressed {
    /// The codes without unused bits: lowest bit first, across byte borders.
    pub fn packed(&self) -> Vec<u8> {
        pack(&self.codes, self.scheme.bits())
    }

    /// Scales or entries as little-endian numbers of `dtype`, fp16 or fp32.
    pub fn table_bytes(&self, dtype: DType) -> Vec<u8> {
        match dtype {
            DType::F16 => self.table.iter().flat_map(|b| b.to_le_bytes()).collect(),
            _ => self.table.iter().flat_map(|b| f16::from_bits(*b).to_f32().to_le_bytes()).collect(),
        }
    }

    /// The elements that the target computes with, in float64: table entries, or products that are rounded to `dtype`.
    pub fn decompress(&self, dtype: DType) -> Vec<f64> {
        let table: Vec<f64> = self.table.iter().map(|b| f16::from_bits(*b).to_f64()).collect();
        let entries = match self.scheme {
            Scheme::Palette { bits, .. } => 1 << bits,
            Scheme::Int8 | Scheme::Block { .. } => 1,
        };
        let len = self.codes.len() / (table.len() / entries).max(1);
        let runs = self.codes.chunks(len.max(1)).zip(table.chunks(entries));
        let mut out = Vec::with_capacity(self.codes.len());
        for (codes, table) in runs {
            match self.scheme {
                Scheme::Palette { .. } => out.extend(codes.iter().map(|c| table[usize::from(*c)])),
                // Four bits keep their sign in the byte that holds them here.
                Scheme::Int8 | Scheme::Block { .. } => {
                    out.extend(codes.iter().map(|c| dtype.round(f64::from(*c as i8) * table[0])));
                }
            }
        }
        out
    }
}

/// Codes of 1, 2, 3, 4, 6 or 8 bits one after the other, lowest bit first, across byte borders. Higher bits are dropped.
pub fn pack(codes: &[u8], bits: u8) -> Vec<u8> {
    if bits == 8 {
        return codes.to_vec();
    }
    let mut out = vec![0; packed_len(codes.len(), bits)];
    // Eight codes fill as many bytes as one has bits.
    const CHUNK: usize = 1 << 16;
    let width = usize::from(bits);
    let mask = (1u64 << bits) - 1;
    out.par_chunks_mut(CHUNK * width).zip(codes.par_chunks(CHUNK * 8)).for_each(|(out, codes)| {
        for (out, codes) in out.chunks_mut(width).zip(codes.chunks(8)) {
            let word = codes.iter().rev().fold(0u64, |word, c| word << bits | u64::from(*c) & mask);
            out.copy_from_slice(&word.to_le_bytes()[..out.len()]);
        }
    });
    out
}
