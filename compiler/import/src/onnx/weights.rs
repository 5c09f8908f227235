//! The tensors that an ONNX file holds, inside it or beside it: mapped, and decoded only where a graph needs numbers now.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use s2dit_backends::onnx::proto::{INT4, TensorProto, data_type_name, dtype_of};
use s2dit_backends::onnx::read::Model;
use s2dit_backends::stamp::Changed;
use s2dit_files::problems::{Problems, quoted, shown};
use s2dit_files::{Door, Mapped};
use s2dit_ir::{DType, FileRegion, Tensor, TensorType, WeightError, WeightSource};

use crate::trace::checked_elements;

/// Elements of integers and booleans that are read when the graph is: more than any table of positions or mask.
const MOST_READ: usize = 1 << 24;

/// The type of stored elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    /// A type of the IR.
    Whole(DType),
    /// 4 bits each, two in a byte, the first in the low bits: signed or not.
    Nibble { signed: bool },
}

impl Element {
    fn of(code: i32) -> Option<Element> {
        match code {
            21 => Some(Element::Nibble { signed: false }),
            INT4 => Some(Element::Nibble { signed: true }),
            code => dtype_of(code).map(Element::Whole),
        }
    }

    fn dtype(self) -> DType {
        match self {
            Element::Whole(dtype) => dtype,
            Element::Nibble { signed: true } => DType::I8,
            Element::Nibble { signed: false } => DType::U8,
        }
    }

    /// Bytes that elements take as they are stored.
    fn stored(self, elements: usize) -> usize {
        match self {
            Element::Whole(dtype) => elements * dtype.size(),
            Element::Nibble { .. } => elements.div_ceil(2),
        }
    }
}

/// Where the bytes of a tensor are.
#[derive(Clone, Debug)]
enum Place {
    /// In a file, by its number.
    File { file: usize, offset: usize },
    /// Here: what a file holds in another form than bytes in order.
    Here(Arc<[u8]>),
}

#[derive(Debug)]
struct Held {
    ty: TensorType,
    element: Element,
    place: Place,
}

/// The tensors of an ONNX file, by name.
#[derive(Debug)]
pub(super) struct Weights {
    /// The model's file, then files of external data.
    files: Vec<Mapped>,
    numbers: HashMap<String, usize>,
    folder: PathBuf,
    format: String,
    tensors: BTreeMap<String, Held>,
}

impl Weights {
    /// No tensors yet, of a model.
    pub(super) fn new(model: &Model) -> Result<Weights, Problems> {
        let file = Mapped::open(model.path(), "an ONNX model")?;
        Ok(Weights {
            files: vec![file],
            numbers: HashMap::new(),
            folder: model.folder().to_owned(),
            format: model.format(),
            tensors: BTreeMap::new(),
        })
    }

    /// Files of external data.
    pub(super) fn beside(&self) -> Vec<PathBuf> {
        self.files[1..].iter().map(|file| file.path().to_owned()).collect()
    }

    /// Adds a tensor under a name that is free, which may get a number behind it; returns the name and the type.
    ///
    /// # Errors
    /// An element type that the IR does not have; elements that are not there; external data outside of the model's folder.
    pub(super) fn add(
        &mut self,
        model: &Model,
        name: &str,
        tensor: &TensorProto,
    ) -> Result<(String, TensorType), Problems> {
        let held = self.held(model, tensor)?;
        let mut free = name.to_owned();
        let mut n = 1;
        while self.tensors.contains_key(&free) {
            free = format!("{name}_{n}");
            n += 1;
        }
        let ty = held.ty.clone();
        self.tensors.insert(free.clone(), held);
        Ok((free, ty))
    }

    /// Another tensor of the same bytes: of this shape, in unsigned 4-bit elements. `None` if the bytes are not as many.
    pub(super) fn as_nibbles(&mut self, name: &str, shape: &[usize]) -> Option<(String, TensorType)> {
        let held = self.tensors.get(name)?;
        let elements = checked_elements(shape)?;
        if held.element != Element::Whole(DType::U8) || held.ty.elements() != elements.div_ceil(2) {
            return None;
        }
        let element = Element::Nibble { signed: false };
        let ty = TensorType::new(element.dtype(), shape);
        let name = format!("{name}.int4");
        let held = Held { ty: ty.clone(), element, place: held.place.clone() };
        self.tensors.insert(name.clone(), held);
        Some((name, ty))
    }

    /// Forgets tensors that the graph does not load.
    pub(super) fn keep(&mut self, loads: impl Fn(&str) -> bool) {
        self.tensors.retain(|name, _| loads(name));
    }

