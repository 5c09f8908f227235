//! Safetensors files, written front to back: the header, then the tensors in its order.

use std::collections::BTreeMap;
use std::io::{self, Write};

use s2dit_ir::DType;
use serde_json::{Map, Value, json};

/// The header of a file, and where its tensors go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafetensorsLayout {
    header: Vec<u8>,
    begins: Vec<u64>,
    end: u64,
}

impl SafetensorsLayout {
    /// Lays out tensors one after the other: name, element type, shape. Metadata comes first in the header, if there is any.
    ///
    /// # Errors
    /// A name twice; more bytes than a file holds.
    ///
    /// ```
    /// use s2dit_files::writer::{SafetensorsLayout, Writer};
    /// use s2dit_ir::DType;
    /// use std::io::Write;
    ///
    /// let layout = SafetensorsLayout::new([("x", DType::F32, vec![2])], &Default::default())?;
    /// let mut file = Writer::new(Vec::new(), &layout)?;
    /// for x in [1.0f32, 2.0] {
    ///     file.write_all(&x.to_le_bytes())?;
    /// }
    /// let bytes = file.finish()?;
    /// assert_eq!(bytes.len() as u64, layout.file_bytes());
    /// assert_eq!(bytes[layout.begins()[0] as usize..][..4], 1f32.to_le_bytes());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new<'a>(
        tensors: impl IntoIterator<Item = (&'a str, DType, Vec<u64>)>,
        metadata: &BTreeMap<String, String>,
    ) -> io::Result<SafetensorsLayout> {
        let mut entries = Map::new();
        if !metadata.is_empty() {
            entries.insert("__metadata__".into(), json!(metadata));
        }
        let (mut begins, mut end) = (Vec::new(), 0u64);
        for (name, dtype, shape) in tensors {
            let bytes = shape.iter().try_fold(dtype.size() as u64, |bytes, side| bytes.checked_mul(*side));
            let Some(after) = bytes.and_then(|bytes| end.checked_add(bytes)) else {
                return Err(invalid(format!("tensor `{name}`: {shape:?} is more than a file holds")));
            };
            begins.push(end);
            let entry = json!({ "dtype": stored(dtype), "shape": shape, "data_offsets": [end, after] });
            if entries.insert(name.into(), entry).is_some() {
                return Err(invalid(format!("tensor `{name}`: found twice, expected once")));
            }
            end = after;
        }
        let mut text = Value::Object(entries).to_string().into_bytes();
        // Spaces, so that the data begins at a multiple of 8.
        text.resize(text.len().next_multiple_of(8), b' ');
        let mut header = (text.len() as u64).to_le_bytes().to_vec();
        header.append(&mut text);
        let start = header.len() as u64;
        let Some(end) = start.checked_add(end) else { return Err(invalid("more than a file holds".into())) };
        Ok(SafetensorsLayout { header, begins: begins.into_iter().map(|begin| start + begin).collect(), end })
    }

    /// The first bytes of the file: the header's length and the header.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Where each tensor begins in the file, in bytes.
    #[must_use]
    pub fn begins(&self) -> &[u64] {
        &self.begins
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.end
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// What the format calls an element type.
fn stored(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "F64",
        DType::F32 => "F32",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        DType::I64 => "I64",
        DType::I32 => "I32",
        DType::I16 => "I16",
        DType::I8 => "I8",
        DType::U32 => "U32",
        DType::U16 => "U16",
        DType::U8 => "U8",
        DType::Bool => "BOOL",
    }
}

/// Writes a file of a [`SafetensorsLayout`]: what is written to it are the tensors' little-endian elements, in order.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    left: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// The sink's.
    pub fn new(mut out: W, layout: &SafetensorsLayout) -> io::Result<Writer<W>> {
        out.write_all(&layout.header)?;
        Ok(Writer { out, left: layout.end - layout.header.len() as u64 })
    }

    /// Flushes and returns the sink.
    ///
    /// # Errors
    /// The sink's; fewer elements than the layout has.
    pub fn finish(mut self) -> io::Result<W> {
        if self.left > 0 {
            return Err(invalid(format!("{} bytes that the header promises were not written", self.left)));
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(invalid(format!("{} bytes more than the header promises", bytes.len() as u64 - self.left)));
        }
        let n = self.out.write(bytes)?;
        self.left -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_implementation_reads_what_was_written() {
        let metadata = BTreeMap::from([("b".to_string(), "2".to_string()), ("a".into(), "1".into())]);
        let tensors = [("z", DType::F16, vec![1, 3]), ("a", DType::F32, vec![2]), ("none", DType::I8, vec![0])];
        let layout = SafetensorsLayout::new(tensors, &metadata).unwrap();
        let mut file = Writer::new(Vec::new(), &layout).unwrap();
        file.write_all(&[1, 2, 3, 4, 5, 6]).unwrap();
        file.write_all(&[7; 8]).unwrap();
        assert!(file.write_all(&[8]).unwrap_err().to_string().contains("1 bytes more"));
        let bytes = file.finish().unwrap();
        assert_eq!(bytes.len() as u64, layout.file_bytes());
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let told: BTreeMap<String, String> = header.metadata().clone().unwrap().into_iter().collect();
        assert_eq!(told, metadata);
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let z = read.tensor("z").unwrap();
        assert_eq!((z.dtype(), z.shape(), z.data()), (safetensors::Dtype::F16, &[1, 3][..], &[1, 2, 3, 4, 5, 6][..]));
        assert_eq!(read.tensor("a").unwrap().data(), [7; 8]);
        assert!(read.tensor("none").unwrap().data().is_empty());
        assert_eq!(bytes[layout.begins()[1] as usize], 7);
    }

    #[test]
    fn what_no_file_can_be_is_refused() {
        let none = BTreeMap::new();
        let large = SafetensorsLayout::new([("x", DType::F32, vec![1 << 40, 1 << 40])], &none).unwrap_err();
        assert!(large.to_string().contains("tensor `x`") && large.to_string().contains("more than a file holds"));
        let twice =
            SafetensorsLayout::new([("x", DType::F32, vec![1]), ("x", DType::F32, vec![1])], &none).unwrap_err();
        assert!(twice.to_string().contains("twice"));
        let layout = SafetensorsLayout::new([("x", DType::F32, vec![2])], &none).unwrap();
        let mut file = Writer::new(Vec::new(), &layout).unwrap();
        file.write_all(&[0; 4]).unwrap();
        assert!(file.finish().unwrap_err().to_string().contains("4 bytes"));
    }
}
