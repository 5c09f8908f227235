//! `weight.bin`: MIL blob storage, version 2.
//!
//! A 64-byte header (record count, version), then records, each at a multiple of 64: a 64-byte record header (sentinel,
//! type, size in bytes, absolute offset of the data, unused bits of the last byte), then the elements. Everything is
//! little-endian; the gaps are zeros. A [`BlobLayout`] decides where everything goes before the first byte is written, so that
//! records can be written in any order.

use anyhow::Context;
use s2dit_ir::DType;

use crate::Error;

/// Records, their data and the file header are aligned to this.
pub const ALIGNMENT: u64 = 64;
/// First word of a record.
pub const SENTINEL: u32 = 0xDEAD_BEEF;
/// Version of the format.
pub const VERSION: u32 = 2;

/// Element type of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum BlobType {
    F16 = 1,
    F32 = 2,
    U8 = 3,
    I8 = 4,
    BF16 = 5,
    I16 = 6,
    U16 = 7,
    I4 = 8,
    U1 = 9,
    U2 = 10,
    U4 = 11,
    U3 = 12,
    U6 = 13,
    I32 = 14,
    U32 = 15,
    F8E4M3FN = 16,
    F8E5M2 = 17,
}

impl BlobType {
    /// The type that stores a dtype; there is none for `bool`, `i64` and `f64`.
    #[must_use]
    pub const fn of(dtype: DType) -> Option<BlobType> {
        Some(match dtype {
            DType::F16 => BlobType::F16,
            DType::F32 => BlobType::F32,
            DType::BF16 => BlobType::BF16,
            DType::U8 => BlobType::U8,
            DType::I8 => BlobType::I8,
            DType::I16 => BlobType::I16,
            DType::U16 => BlobType::U16,
            DType::I32 => BlobType::I32,
            DType::U32 => BlobType::U32,
            DType::F64 | DType::I64 | DType::Bool => return None,
        })
    }

    /// Bits of one element.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            BlobType::U1 => 1,
            BlobType::U2 => 2,
            BlobType::U3 => 3,
            BlobType::I4 | BlobType::U4 => 4,
            BlobType::U6 => 6,
            BlobType::U8 | BlobType::I8 | BlobType::F8E4M3FN | BlobType::F8E5M2 => 8,
            BlobType::F16 | BlobType::BF16 | BlobType::I16 | BlobType::U16 => 16,
            BlobType::F32 | BlobType::I32 | BlobType::U32 => 32,
        }
    }
}

/// Elements of fewer than 8 bits one after the other, lowest bit first, across byte borders. Signed elements are given as
/// two's complement; bits above the element's are ignored.
#[must_use]
pub fn pack_bits(elements: &[u8], bits: u32) -> Vec<u8> {
    let mut out = vec![0u8; (elements.len() * bits as usize).div_ceil(8)];
    for (i, &element) in elements.iter().enumerate() {
        for bit in 0..bits as usize {
            let at = i * bits as usize + bit;
            out[at / 8] |= (element >> bit & 1) << (at % 8);
        }
    }
    out
}

/// A record of the weight file: one constant's type, size and place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Offset of the record's header: the number that a `BlobFileValue` holds.
    pub offset: u64,
    /// Element type.
    pub ty: BlobType,
    /// Bytes of data.
    pub bytes: u64,
    /// Unused high bits of the last byte.
    pub padding_bits: u32,
}

impl Record {
    /// The record's header, which goes to [`Record::offset`].
    #[must_use]
    pub fn header(&self) -> [u8; ALIGNMENT as usize] {
        let mut header = [0; ALIGNMENT as usize];
        header[..4].copy_from_slice(&SENTINEL.to_le_bytes());
        header[4..8].copy_from_slice(&(self.ty as u32).to_le_bytes());
        header[8..16].copy_from_slice(&self.bytes.to_le_bytes());
        header[16..24].copy_from_slice(&self.data().to_le_bytes());
        header[24..32].copy_from_slice(&u64::from(self.padding_bits).to_le_bytes());
        header
    }

    /// Offset of the first byte of data.
    #[must_use]
    pub const fn data(&self) -> u64 {
        self.offset + ALIGNMENT
    }
}

/// The places of all records in the weight file.
#[derive(Clone, Debug)]
pub struct BlobLayout {
    records: Vec<Record>,
    end: u64,
}

impl Default for BlobLayout {
    fn default() -> Self {
        BlobLayout { records: Vec::new(), end: ALIGNMENT }
    }
}

impl BlobLayout {
    /// Appends a record and returns it.
    pub fn push(&mut self, ty: BlobType, elements: u64) -> Record {
        let bits = elements * u64::from(ty.bits());
        let bytes = bits.div_ceil(8);
        let padding_bits = (bytes * 8 - bits) as u32;
        let record = Record { offset: self.end.next_multiple_of(ALIGNMENT), ty, bytes, padding_bits };
        self.end = record.offset + ALIGNMENT + bytes;
        self.records.push(record);
        record
    }

