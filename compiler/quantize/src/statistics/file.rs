//! Calibration statistics as a safetensors file, written tensor by tensor, as they are computed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use half::f16;
use s2dit_backends::output::made::{MADE_BY, by};
use s2dit_files::writer::{self, SafetensorsLayout};
use s2dit_ir::TensorType;

/// Writes tensors in the order of the header.
pub(super) struct Writer {
    path: PathBuf,
    out: writer::Writer<BufWriter<File>>,
}

impl Writer {
    /// Writes the header: names and types of all tensors, f32 and f16.
    pub(super) fn create(path: &Path, entries: &[(String, TensorType)]) -> Result<Writer> {
        let shape = |ty: &TensorType| ty.shape.iter().map(|side| *side as u64).collect();
        let tensors = entries.iter().map(|(name, ty)| (name.as_str(), ty.dtype, shape(ty)));
        let begin = || {
            let layout = SafetensorsLayout::new(tensors, &BTreeMap::from([(MADE_BY.to_string(), by())]))?;
            writer::Writer::new(BufWriter::new(File::create(path)?), &layout)
        };
        let out = begin().with_context(|| cannot_write(path))?;
        Ok(Writer { path: path.into(), out })
    }

    pub(super) fn f32s(&mut self, values: impl Iterator<Item = f32>) -> Result<()> {
        self.write(values.map(f32::to_le_bytes))
    }

    /// Numbers beyond fp16 become its largest.
    pub(super) fn f16s(&mut self, values: impl Iterator<Item = f32>) -> Result<()> {
        let most = f16::MAX.to_f32();
        self.write(values.map(|x| f16::from_f32(x.clamp(-most, most)).to_le_bytes()))
    }

    fn write<const N: usize>(&mut self, mut values: impl Iterator<Item = [u8; N]>) -> Result<()> {
        values.try_for_each(|bytes| self.out.write_all(&bytes)).with_context(|| cannot_write(&self.path))
    }

    pub(super) fn finish(self) -> Result<()> {
        self.out.finish().map(drop).with_context(|| cannot_write(&self.path))
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write `{}`", path.display())
}
