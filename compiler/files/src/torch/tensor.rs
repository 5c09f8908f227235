//! Tensors of `torch.save`: views of storages, checked against the file.

use std::ops::Range;

use s2dit_ir::{DType, TensorType};

use super::archive::Archive;
use super::pickle::View;
use crate::problems::{Problems, quoted};

/// A tensor in a file. All of its elements lie inside its storage's entry.
#[derive(Debug)]
pub struct StridedTensor {
    /// Element type and shape.
    pub(super) ty: TensorType,
    /// First byte of its first element in the file.
    offset: usize,
    /// Elements from one index of an axis to the next; `None` if the elements follow each other as in row-major order.
    strides: Option<Vec<usize>>,
}

impl StridedTensor {
    /// Finds a view's bytes; `place` names the tensor in problems.
    ///
    /// # Errors
    /// A storage that is not there or of another size; elements beyond it.
    pub(super) fn of_view(view: &View<'_>, archive: &Archive<'_>, place: &str) -> Result<StridedTensor, Problems> {
        let storage = view.storage;
        let Some(entry) = archive.storage(storage.key) else {
            return Err(Problems::one(place, format!("no storage {}", quoted(storage.key)), "it in the zip file"));
        };
        let size = storage.dtype.size();
        if usize::try_from(storage.len).ok().and_then(|len| len.checked_mul(size)) != Some(entry.len()) {
            let expected = format!("{} elements of {}", storage.len, storage.dtype);
            return Err(Problems::one(place, format!("a storage of {} bytes", entry.len()), expected));
        }
        StridedTensor::new(storage.dtype, entry, &view.shape, &view.strides, view.offset, place)
    }

    /// A view of the elements in `storage`, a range of bytes of the file; `place` names the tensor in problems.
    ///
    /// # Errors
    /// Elements beyond the storage.
    pub fn new(
        dtype: DType,
        storage: Range<usize>,
        shape: &[i64],
        strides: &[i64],
        offset: i64,
        place: &str,
    ) -> Result<StridedTensor, Problems> {
        let size = dtype.size();
        let elements = storage.len() / size;
        let beyond = || {
            let found = format!("shape {shape:?} with strides {strides:?} from element {offset}");
            Problems::one(place, found, format!("a view of its storage's {elements} elements"))
        };
        let sizes = |list: &[i64]| list.iter().map(|n| usize::try_from(*n).ok()).collect::<Option<Vec<usize>>>();
        let (shape, strides) =
            sizes(shape).zip(sizes(strides)).filter(|(a, b)| a.len() == b.len()).ok_or_else(beyond)?;
        let offset = usize::try_from(offset).map_err(|_| beyond())?;
        let bytes = shape.iter().try_fold(size, |all, side| all.checked_mul(*side));
        if bytes.is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(beyond());
        }
        let last = shape
            .iter()
            .zip(&strides)
            .try_fold(offset, |last, (side, stride)| last.checked_add(side.saturating_sub(1).checked_mul(*stride)?));
        let is_empty = shape.contains(&0);
        if last.is_none_or(|last| if is_empty { offset > elements } else { last >= elements }) {
            return Err(beyond());
        }
        let plain = is_empty || is_row_major(&shape, &strides);
        Ok(StridedTensor {
            ty: TensorType::new(dtype, shape),
            offset: storage.start + offset * size,
            strides: (!plain).then_some(strides),
        })
    }

    /// The same tensor in a file in which its own file begins at this byte.
    #[must_use]
    pub fn inside(mut self, begin: usize) -> StridedTensor {
        self.offset += begin;
        self
    }

    /// The bytes of all elements in row-major order, out of the bytes of its whole file; none of a file that ends before them.
    #[must_use]
    pub fn bytes_in(&self, file: &[u8]) -> Vec<u8> {
        match self.end() <= file.len() {
            true => self.gathered(file, 0..self.ty.elements()),
            false => Vec::new(),
        }
    }

    /// Element type and shape.
    #[must_use]
    pub fn ty(&self) -> &TensorType {
        &self.ty
    }

    /// Whether its elements follow each other in row-major order.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.strides.is_none()
    }

    /// The byte after its last element.
    pub(super) fn end(&self) -> usize {
        let strides = match &self.strides {
            None => return self.span().end,
            Some(strides) => strides,
        };
        let reach: usize =
            self.ty.shape.iter().zip(strides).map(|(side, stride)| side.saturating_sub(1) * stride).sum();
        self.offset + (reach + 1) * self.ty.dtype.size()
    }

    /// The bytes of a plain tensor in the file.
    pub(super) fn span(&self) -> Range<usize> {
        self.offset..self.offset + self.ty.bytes()
    }

    /// Some elements, by their numbers in row-major order, out of the bytes of the whole file.
    pub(super) fn gathered(&self, file: &[u8], elements: Range<usize>) -> Vec<u8> {
        let (size, shape) = (self.ty.dtype.size(), &self.ty.shape);
        let Some(strides) = &self.strides else {
            return file[self.offset + elements.start * size..self.offset + elements.end * size].to_vec();
        };
        let mut index = vec![0; shape.len()];
        let mut rest = elements.start;
        for (index, side) in index.iter_mut().zip(shape).rev() {
            (*index, rest) = (rest % side, rest / side);
        }
        let mut at: usize = index.iter().zip(strides).map(|(index, stride)| index * stride).sum();
        let mut out = Vec::with_capacity(elements.len() * size);
        for _ in elements {
            let begin = self.offset + at * size;
            out.extend_from_slice(&file[begin..begin + size]);
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                at += strides[axis];
                if index[axis] < shape[axis] {
                    break;
                }
                at -= shape[axis] * strides[axis];
                index[axis] = 0;
            }
        }
        out
    }
}

/// Whether a view's elements follow each other; the stride of an axis of one index means nothing.
fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(side, stride)| {
        let fits = *side == 1 || *stride == expected;
        expected *= side;
        fits
    })
}