    /// The file's header, which goes to its beginning.
    ///
    /// # Errors
    /// More than 2^32 records.
    pub fn header(&self) -> Result<[u8; ALIGNMENT as usize], Error> {
        let count = u32::try_from(self.records.len()).context("too many weights for one file");
        let count = count.map_err(Error::writing)?;
        let mut header = [0; ALIGNMENT as usize];
        header[..4].copy_from_slice(&count.to_le_bytes());
        header[4..8].copy_from_slice(&VERSION.to_le_bytes());
        Ok(header)
    }

    /// The records, in file order.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Bytes of the file; without records there is none.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        if self.records.is_empty() { 0 } else { self.end }
    }

    /// Bytes of data, without headers and gaps.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.records.iter().map(|r| r.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(records: &[(BlobType, u64, &[u8])]) -> Vec<u8> {
        let mut layout = BlobLayout::default();
        for (ty, elements, _) in records {
            layout.push(*ty, *elements);
        }
        let mut file = vec![0; layout.file_bytes() as usize];
        let mut put = |at: u64, bytes: &[u8]| file[at as usize..][..bytes.len()].copy_from_slice(bytes);
        put(0, &layout.header().unwrap());
        for ((_, _, bytes), record) in records.iter().zip(layout.records()) {
            assert_eq!(record.bytes, bytes.len() as u64);
            put(record.offset, &record.header());
            put(record.data(), bytes);
        }
        file
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let bytes = file(&[(BlobType::F16, 3, &[1, 2, 3, 4, 5, 6]), (BlobType::F32, 1, &[7, 8, 9, 10])]);
        let mut expected = vec![0; 64 + 64 + 64 + 64 + 4];
        expected[0] = 2;
        expected[4] = 2;
        expected[64..72].copy_from_slice(&[0xEF, 0xBE, 0xAD, 0xDE, 1, 0, 0, 0]);
        expected[72] = 6;
        expected[80] = 128;
        expected[128..134].copy_from_slice(&[1, 2, 3, 4, 5, 6]);
        expected[192..200].copy_from_slice(&[0xEF, 0xBE, 0xAD, 0xDE, 2, 0, 0, 0]);
        expected[200] = 4;
        expected[208..210].copy_from_slice(&[0, 1]);
        expected[256..].copy_from_slice(&[7, 8, 9, 10]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn small_elements_are_packed_across_bytes() {
        let i4: Vec<u8> = [-8i8, 7, 1].iter().map(|&v| v as u8).collect();
        let cases: [(BlobType, &[u8], &[u8], u64); 3] = [
            (BlobType::I4, &i4, &[0x78, 0x01], 4),
            (BlobType::U3, &[1, 2, 3, 4, 5, 6, 7, 0, 7], &[0xd1, 0x58, 0x1f, 0x07], 5),
            (BlobType::U6, &[1, 2, 3, 63, 33], &[0x81, 0x30, 0xfc, 0x21], 2),
        ];
        for (ty, elements, packed, padding) in cases {
            assert_eq!(pack_bits(elements, ty.bits()), packed, "{ty:?}");
            let bytes = file(&[(ty, elements.len() as u64, packed)]);
            assert_eq!(bytes[68], ty as u8);
            assert_eq!(bytes[72..80], (packed.len() as u64).to_le_bytes());
            assert_eq!(bytes[88..96], padding.to_le_bytes());
            assert_eq!(bytes[128..], *packed);
        }
    }

    #[test]
    fn every_type_has_its_number_and_size() {
        let types = [
            (BlobType::F16, 1, 16),
            (BlobType::F32, 2, 32),
            (BlobType::U8, 3, 8),
            (BlobType::I8, 4, 8),
            (BlobType::BF16, 5, 16),
            (BlobType::I16, 6, 16),
            (BlobType::U16, 7, 16),
            (BlobType::I4, 8, 4),
            (BlobType::U1, 9, 1),
            (BlobType::U2, 10, 2),
            (BlobType::U4, 11, 4),
            (BlobType::U3, 12, 3),
            (BlobType::U6, 13, 6),
            (BlobType::I32, 14, 32),
            (BlobType::U32, 15, 32),
            (BlobType::F8E4M3FN, 16, 8),
            (BlobType::F8E5M2, 17, 8),
        ];
        for (ty, number, bits) in types {
            assert_eq!((ty as u32, ty.bits()), (number, bits));
            // Nine elements end in the middle of a byte for every width below a byte.
            let size = (9 * bits).div_ceil(8) as usize;
            let bytes = file(&[(ty, 9, &vec![0; size])]);
            assert_eq!(bytes.len(), 128 + size);
            assert_eq!(bytes[68], number as u8);
            assert_eq!(bytes[88], (size as u32 * 8 - 9 * bits) as u8);
        }
    }
}
