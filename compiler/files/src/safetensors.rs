//! One memory-mapped safetensors file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use s2dit_backends::foreign::Foreign;
use s2dit_backends::input::{LFS_POINTER, check_regular, is_lfs_pointer};
use s2dit_backends::stamp::{Changed, Stamp};
use s2dit_ir::{DType, FileRegion, TensorType, WeightError, WeightSource};

use crate::header::{self, Header};
use crate::problems::{Problem, Problems, shown};

/// Type and place of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Element type and shape.
    pub ty: TensorType,
    /// First byte of the tensor's data in the file.
    pub offset: u64,
}

impl TensorInfo {
    /// The byte after the tensor's data in the file.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.ty.bytes() as u64
    }
}

/// An open safetensors file whose header is sound: every tensor lies within the file, none overlap.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    map: Mmap,
    header: Header,
    stamp: Stamp,
}

impl SafetensorsFile {
    /// Opens a file and checks its header.
    ///
    /// # Errors
    /// Every problem of the header, or that the file cannot be read.
    pub fn open(path: &Path) -> Result<Self, Problems> {
        let (file, problems) = Self::open_damaged(path)?;
        problems.into_result().map(|()| file)
    }

    /// Opens a file whose header may be damaged, to see what else is wrong. With any problem its data must not be read.
    ///
    /// # Errors
    /// The file cannot be read, or has no header.
    pub(super) fn open_damaged(path: &Path) -> Result<(Self, Problems), Problems> {
        let place = path.display().to_string();
        let unreadable = |error: std::io::Error| Problems::one(&place, error.to_string(), "a safetensors file");
        // Before opening: a pipe would block.
        check_regular(path).map_err(unreadable)?;
        let file = File::open(path).map_err(unreadable)?;
        let meta = file.metadata().map_err(unreadable)?;
        if meta.len() == 0 {
            return Err(Problems::one(&place, "0 bytes", "a safetensors file"));
        }
        // SAFETY: the map is read-only and holds plain bytes. Another process that shortens the file while it is
        // mapped raises SIGBUS, which `output::on_signals` makes an error of; what was written over is found by the stamp.
        let map = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
        if is_lfs_pointer(&map) {
            return Err(Problems::one(&place, LFS_POINTER, "a safetensors file"));
        }
        if let Ok(Some(other)) = Foreign::of(path)
            && other != Foreign::Safetensors
        {
            return Err(Problems::one(&place, other.to_string(), "a safetensors file"));
        }
        let (header, problems) = header::scan(&place, &map)?;
        // Tensors are read front to back, large ones whole. Only a hint.
        #[cfg(unix)]
        let _ = map.advise(memmap2::Advice::Sequential);
        Ok((SafetensorsFile { path: path.to_owned(), map, header, stamp: Stamp::of(path, &meta) }, problems))
    }

    /// Checks that nobody has written to the file since it was opened.
    ///
    /// # Errors
    /// Somebody has, or the path leads to another file now.
    pub fn check_unchanged(&self) -> Result<(), Changed> {
        self.stamp.check()
    }

    /// Tensors whose header entries cannot be used; none in a file from [`SafetensorsFile::open`].
    pub(super) fn damaged(&self) -> impl Iterator<Item = &str> {
        self.header.damaged.iter().map(String::as_str)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors, by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&str, &TensorInfo)> {
        self.header.tensors.iter().map(|(name, info)| (name.as_str(), info))
    }

    /// Type and place of a tensor.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.header.tensors.get(name)
    }

    /// The header's `__metadata__`.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// The bytes of a tensor: row-major, little-endian, of any alignment.
    #[must_use]
    pub fn data(&self, name: &str) -> Option<&[u8]> {
        self.get(name).map(|info| &self.map[info.offset as usize..info.end() as usize])
    }

    /// A tensor as `f64`, whatever its element type.
    ///
    /// # Errors
    /// There is no such tensor.
    pub fn tensor_f64(&self, name: &str) -> Result<Vec<f64>, Problem> {
        let (dtype, data) = self.typed(name)?;
        Ok(match dtype {
            DType::F64 => elements(data, f64::from_le_bytes),
            DType::F32 => elements(data, |b| f64::from(f32::from_le_bytes(b))),
            DType::F16 => elements(data, |b| half::f16::from_le_bytes(b).to_f64()),
            DType::BF16 => elements(data, |b| half::bf16::from_le_bytes(b).to_f64()),
            DType::I64 => elements(data, |b| i64::from_le_bytes(b) as f64),
            DType::I32 => elements(data, |b| f64::from(i32::from_le_bytes(b))),
            DType::I16 => elements(data, |b| f64::from(i16::from_le_bytes(b))),
            DType::I8 => elements(data, |b| f64::from(i8::from_le_bytes(b))),
            DType::U32 => elements(data, |b| f64::from(u32::from_le_bytes(b))),
            DType::U16 => elements(data, |b| f64::from(u16::from_le_bytes(b))),
            DType::U8 => elements(data, |[b]| f64::from(b)),
            DType::Bool => elements(data, |[b]| f64::from(u8::from(b != 0))),
        })
    }

    /// A tensor as `f32`, rounded once where its element type has more digits.
    ///
    /// # Errors
    /// There is no such tensor.
    pub fn tensor_f32(&self, name: &str) -> Result<Vec<f32>, Problem> {
        let (dtype, data) = self.typed(name)?;
        Ok(match dtype {
            DType::F32 => elements(data, f32::from_le_bytes),
            DType::F16 => elements(data, |b| half::f16::from_le_bytes(b).to_f32()),
            DType::BF16 => elements(data, |b| half::bf16::from_le_bytes(b).to_f32()),
            DType::I64 => elements(data, |b| i64::from_le_bytes(b) as f32),
            _ => self.tensor_f64(name)?.into_iter().map(|value| value as f32).collect(),
        })
    }

    fn typed(&self, name: &str) -> Result<(DType, &[u8]), Problem> {
        match (self.get(name), self.data(name)) {
            (Some(info), Some(data)) => Ok((info.ty.dtype, data)),
            _ => Err(Problem {
                place: self.path.display().to_string(),
                found: format!("no tensor `{}`", shown(name)),
                expected: "it among the file's tensors".into(),
            }),
        }
    }
}

impl WeightSource for SafetensorsFile {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.get(name).map(|info| info.ty.clone())
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        let data = self.data(name).ok_or_else(|| WeightError::Missing { name: name.to_owned() })?;
        Ok(Cow::Borrowed(data))
    }

    fn region(&self, name: &str) -> Option<FileRegion> {
        let info = self.get(name)?;
        let len = info.ty.bytes() as u64;
        Some(FileRegion { path: self.path.clone(), offset: info.offset, len })
    }

    fn done(&self, name: &str) {
        #[cfg(unix)]
        if let Some(info) = self.get(name).filter(|info| info.ty.bytes() > 0) {
            // SAFETY: the map is shared and read-only, so dropped pages come back from the file as they were.
            // Only a hint.
            let _ = unsafe {
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    info.offset as usize,
                    info.ty.bytes(),
                )
            };
        }
    }
}

fn elements<const N: usize, T>(data: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect()
}
