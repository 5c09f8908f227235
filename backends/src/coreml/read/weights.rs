//! `weight.bin`, MIL blob storage version 2, mapped.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use memmap2::Mmap;
use s2dit_ir::DType;

use crate::Error;
use crate::coreml::proto::DataType;
use crate::input::{LFS_POINTER, check_regular, is_lfs_pointer};

const SENTINEL: u32 = 0xDEAD_BEEF;
const ALIGNMENT: u64 = 64;

/// The weight file of a package.
#[derive(Debug)]
pub struct WeightFile {
    path: PathBuf,
    map: Mmap,
    count: u32,
}

/// A record of the weight file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRecord {
    /// Offset of the record in the file.
    pub offset: u64,
    /// The format's type code.
    pub code: u32,
    /// The type, if it is one that the IR has.
    pub dtype: Option<DType>,
    /// Bits of one element.
    pub bits: u32,
    /// Bytes of data.
    pub size: u64,
    /// Offset of the data in the file.
    pub data_offset: u64,
    /// Unused high bits of the last byte.
    pub padding_bits: u64,
}

impl BlobRecord {
    /// Number of elements.
    pub fn elements(&self) -> Option<usize> {
        let bits = self.size.checked_mul(8)?.checked_sub(self.padding_bits)?;
        usize::try_from(bits / u64::from(self.bits)).ok()
    }

    /// MIL's type of the elements.
    pub(in crate::coreml) fn data_type(&self) -> Option<DataType> {
        Some(match self.code {
            1 => DataType::Float16,
            2 => DataType::Float32,
            3 => DataType::Uint8,
            4 => DataType::Int8,
            8 => DataType::Int4,
            9 => DataType::Uint1,
            10 => DataType::Uint2,
            11 => DataType::Uint4,
            12 => DataType::Uint3,
            13 => DataType::Uint6,
            14 => DataType::Int32,
            _ => return None,
        })
    }

    /// The type's name in reports.
    pub fn type_name(&self) -> &'static str {
        kind(self.code).map_or("?", |(name, _, _)| name)
    }
}

/// Name, bits and IR type of a type code.
fn kind(code: u32) -> Option<(&'static str, u32, Option<DType>)> {
    Some(match code {
        1 => ("f16", 16, Some(DType::F16)),
        2 => ("f32", 32, Some(DType::F32)),
        3 => ("u8", 8, Some(DType::U8)),
        4 => ("i8", 8, Some(DType::I8)),
        5 => ("bf16", 16, Some(DType::BF16)),
        6 => ("i16", 16, Some(DType::I16)),
        7 => ("u16", 16, Some(DType::U16)),
        8 => ("i4", 4, None),
        9 => ("u1", 1, None),
        10 => ("u2", 2, None),
        11 => ("u4", 4, None),
        12 => ("u3", 3, None),
        13 => ("u6", 6, None),
        14 => ("i32", 32, Some(DType::I32)),
        15 => ("u32", 32, Some(DType::U32)),
        16 => ("f8e4m3fn", 8, None),
        17 => ("f8e5m2", 8, None),
        _ => return None,
    })
}

impl WeightFile {
    /// Maps a weight file and checks its header.
    ///
    /// # Errors
    /// A file that cannot be mapped or is no blob storage of version 2.
    pub(super) fn open(path: &Path) -> Result<WeightFile> {
        let shown = path.display();
        let file = check_regular(path).and_then(|()| File::open(path));
        let file = file.with_context(|| format!("cannot read `{shown}`"))?;
        // SAFETY: the map is read only; a file that another process shortens meanwhile ends this one with SIGBUS, as any map.
        let map = unsafe { Mmap::map(&file) }.with_context(|| format!("cannot map `{shown}`"))?;
        if is_lfs_pointer(&map) {
            bail!("`{shown}` is {LFS_POINTER}");
        }
        if map.len() < ALIGNMENT as usize {
            bail!("`{shown}`: {} bytes, but a weight file has a header of {ALIGNMENT}", map.len());
        }
        let (count, version) = (u32_at(&map, 0), u32_at(&map, 4));
        if version != 2 {
            bail!("`{shown}`: found storage version {version}, expected 2");
        }
        Ok(WeightFile { path: path.into(), map, count })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The record that starts at `offset`.
    ///
    /// # Errors
    /// No record there, or one that is damaged.
    pub(in super::super) fn record(&self, offset: u64) -> Result<BlobRecord> {
        let shown = self.path.display();
        let length = self.map.len() as u64;
        let at = |message: String| anyhow::anyhow!("`{shown}`: record at offset {offset}: {message}");
        if !offset.is_multiple_of(ALIGNMENT) {
            return Err(at(format!("expected a multiple of {ALIGNMENT}")));
        }
        if offset < ALIGNMENT || offset.checked_add(ALIGNMENT).is_none_or(|end| end > length) {
            return Err(at(format!("outside the file of {length} bytes")));
        }
        let o = offset as usize;
        let sentinel = u32_at(&self.map, o);
        if sentinel != SENTINEL {
            return Err(at(format!("found sentinel {sentinel:#010x}, expected {SENTINEL:#010x}")));
        }
        let code = u32_at(&self.map, o + 4);
        let (_, bits, dtype) = kind(code).ok_or_else(|| at(format!("unknown type code {code}")))?;
        let (size, data_offset) = (u64_at(&self.map, o + 8), u64_at(&self.map, o + 16));
        let padding_bits = u64_at(&self.map, o + 24);
        if data_offset != offset + ALIGNMENT {
            return Err(at(format!("found data at {data_offset}, expected {}", offset + ALIGNMENT)));
        }
        if data_offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(at(format!("{size} bytes of data leave the file of {length} bytes")));
        }
        if padding_bits >= 8 || size.saturating_mul(8) < padding_bits {
            return Err(at(format!("{padding_bits} padding bits")));
        }
        Ok(BlobRecord { offset, code, dtype, bits, size, data_offset, padding_bits })
    }

    /// The bytes of a record.
    pub fn data(&self, record: &BlobRecord) -> &[u8] {
        let start = record.data_offset as usize;
        self.map.get(start..start + record.size as usize).unwrap_or_default()
    }

    /// Every record, in file order.
    ///
    /// # Errors
    /// A damaged record, or a header that counts others than there are.
    pub fn records(&self) -> Result<Vec<BlobRecord>, Error> {
        self.all_records().map_err(Error::reading)
    }

    fn all_records(&self) -> Result<Vec<BlobRecord>> {
        let mut records = Vec::new();
        let mut at = ALIGNMENT;
        while at < self.map.len() as u64 {
            let record = self.record(at)?;
            at = (record.data_offset + record.size).next_multiple_of(ALIGNMENT);
            records.push(record);
        }
        if records.len() as u64 != u64::from(self.count) {
            bail!("`{}`: the header counts {} records, found {}", self.path.display(), self.count, records.len());
        }
        Ok(records)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}
