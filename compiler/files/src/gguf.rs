//! GGUF files: llama.cpp's format, in which models of other kinds are quantised too. Blocks of weights are dequantised as they are read.
//!
//! The format is described in ggml's `docs/gguf.md`. No crate fits: `gguf` lists tensors and reads no blocks, and `candle-core` is a whole
//! framework. Sizes of a tensor are stored fastest axis first, and reversed here.

mod blocks;
mod header;
mod reader;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use s2dit_backends::stamp::Changed;
use s2dit_ir::{DType, FileRegion, TensorType, WeightError, WeightSource};

use self::blocks::Kind;
use crate::Door;
use crate::mapped::Mapped;
use crate::problems::Problems;

/// An open GGUF file.
#[derive(Debug)]
pub struct GgufFile {
    file: Mapped,
    tensors: BTreeMap<String, Stored>,
}

/// A tensor in a file. Its blocks lie inside the file.
#[derive(Debug)]
struct Stored {
    /// Type in the store: fp32 if blocks are dequantised.
    ty: TensorType,
    kind: Kind,
    /// First byte in the file.
    offset: usize,
}

impl Stored {
    /// The bytes of some blocks in the file.
    fn span(&self, blocks: Range<usize>) -> Range<usize> {
        let size = self.kind.bytes();
        self.offset + blocks.start * size..self.offset + blocks.end * size
    }

    fn all(&self) -> Range<usize> {
        self.span(0..self.ty.elements() / self.kind.elements())
    }

    /// Some elements in fp32, little-endian; `file` is the whole file.
    fn dequantised(&self, file: &[u8], elements: Range<usize>) -> Vec<u8> {
        let each = self.kind.elements();
        let (first, last) = (elements.start / each, elements.end.div_ceil(each));
        let mut values = vec![0.0; (last - first) * each];
        let blocks = file[self.span(first..last)].chunks_exact(self.kind.bytes());
        for (block, values) in blocks.zip(values.chunks_exact_mut(each)) {
            self.kind.dequantise(block, values);
        }
        let skipped = elements.start - first * each;
        values[skipped..skipped + elements.len()].iter().flat_map(|value| value.to_le_bytes()).collect()
    }
}

impl GgufFile {
    /// Opens a file and checks its header.
    ///
    /// # Errors
    /// A file that cannot be read or is damaged; a type of blocks that is not known.
    pub fn open(path: &Path) -> Result<Self, Problems> {
        let file = Mapped::open(path, "a GGUF file")?;
        let tensors = header::read(file.bytes(), &path.display().to_string())?;
        Ok(GgufFile { file, tensors })
    }
}

impl WeightSource for GgufFile {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.tensors.get(name).map(|stored| stored.ty.clone())
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        let stored = self.tensors.get(name).ok_or_else(|| WeightError::Missing { name: name.to_owned() })?;
        Ok(match stored.kind.is_plain() {
            true => Cow::Borrowed(&self.file.bytes()[stored.all()]),
            false => Cow::Owned(stored.dequantised(self.file.bytes(), 0..stored.ty.elements())),
        })
    }

    fn part(&self, name: &str, range: Range<usize>) -> Option<Result<Vec<u8>, WeightError>> {
        let stored = self.tensors.get(name).filter(|stored| !stored.kind.is_plain())?;
        let size = DType::F32.size();
        let elements = range.start / size..range.end / size;
        if elements.end > stored.ty.elements() || elements.start > elements.end {
            let message = format!("no bytes {} to {} in {}", range.start, range.end, stored.ty);
            return Some(Err(WeightError::Read { name: name.to_owned(), message }));
        }
        Some(Ok(stored.dequantised(self.file.bytes(), elements)))
    }

    fn region(&self, name: &str) -> Option<FileRegion> {
        let stored = self.tensors.get(name).filter(|stored| stored.kind.is_plain())?;
        let span = stored.all();
        Some(FileRegion { path: self.file.path().to_owned(), offset: span.start as u64, len: span.len() as u64 })
    }

    fn done(&self, name: &str) {
        if let Some(stored) = self.tensors.get(name) {
            self.file.drop_pages(stored.all());
        }
    }
}

impl Door for GgufFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn format(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for stored in self.tensors.values() {
            *counts.entry(stored.kind.name()).or_default() += 1;
        }
        let list: Vec<String> = counts.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        format!("GGUF ({})", list.join(", "))
    }

    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn check_unchanged(&self) -> Result<(), Changed> {
        self.file.check_unchanged()
    }
}

#[cfg(test)]
mod tests;
