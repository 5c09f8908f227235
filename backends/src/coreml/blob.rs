//! `weight.bin`: MIL blob storage, version 2.
//!
//! A 64-byte header, then records at multiples of 64: 64 bytes that describe the data, then the data. A model refers to a
//! record by the offset of its description.

use std::io::{self, Write};

use s2dit_ir::DType;

const ALIGNMENT: u64 = 64;
const SENTINEL: u32 = 0xDEAD_BEEF;
const VERSION: u32 = 2;

/// The storage's code for an element type, or `None` if it cannot hold it.
pub fn type_code(dtype: DType) -> Option<u32> {
    match dtype {
        DType::F16 => Some(1),
        DType::F32 => Some(2),
        DType::U8 => Some(3),
        DType::I8 => Some(4),
        DType::I16 => Some(6),
        DType::U16 => Some(7),
        DType::I32 => Some(14),
        DType::U32 => Some(15),
        DType::BF16 | DType::F64 | DType::I64 | DType::Bool => None,
    }
}

/// Where records lie, known from their sizes before any of them is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    end: u64,
}

impl Default for Layout {
    fn default() -> Self {
        Layout { end: ALIGNMENT }
    }
}

impl Layout {
    /// The offset of the next record, whose data has `bytes` bytes.
    pub fn place(&mut self, bytes: u64) -> u64 {
        let offset = self.end.next_multiple_of(ALIGNMENT);
        self.end = offset + ALIGNMENT + bytes;
        offset
    }

    /// Size of the file so far.
    pub fn end(&self) -> u64 {
        self.end
    }
}

/// Writes a blob file front to back.
#[derive(Debug)]
pub struct BlobWriter<W: Write> {
    sink: W,
    layout: Layout,
    expected: u32,
    written: u32,
}

impl<W: Write> BlobWriter<W> {
    /// Writes the header of a file of `count` records.
    ///
    /// # Errors
    /// The sink's.
    pub fn new(mut sink: W, count: u32) -> io::Result<Self> {
        let mut header = [0; ALIGNMENT as usize];
        header[..4].copy_from_slice(&count.to_le_bytes());
        header[4..8].copy_from_slice(&VERSION.to_le_bytes());
        sink.write_all(&header)?;
        Ok(BlobWriter { sink, layout: Layout::default(), expected: count, written: 0 })
    }

    /// Writes one record, whose data of `bytes` bytes comes from `data`; returns its offset and what `data` returned.
    ///
    /// # Errors
    /// The sink's or `data`'s, or data of another size.
    pub fn record<T, E: From<io::Error>>(
        &mut self,
        code: u32,
        bytes: u64,
        data: impl FnOnce(&mut dyn Write) -> Result<T, E>,
    ) -> Result<(u64, T), E> {
        let gap = self.layout.end().next_multiple_of(ALIGNMENT) - self.layout.end();
        let offset = self.layout.place(bytes);
        self.sink.write_all(&[0; ALIGNMENT as usize][..gap as usize])?;

        let mut head = [0; ALIGNMENT as usize];
        head[..4].copy_from_slice(&SENTINEL.to_le_bytes());
        head[4..8].copy_from_slice(&code.to_le_bytes());
        head[8..16].copy_from_slice(&bytes.to_le_bytes());
        head[16..24].copy_from_slice(&(offset + ALIGNMENT).to_le_bytes());
        self.sink.write_all(&head)?;

        let mut exact = Exact { sink: &mut self.sink, left: bytes };
        let value = data(&mut exact)?;
        if exact.left > 0 {
            return Err(io::Error::other(format!("a record of {bytes} bytes lacks the last {}", exact.left)).into());
        }
        self.written += 1;
        Ok((offset, value))
    }

    /// Flushes the sink and gives it back with the size of the file.
    ///
    /// # Errors
    /// The sink's, or fewer or more records than announced.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        if self.written != self.expected {
            return Err(io::Error::other(format!("announced {} records, wrote {}", self.expected, self.written)));
        }
        self.sink.flush()?;
        Ok((self.sink, self.layout.end()))
    }
}

/// Takes exactly the announced number of bytes.
struct Exact<'a, W> {
    sink: &'a mut W,
    left: u64,
}

impl<W: Write> Write for Exact<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.len() as u64 > self.left {
            return Err(io::Error::other(format!("{} bytes more than the record holds", buf.len() as u64 - self.left)));
        }
        let n = self.sink.write(buf)?;
        self.left -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(writer: &mut BlobWriter<Vec<u8>>, code: u32, data: &[u8]) -> io::Result<u64> {
        writer.record(code, data.len() as u64, |out| out.write_all(data)).map(|(offset, ())| offset)
    }

    #[test]
    fn two_records_byte_for_byte() {
        let mut writer = BlobWriter::new(Vec::new(), 2).unwrap();
        assert_eq!(put(&mut writer, 4, &[0xf8, 7, 1]).unwrap(), 64);
        assert_eq!(put(&mut writer, 1, &[0, 0x3c, 0, 0xc0]).unwrap(), 192);
        let (bytes, size) = writer.finish().unwrap();

        let mut expected = Vec::new();
        expected.extend([2, 0, 0, 0, 2, 0, 0, 0]);
        expected.resize(64, 0);
        expected.extend([0xef, 0xbe, 0xad, 0xde, 4, 0, 0, 0]);
        expected.extend([3, 0, 0, 0, 0, 0, 0, 0, 128, 0, 0, 0, 0, 0, 0, 0]);
        expected.resize(128, 0);
        expected.extend([0xf8, 7, 1]);
        expected.resize(192, 0);
        expected.extend([0xef, 0xbe, 0xad, 0xde, 1, 0, 0, 0]);
        expected.extend([4, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        expected.resize(256, 0);
        expected.extend([0, 0x3c, 0, 0xc0]);
        assert_eq!(bytes, expected);
        assert_eq!(size, 260);
    }

    #[test]
    fn the_layout_is_known_beforehand() {
        let mut layout = Layout::default();
        let offsets: Vec<u64> = [3, 64, 65, 1].into_iter().map(|n| layout.place(n)).collect();
        assert_eq!(offsets, [64, 192, 320, 512]);
        assert_eq!(layout.end(), 577);
    }

    #[test]
    fn wrong_sizes_are_refused() {
        let mut writer = BlobWriter::new(Vec::new(), 1).unwrap();
        let short = writer.record(1, 4, |out| out.write_all(&[0; 2]));
        assert!(short.unwrap_err().to_string().contains("lacks the last 2"));
        let long = writer.record(1, 4, |out| out.write_all(&[0; 6]));
        assert!(long.unwrap_err().to_string().contains("2 bytes more"));
        assert!(writer.finish().is_err());
    }
}
