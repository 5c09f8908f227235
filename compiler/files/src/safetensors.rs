//! One memory-mapped safetensors file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use s2dit_backends::foreign::Foreign;
use s2dit_backends::stamp::Changed;
use s2dit_ir::{DType, FileRegion, TensorType, WeightError, WeightSource};

use crate::Door;
use crate::header::{self, Header, TensorInfo};
use crate::mapped::Mapped;
use crate::problems::{Problem, Problems, shown};

/// An open safetensors file whose header is sound: every tensor lies within the file, none overlap.
#[derive(Debug)]
pub struct SafetensorsFile {
    file: Mapped,
    header: Header,
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
        const EXPECTED: &str = "a safetensors file";
        let place = path.display().to_string();
        let file = Mapped::open(path, EXPECTED)?;
        if let Ok(Some(other)) = Foreign::of(path)
            && other != Foreign::Safetensors
        {
            return Err(Problems::one(&place, other.to_string(), EXPECTED));
        }
        let (header, problems) = header::scan(&place, file.bytes())?;
        Ok((SafetensorsFile { file, header }, problems))
    }

    /// Checks that nobody has written to the file since it was opened.
    ///
    /// # Errors
    /// Somebody has, or the path leads to another file now.
    pub fn check_unchanged(&self) -> Result<(), Changed> {
        self.file.check_unchanged()
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
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
        self.get(name).map(|info| &self.file.bytes()[info.offset as usize..info.end() as usize])
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
                place: self.path().display().to_string(),
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
        Some(FileRegion { path: self.path().to_owned(), offset: info.offset, len })
    }

    fn done(&self, name: &str) {
        if let Some(info) = self.get(name) {
            self.file.drop_pages(info.offset as usize..info.end() as usize);
        }
    }
}

impl Door for SafetensorsFile {
    fn path(&self) -> &Path {
        self.path()
    }

    fn format(&self) -> String {
        "safetensors".into()
    }

    fn names(&self) -> Vec<&str> {
        self.header.tensors.keys().map(String::as_str).collect()
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        self.header.metadata.clone()
    }

    fn damaged(&self) -> Vec<&str> {
        self.header.damaged.iter().map(String::as_str).collect()
    }

    fn check_unchanged(&self) -> Result<(), Changed> {
        self.check_unchanged()
    }
}

fn elements<const N: usize, T>(data: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect()
}
