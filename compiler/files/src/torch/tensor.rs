//! Tensors of `torch.save`: views of storages, checked against the file.

use std::ops::Range;

use s2dit_ir::TensorType;

use super::archive::Archive;
use super::pickle::View;
use crate::problems::{Problems, quoted};

/// A tensor in a file. All of its elements lie inside its storage's entry.
#[derive(Debug)]
pub(super) struct Stored {
    /// Element type and shape.
    pub(super) ty: TensorType,
    /// First byte of its first element in the file.
    offset: usize,
    /// Elements from one index of an axis to the next; `None` if the elements follow each other as in row-major order.
    strides: Option<Vec<usize>>,
}

impl Stored {
    /// Finds a view's bytes; `place` names the tensor in problems.
    ///
    /// # Errors
    /// A storage that is not there or of another size; elements beyond it.
    pub(super) fn new(view: &View<'_>, archive: &Archive<'_>, place: &str) -> Result<Stored, Problems> {
        let storage = view.storage;
        let Some(entry) = archive.storage(storage.key) else {
            return Err(Problems::one(place, format!("no storage {}", quoted(storage.key)), "it in the zip file"));
        };
        let size = storage.dtype.size();
        if usize::try_from(storage.len).ok().and_then(|len| len.checked_mul(size)) != Some(entry.len()) {
            let expected = format!("{} elements of {}", storage.len, storage.dtype);
            return Err(Problems::one(place, format!("a storage of {} bytes", entry.len()), expected));
        }
        let beyond = || {
            let found = format!("shape {:?} with strides {:?} from element {}", view.shape, view.strides, view.offset);
            Problems::one(place, found, format!("a view of its storage's {} elements", storage.len))
        };
        let sizes = |list: &[i64]| list.iter().map(|n| usize::try_from(*n).ok()).collect::<Option<Vec<usize>>>();
        let (shape, strides) = sizes(&view.shape).zip(sizes(&view.strides)).ok_or_else(beyond)?;
        let offset = usize::try_from(view.offset).map_err(|_| beyond())?;
        let bytes = shape.iter().try_fold(size, |all, side| all.checked_mul(*side));
        if bytes.is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(beyond());
        }
        let last = shape
            .iter()
            .zip(&strides)
            .try_fold(offset, |last, (side, stride)| last.checked_add(side.saturating_sub(1).checked_mul(*stride)?));
        let is_empty = shape.contains(&0);
        if last.is_none_or(|last| if is_empty { offset > entry.len() / size } else { last >= entry.len() / size }) {
            return Err(beyond());
        }
        let plain = is_empty || is_row_major(&shape, &strides);
        Ok(Stored {
            ty: TensorType::new(storage.dtype, shape),
            offset: entry.start + offset * size,
            strides: (!plain).then_some(strides),
        })
    }

    /// Whether its elements follow each other in row-major order.
    pub(super) fn is_plain(&self) -> bool {
        self.strides.is_none()
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
