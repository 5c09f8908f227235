//! A safetensors file whose tensors are written one after the other, as they are computed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use half::f16;
use s2dit_backends::output::made::{MADE_BY, by};
use s2dit_ir::{DType, TensorType};
use serde_json::json;

/// Writes tensors in the order of the header.
pub(super) struct Writer {
    path: PathBuf,
    out: BufWriter<File>,
    left: u64,
}

impl Writer {
    /// Writes the header: names and types of all tensors, f32 and f16.
    pub(super) fn create(path: &Path, entries: &[(String, TensorType)]) -> Result<Writer> {
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".into(), json!({ MADE_BY: by() }));
        let mut offset = 0;
        for (name, ty) in entries {
            let dtype = if ty.dtype == DType::F16 { "F16" } else { "F32" };
            let end = offset + ty.bytes() as u64;
            header.insert(name.clone(), json!({ "dtype": dtype, "shape": ty.shape, "data_offsets": [offset, end] }));
            offset = end;
        }
        let mut header = serde_json::Value::Object(header).to_string();
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        let failed = || format!("cannot write `{}`", path.display());
        let mut out = BufWriter::new(File::create(path).with_context(failed)?);
        out.write_all(&(header.len() as u64).to_le_bytes()).with_context(failed)?;
        out.write_all(header.as_bytes()).with_context(failed)?;
        Ok(Writer { path: path.into(), out, left: offset })
    }

    pub(super) fn f32s(&mut self, values: impl Iterator<Item = f32>) -> Result<()> {
        self.write(values.map(f32::to_le_bytes))
    }

    /// Numbers beyond fp16 become its largest.
    pub(super) fn f16s(&mut self, values: impl Iterator<Item = f32>) -> Result<()> {
        let most = f16::MAX.to_f32();
        self.write(values.map(|x| f16::from_f32(x.clamp(-most, most)).to_le_bytes()))
    }

    fn write<const N: usize>(&mut self, values: impl Iterator<Item = [u8; N]>) -> Result<()> {
        for bytes in values {
            self.out.write_all(&bytes).with_context(|| format!("cannot write `{}`", self.path.display()))?;
            self.left = self.left.wrapping_sub(N as u64);
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<()> {
        ensure!(self.left == 0, "`{}`: {} bytes of the header were not written", self.path.display(), self.left);
        self.out.flush().with_context(|| format!("cannot write `{}`", self.path.display()))
    }
}