    /// The numbers of a tensor, if they are integers or booleans, or at most `floats` floats.
    ///
    /// # Errors
    /// See [`Weights::add`].
    pub(super) fn numbers(
        &mut self,
        model: &Model,
        tensor: &TensorProto,
        floats: usize,
    ) -> Result<Option<Tensor>, Problems> {
        let dtype = Element::of(tensor.data_type).map(Element::dtype);
        let elements = elements_of(&tensor.dims).unwrap_or(usize::MAX);
        let weights = dtype.is_none_or(|dtype| dtype.is_float() || dtype.size() == 1 && dtype != DType::Bool);
        if elements > if weights { floats } else { MOST_READ } {
            return Ok(None);
        }
        let held = self.held(model, tensor)?;
        let bytes = self.bytes_of(&held, 0..held.ty.elements());
        Tensor::from_le_bytes(&held.ty, &bytes).map(Some).ok_or_else(|| {
            Problems::one(self.place(model, tensor), format!("{} bytes", bytes.len()), held.ty.to_string())
        })
    }

    fn place(&self, model: &Model, tensor: &TensorProto) -> String {
        format!("{}: tensor {}", model.path().display(), quoted(&tensor.name))
    }

    fn held(&mut self, model: &Model, tensor: &TensorProto) -> Result<Held, Problems> {
        let place = self.place(model, tensor);
        let problem = |found: String, expected: &str| Problems::one(&place, found, expected);
        let name = data_type_name(tensor.data_type).0;
        let element = Element::of(tensor.data_type).ok_or_else(|| {
            problem(
                format!("elements of type {} ({name})", tensor.data_type),
                "floats, integers of 4 to 64 bits, or bool",
            )
        })?;
        let shape: Option<Vec<usize>> = tensor.dims.iter().map(|d| usize::try_from(*d).ok()).collect();
        let count = elements_of(&tensor.dims);
        let (Some(shape), Some(count)) = (shape, count) else {
            return Err(problem(format!("dimensions {:?}", tensor.dims), "sizes whose product is below 2^40"));
        };
        let ty = TensorType::new(element.dtype(), shape);
        let bytes = element.stored(count);
        let here = |bytes: Vec<u8>| Held { ty: ty.clone(), element, place: Place::Here(bytes.into()) };
        if tensor.data_location == 1 {
            return self.external(tensor, &place, bytes).map(|place| Held { ty, element, place });
        }
        if !tensor.raw_data.is_empty() {
            if tensor.raw_data.len() != bytes {
                return Err(problem(format!("{} bytes", tensor.raw_data.len()), &format!("{ty} in {bytes} bytes")));
            }
            return Ok(match model.offset_of(&tensor.raw_data) {
                Some(offset) => Held { ty, element, place: Place::File { file: 0, offset: offset as usize } },
                None => here(tensor.raw_data.to_vec()),
            });
        }
        let (typed, found) = typed(tensor, element);
        if found != count && typed.len() != bytes {
            return Err(problem(format!("{found} elements"), &format!("{count} of {ty}")));
        }
        Ok(here(typed))
    }

    /// The place of external data.
    fn external(&mut self, tensor: &TensorProto, place: &str, bytes: usize) -> Result<Place, Problems> {
        let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let location = entry("location").unwrap_or_default();
        let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if location.is_empty() || !Path::new(location).components().all(inside) {
            return Err(Problems::one(
                place,
                format!("weights in {}", quoted(location)),
                "a file of the model's folder or below it",
            ));
        }
        let number = |key: &str, otherwise: usize| match entry(key) {
            None => Ok(otherwise),
            Some(text) => text
                .trim()
                .parse::<usize>()
                .map_err(|_| Problems::one(place, format!("{key} {}", quoted(text)), "a number of bytes")),
        };
        let (offset, length) = (number("offset", 0)?, number("length", bytes)?);
        if length != bytes {
            return Err(Problems::one(place, format!("{length} bytes of external data"), format!("{bytes}")));
        }
        let file = match self.numbers.get(location) {
            Some(file) => *file,
            None => {
                let path = self.folder.join(location);
                // A link may lead out of the folder.
                let real = std::fs::canonicalize(&path);
                let within = real.and_then(|real| Ok(real.starts_with(std::fs::canonicalize(&self.folder)?)));
                let shown = format!("weights in `{}`", path.display());
                match within {
                    Ok(true) => {}
                    Ok(false) => {
                        return Err(Problems::one(place, format!("{shown}, a link"), "a file of the model's folder"));
                    }
                    Err(error) => return Err(Problems::one(place, format!("{shown}: {error}"), "a readable file")),
                }
                self.files.push(Mapped::open(&path, "weights of an ONNX model")?);
                self.numbers.insert(location.to_owned(), self.files.len() - 1);
                self.files.len() - 1
            }
        };
        let there = self.files[file].bytes().len();
        match offset.checked_add(bytes) {
            Some(end) if end <= there => Ok(Place::File { file, offset }),
            _ => Err(Problems::one(
                place,
                format!("bytes {offset} to {} of {}", offset.saturating_add(bytes), shown(location)),
                format!("bytes of a file of {there}"),
            )),
        }
    }

