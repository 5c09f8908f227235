//! The weight store of a checkpoint: the doors that its tensors come through, under which names, and what is added to them.
//!
//! Files are not trusted: everything that a header or an index says is checked before it is used. Nor are other processes:
//! [`WeightStore::check_unchanged`] tells whether one wrote to the files meanwhile.

mod open;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::OnceLock;

use s2dit_backends::stamp::Changed;
use s2dit_ir::convert;
use s2dit_ir::{DType, FileRegion, TensorType, WeightError, WeightSource};

use crate::hash::Hashes;
use crate::problems::{Problem, Problems, quoted, shown};
use crate::{Change, Door, merge};

pub use open::{INDEX_ENDING, INDEX_FILE, TRANSFORMERS_FILE, WEIGHTS_FILE, index_of};

/// Weight files, and which of them holds each tensor. A store knows no model.
#[derive(Debug, Default)]
pub struct WeightStore {
    doors: Vec<Box<dyn Door>>,
    tensors: BTreeMap<String, Held>,
    /// Tensors that are there, but with a problem that is told already.
    pub(crate) damaged: BTreeSet<String>,
    hashes: OnceLock<Hashes>,
    hash: OnceLock<blake3::Hash>,
}

/// What may be added to any weight without a look at the sums: far below the largest number of fp32, 3.4e38.
const SURELY_FITS: f64 = 1e30;

/// A tensor of a store.
#[derive(Debug)]
struct Held {
    /// Number of its door.
    door: usize,
    /// Its name there.
    stored: String,
    /// For some rows of a tensor of the door: the first of its elements there.
    first: Option<usize>,
    /// Its type in the store: fp32 if anything is added to it, so that nothing is rounded away.
    ty: TensorType,
    changes: Vec<Change>,
}

impl Held {
    /// Elements in the door's tensor.
    fn there(&self, elements: &Range<usize>) -> Range<usize> {
        let first = self.first.unwrap_or_default();
        first + elements.start..first + elements.end
    }

    /// Bytes in the door's tensor, of one that nothing is added to.
    fn bytes_there(&self, bytes: &Range<usize>) -> Range<usize> {
        let first = self.first.unwrap_or_default() * self.ty.dtype.size();
        first + bytes.start..first + bytes.end
    }
}

impl WeightStore {
    /// Adds a tensor of the door that is [pushed](WeightStore::push) next.
    pub(crate) fn hold(&mut self, name: &str, stored: &str, ty: TensorType) {
        let held = Held { door: self.doors.len(), stored: stored.to_owned(), first: None, ty, changes: Vec::new() };
        self.tensors.insert(name.to_owned(), held);
    }

    pub(crate) fn push(&mut self, door: Box<dyn Door>) {
        self.doors.push(door);
    }

    /// Gives tensors other names: `to` has the new name of each.
    ///
    /// # Errors
    /// Two tensors that would have one name.
    pub fn rename(&mut self, to: impl Fn(&str) -> String) -> Result<(), Problems> {
        let mut renamed: BTreeMap<String, Held> = BTreeMap::new();
        let mut twice: Vec<String> = Vec::new();
        for (name, held) in std::mem::take(&mut self.tensors) {
            let new = to(&name);
            if let Some(other) = renamed.get(&new) {
                twice.push(format!("{} and {}, both `{}`", quoted(&other.stored), quoted(&held.stored), shown(&new)));
            }
            renamed.insert(new, held);
        }
        self.tensors = renamed;
        self.damaged = std::mem::take(&mut self.damaged).iter().map(|name| to(name)).collect();
        match twice.as_slice() {
            [] => Ok(()),
            [first, rest @ ..] => {
                let place = self.doors.first().map(|door| door.path().display().to_string()).unwrap_or_default();
                let more =
                    if rest.is_empty() { String::new() } else { format!(", and {} more such pairs", rest.len()) };
                Err(Problems::one(place, format!("{first}{more}"), "each tensor once"))
            }
        }
    }

    /// Cuts a tensor into as many runs of rows, of one length, as there are names for them.
    ///
    /// # Errors
    /// No such tensor, or one whose rows cannot be shared out; a name that is taken.
    pub fn split(&mut self, name: &str, names: &[String]) -> Result<(), Problem> {
        let place = self.place_of(name).unwrap_or_else(|| shown(name));
        let problem = |found: String, expected: String| Problem { place: place.clone(), found, expected };
        let Some(whole) = self.tensors.get(name).filter(|held| held.first.is_none() && held.changes.is_empty()) else {
            return Err(problem("no such tensor".into(), "one to take rows of".into()));
        };
        let rows = whole.ty.shape.first().copied().unwrap_or_default();
        if names.is_empty() || rows == 0 || rows % names.len() != 0 {
            let expected = format!("{} tensors below each other, of as many rows each", names.len());
            return Err(problem(whole.ty.to_string(), expected));
        }
        if let Some(taken) = names.iter().find(|name| self.tensors.contains_key(*name)) {
            return Err(problem(format!("rows of `{taken}`"), format!("no tensor {} beside it", quoted(taken))));
        }
        let mut ty = whole.ty.clone();
        ty.shape[0] = rows / names.len();
        let (door, stored) = (whole.door, whole.stored.clone());
        let damaged = self.damaged.remove(name);
        self.tensors.remove(name);
        for (part, name) in names.iter().enumerate() {
            let first = Some(part * ty.elements());
            let held = Held { door, stored: stored.clone(), first, ty: ty.clone(), changes: Vec::new() };
            self.tensors.insert(name.clone(), held);
            if damaged {
                self.damaged.insert(name.clone());
            }
        }
        Ok(())
    }

