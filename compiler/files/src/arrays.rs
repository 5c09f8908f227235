//! Named arrays in a file, as people hand them over: safetensors, and the `.npz` of NumPy.

mod npy;
mod npz;

use std::collections::BTreeMap;
use std::io::{Seek, Write};
use std::path::Path;

use s2dit_backends::output::made;
use s2dit_ir::{DType, Tensor, TensorType};

use crate::SafetensorsFile;
use crate::problems::Problems;
use crate::writer::{SafetensorsLayout, Writer};

/// A dense row-major array of any element type.
#[derive(Clone, PartialEq, Eq)]
pub struct Array {
    /// Element type and extents.
    pub ty: TensorType,
    /// The elements, little-endian.
    pub bytes: Vec<u8>,
}

/// Arrays by name.
pub type Arrays = BTreeMap<String, Array>;

impl Array {
    /// An array, or `None` if the number of bytes is not that of the type.
    #[must_use]
    pub fn new(ty: TensorType, bytes: Vec<u8>) -> Option<Array> {
        (bytes.len() == ty.bytes()).then_some(Array { ty, bytes })
    }

    /// The elements in float64.
    #[must_use]
    pub fn tensor(&self) -> Tensor {
        Tensor::from_le_bytes(&self.ty, &self.bytes).unwrap_or_else(|| Tensor::splat(&self.ty, f64::NAN))
    }

    /// The elements of a tensor, rounded to its element type.
    #[must_use]
    pub fn of(tensor: &Tensor) -> Array {
        Array { ty: tensor.ty(), bytes: tensor.to_le_bytes() }
    }

    /// The array with elements of another type: floats are rounded to the nearest, integers cut off.
    #[must_use]
    pub fn cast(&self, dtype: DType) -> Array {
        if dtype == self.ty.dtype {
            return self.clone();
        }
        let tensor = self.tensor();
        Array::of(&Tensor { dtype, data: tensor.data.mapv(|x| dtype.round(x)) })
    }

    /// The same elements with other extents, or `None` if their number is another.
    #[must_use]
    pub fn reshaped(&self, shape: &[usize]) -> Option<Array> {
        Array::new(TensorType::new(self.ty.dtype, shape), self.bytes.clone())
    }
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Array {}", self.ty)
    }
}

/// Formats that arrays are kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// safetensors
    Safetensors,
    /// NumPy's `.npz`
    Npz,
}

impl Format {
    /// The format that a file's name says.
    ///
    /// # Errors
    /// A name that ends otherwise.
    pub fn of(path: &Path) -> Result<Format, Problems> {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        match ending.as_str() {
            "safetensors" => Ok(Format::Safetensors),
            "npz" => Ok(Format::Npz),
            _ => Err(Problems::one(
                path.display().to_string(),
                format!("the ending `{ending}`"),
                "`.safetensors` or `.npz`",
            )),
        }
    }
}

/// Reads the arrays of a file.
///
/// # Errors
/// A file of another format; a damaged one; an element type that no tensor of a model has.
pub fn read(path: &Path) -> Result<Arrays, Problems> {
    read_within(path, u64::MAX)
}

/// Reads the arrays of a file; those of an `.npz` of at most so many bytes together: a small archive may hold gigabytes of zeros, and a safetensors file no
/// more than it is large.
///
/// # Errors
/// Those of [`read`]; larger arrays in an archive.
pub fn read_within(path: &Path, most: u64) -> Result<Arrays, Problems> {
    match Format::of(path)? {
        Format::Npz => npz::read(path, most),
        Format::Safetensors => {
            let file = SafetensorsFile::open(path)?;
            let array = |name: &str, ty: &TensorType| Array {
                ty: ty.clone(),
                bytes: file.data(name).unwrap_or_default().to_vec(),
            };
            Ok(file.tensors().map(|(name, info)| (name.to_string(), array(name, &info.ty))).collect())
        }
    }
}

/// Whether a file is one that [`write()`] made.
#[must_use]
pub fn is_ours(path: &Path) -> bool {
    match Format::of(path) {
        Ok(Format::Safetensors) => made::safetensors(path),
        Ok(Format::Npz) => npz::is_ours(path),
        Err(_) => false,
    }
}

/// Writes arrays. Equal arrays give equal bytes.
///
/// # Errors
/// What the file system refuses.
pub fn write(format: Format, arrays: &Arrays, to: impl Write + Seek) -> std::io::Result<()> {
    match format {
        Format::Npz => npz::write(arrays, to),
        Format::Safetensors => {
            let shape = |ty: &TensorType| ty.shape.iter().map(|d| *d as u64).collect();
            let layout = SafetensorsLayout::new(
                arrays.iter().map(|(name, array)| (name.as_str(), array.ty.dtype, shape(&array.ty))),
                &BTreeMap::from([(made::MADE_BY.to_string(), made::by())]),
            )?;
            let mut out = Writer::new(to, &layout)?;
            for array in arrays.values() {
                out.write_all(&array.bytes)?;
            }
            out.finish().map(drop)
        }
    }
}