    /// The bytes of some elements, in the type that the tensor has here.
    fn bytes_of<'a>(&'a self, held: &'a Held, elements: Range<usize>) -> Cow<'a, [u8]> {
        let stored = match &held.place {
            Place::Here(bytes) => &bytes[..],
            Place::File { file, offset } => &self.files[*file].bytes()[*offset..],
        };
        match held.element {
            Element::Whole(dtype) => Cow::Borrowed(&stored[elements.start * dtype.size()..elements.end * dtype.size()]),
            Element::Nibble { signed } => Cow::Owned(
                elements
                    .map(|i| {
                        let bits = stored[i / 2] >> (4 * (i % 2)) & 0xf;
                        if signed && bits & 8 != 0 { bits | 0xf0 } else { bits }
                    })
                    .collect(),
            ),
        }
    }
}

/// The number of elements, unless no machine has as many.
fn elements_of(dims: &[i64]) -> Option<usize> {
    let product = dims.iter().try_fold(1usize, |n, d| n.checked_mul(usize::try_from(*d).ok()?));
    product.filter(|n| *n <= 1 << 40)
}

/// Elements that are stored in a field of their own type, as bytes in order, and how many there are.
fn typed(tensor: &TensorProto, element: Element) -> (Vec<u8>, usize) {
    let narrow = |size: usize| -> Vec<u8> {
        tensor.int32_data.iter().flat_map(|x| x.to_le_bytes().into_iter().take(size)).collect()
    };
    match element {
        Element::Whole(DType::F32) => {
            (tensor.float_data.iter().flat_map(|x| x.to_le_bytes()).collect(), tensor.float_data.len())
        }
        Element::Whole(DType::F64) => {
            (tensor.double_data.iter().flat_map(|x| x.to_le_bytes()).collect(), tensor.double_data.len())
        }
        Element::Whole(DType::I64) => {
            (tensor.int64_data.iter().flat_map(|x| x.to_le_bytes()).collect(), tensor.int64_data.len())
        }
        Element::Whole(DType::U32) => {
            let bytes = tensor.uint64_data.iter().flat_map(|x| (*x as u32).to_le_bytes()).collect();
            (bytes, tensor.uint64_data.len())
        }
        Element::Whole(dtype) => (narrow(dtype.size()), tensor.int32_data.len()),
        // Two elements in a number.
        Element::Nibble { .. } => (narrow(1), 2 * tensor.int32_data.len()),
    }
}

impl WeightSource for Weights {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.tensors.get(name).map(|held| held.ty.clone())
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        let held = self.tensors.get(name).ok_or_else(|| WeightError::Missing { name: name.to_owned() })?;
        Ok(self.bytes_of(held, 0..held.ty.elements()))
    }

    fn part(&self, name: &str, range: Range<usize>) -> Option<Result<Vec<u8>, WeightError>> {
        let held = self.tensors.get(name)?;
        let Element::Nibble { .. } = held.element else { return None };
        if range.end > held.ty.elements() || range.start > range.end {
            let message = format!("no elements up to {}", range.end);
            return Some(Err(WeightError::Read { name: name.to_owned(), message }));
        }
        Some(Ok(self.bytes_of(held, range).into_owned()))
    }

    fn region(&self, name: &str) -> Option<FileRegion> {
        let held = self.tensors.get(name)?;
        match (held.element, &held.place) {
            (Element::Whole(_), Place::File { file, offset }) => Some(FileRegion {
                path: self.files[*file].path().to_owned(),
                offset: *offset as u64,
                len: held.ty.bytes() as u64,
            }),
            _ => None,
        }
    }

    fn done(&self, name: &str) {
        let Some(held) = self.tensors.get(name) else { return };
        if let Place::File { file, offset } = held.place {
            self.files[file].drop_pages(offset..offset + held.element.stored(held.ty.elements()));
        }
    }
}

impl Door for Weights {
    fn path(&self) -> &Path {
        self.files[0].path()
    }

    fn format(&self) -> String {
        self.format.clone()
    }

    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn check_unchanged(&self) -> Result<(), Changed> {
        self.files.iter().try_for_each(Mapped::check_unchanged)
    }
}