    /// Adds something to a tensor, which is fp32 from now on.
    ///
    /// # Errors
    /// No such tensor; one that is no float; a change of another shape; one that is not finite, or leads beyond what fp32 holds.
    pub fn change(&mut self, name: &str, change: Change) -> Result<(), Problem> {
        let missing = |found: &str| Problem {
            place: shown(name),
            found: found.to_owned(),
            expected: "a tensor of bf16, f16 or f32 to add to".to_owned(),
        };
        let held = self.tensors.get_mut(name).ok_or_else(|| missing("no such tensor"))?;
        if !merge::is_float(held.ty.dtype) {
            return Err(missing(&held.ty.to_string()));
        }
        let problem = |found: String, expected: String| Problem { place: shown(name), found, expected };
        change.check(&held.ty).map_err(|(found, expected)| problem(found, expected))?;
        let bound = change.bound().map_err(|found| problem(found, "finite numbers".into()))?;
        held.ty = TensorType::new(DType::F32, held.ty.shape.clone());
        held.changes.push(change);
        // Trained changes are far below, and their sums need no look.
        if bound < SURELY_FITS {
            return Ok(());
        }
        let expected = "sums that fp32 holds, below 3.4e38 (a smaller scale, or another file)";
        self.check_sums(name).map_err(|found| problem(found, expected.into()))
    }

    /// Checks that no element of a tensor that was a number before its changes is beyond fp32 after them: if one is, what was found.
    fn check_sums(&self, name: &str) -> Result<(), String> {
        let Some(held) = self.tensors.get(name) else { return Ok(()) };
        let door = &*self.doors[held.door];
        let Some(stored) = door.ty(&held.stored) else { return Ok(()) };
        for begin in (0..held.ty.elements()).step_by(merge::PART) {
            let part = begin..held.ty.elements().min(begin + merge::PART);
            let read = |error: WeightError| error.to_string();
            let before = merge::values(door, &held.stored, &stored, held.there(&part)).map_err(read)?;
            let mut after = before.clone();
            for change in &held.changes {
                change.add(&held.ty.shape, &part, &mut after).map_err(read)?;
            }
            let beyond = |(before, after): (&f64, &f64)| before.is_finite() && !(*after as f32).is_finite();
            if let Some(at) = before.iter().zip(&after).position(beyond) {
                return Err(format!("a sum of {:e} at element {}", after[at], begin + at));
            }
        }
        Ok(())
    }

    /// The weight files.
    #[must_use]
    pub fn doors(&self) -> &[Box<dyn Door>] {
        &self.doors
    }

    /// Checks that no weight file has changed since it was opened.
    ///
    /// # Errors
    /// The first file that has.
    pub fn check_unchanged(&self) -> Result<(), Changed> {
        self.doors.iter().try_for_each(|door| door.check_unchanged())
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The file that holds a tensor.
    #[must_use]
    pub fn door_of(&self, name: &str) -> Option<&dyn Door> {
        self.tensors.get(name).map(|held| &*self.doors[held.door])
    }

    /// A tensor in its file, as a place in messages: the file, and the name that it has there.
    #[must_use]
    pub fn place_of(&self, name: &str) -> Option<String> {
        let held = self.tensors.get(name)?;
        Some(format!("{}: {}", self.doors[held.door].path().display(), shown(&held.stored)))
    }

    /// Whether a tensor has a problem that [`WeightStore::open_damaged`] told.
    #[must_use]
    pub fn is_damaged(&self, name: &str) -> bool {
        self.damaged.contains(name)
    }

    /// Elements of all tensors.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.types().map(|ty| ty.elements() as u64).sum()
    }

    /// Bytes of all tensors, in the types that they have here.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.types().map(|ty| ty.bytes() as u64).sum()
    }

    /// The element types in use, with the number of tensors of each.
    #[must_use]
    pub fn dtypes(&self) -> BTreeMap<DType, usize> {
        let mut counts = BTreeMap::new();
        for ty in self.types() {
            *counts.entry(ty.dtype).or_default() += 1;
        }
        counts
    }

    /// The hash of the tensors: names, types and contents, however they are spread over files. Computed once, on rayon's threads, of
    /// what was not hashed when it was [visited](WeightSource::visit); may run beside other readers.
    pub fn content_hash(&self) -> blake3::Hash {
        *self.hash.get_or_init(|| {
            let tensors: Vec<(&str, TensorType)> =
                self.tensors.iter().map(|(name, held)| (name.as_str(), held.ty.clone())).collect();
            self.hashes().of_all(self, &tensors, |name, range| self.read(name, range).ok())
        })
    }

    /// Some bytes of a tensor.
    ///
    /// # Errors
    /// A tensor that does not exist or cannot be read.
    pub fn read(&self, name: &str, range: Range<usize>) -> Result<Cow<'_, [u8]>, WeightError> {
        if let Some(part) = self.part(name, range.clone()) {
            return part.map(Cow::Owned);
        }
        let short = || WeightError::Read { name: name.to_owned(), message: format!("no bytes up to {}", range.end) };
        Ok(match self.bytes(name)? {
            Cow::Borrowed(bytes) => Cow::Borrowed(bytes.get(range.clone()).ok_or_else(short)?),
            Cow::Owned(bytes) => Cow::Owned(bytes.get(range.clone()).ok_or_else(short)?.to_vec()),
        })
    }

    fn hashes(&self) -> &Hashes {
        self.hashes
            .get_or_init(|| Hashes::of_sizes(self.tensors.iter().map(|(name, held)| (name.as_str(), held.ty.bytes()))))
    }

    fn types(&self) -> impl Iterator<Item = &TensorType> {
        self.tensors.values().map(|held| &held.ty)
    }

    /// Some bytes of a tensor that is some rows of another.
    fn rows(&self, held: &Held, range: Range<usize>) -> Result<Cow<'_, [u8]>, WeightError> {
        let (door, there) = (&*self.doors[held.door], held.bytes_there(&range));
        if let Some(part) = door.part(&held.stored, there.clone()) {
            return part.map(Cow::Owned);
        }
        let message = || format!("no bytes {} to {}", there.start, there.end);
        let short = || WeightError::Read { name: held.stored.clone(), message: message() };
        Ok(match door.bytes(&held.stored)? {
            Cow::Borrowed(bytes) => Cow::Borrowed(bytes.get(there.clone()).ok_or_else(short)?),
            Cow::Owned(bytes) => Cow::Owned(bytes.get(there.clone()).ok_or_else(short)?.to_vec()),
        })
    }

    /// Some bytes of a tensor that something is added to: computed in float64, and rounded once, to fp32.
    fn changed(&self, held: &Held, range: Range<usize>) -> Result<Vec<u8>, WeightError> {
        let door = &*self.doors[held.door];
        let size = DType::F32.size();
        let elements = range.start / size..range.end / size;
        let missing = || WeightError::Missing { name: held.stored.clone() };
        let stored = door.ty(&held.stored).ok_or_else(missing)?;
        if elements.end > held.ty.elements() || elements.start > elements.end {
            let message = format!("no bytes {} to {} in {}", range.start, range.end, held.ty);
            return Err(WeightError::Read { name: held.stored.clone(), message });
        }
        let mut values = merge::values(door, &held.stored, &stored, held.there(&elements))?;
        for change in &held.changes {
            change.add(&held.ty.shape, &elements, &mut values)?;
        }
        let mut bytes = vec![0; values.len() * size];
        convert::from_f64(&values, DType::F32, &mut bytes);
        Ok(bytes)
    }
}

impl WeightSource for WeightStore {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.tensors.get(name).map(|held| held.ty.clone())
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        match self.tensors.get(name) {
            None => Err(WeightError::Missing { name: name.to_owned() }),
            Some(held) if held.changes.is_empty() && held.first.is_none() => self.doors[held.door].bytes(&held.stored),
            Some(held) if held.changes.is_empty() => self.rows(held, 0..held.ty.bytes()),
            Some(held) => self.changed(held, 0..held.ty.bytes()).map(Cow::Owned),
        }
    }

    fn part(&self, name: &str, range: Range<usize>) -> Option<Result<Vec<u8>, WeightError>> {
        let held = self.tensors.get(name)?;
        match held.changes.is_empty() {
            true => self.doors[held.door].part(&held.stored, held.bytes_there(&range)),
            false => Some(self.changed(held, range)),
        }
    }

    fn region(&self, name: &str) -> Option<FileRegion> {
        let held = self.tensors.get(name).filter(|held| held.changes.is_empty())?;
        let region = self.doors[held.door].region(&held.stored)?;
        let rows = held.bytes_there(&(0..held.ty.bytes()));
        Some(FileRegion { offset: region.offset + rows.start as u64, len: rows.len() as u64, ..region })
    }

    fn visit(&self, name: &str, offset: u64, bytes: &[u8]) {
        if let Some(held) = self.tensors.get(name)
            && self.hash.get().is_none()
        {
            self.hashes().visit(name, held.ty.bytes(), offset as usize, bytes);
        }
    }

    fn done(&self, name: &str) {
        if let Some(held) = self.tensors.get(name) {
            self.doors[held.door].done(&held.stored);
        }
    }
}
