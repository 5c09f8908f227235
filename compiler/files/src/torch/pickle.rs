//! A reader of pickles that makes values and never runs code: the stack machine of Python's `pickletools`, with the opcodes of protocol 2
//! and later that dictionaries of tensors need.
//!
//! Objects lie in one list and refer to each other by their place in it, so that neither sharing nor cycles nor deep nesting cost more than the
//! pickle has bytes.

mod calls;
mod globals;
mod harmless;
mod machine;

use s2dit_ir::DType;

use self::globals::Global;
use self::machine::Machine;
use crate::problems::{Problems, not_read, quoted};

/// An object's place in [`Pickle`].
pub(super) type Id = usize;

/// A value of a pickle.
#[derive(Clone, Debug)]
pub(super) enum Object<'a> {
    /// A value that no tensor depends on: `None`, a float, bytes, an array of NumPy. What is put into it is dropped.
    Other,
    Int(i64),
    Bool,
    Text(&'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage<'a>),
    Tensor(View<'a>),
}

/// A storage: an entry of the zip file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage<'a> {
    pub(super) key: &'a str,
    pub(super) dtype: DType,
    /// Elements.
    pub(super) len: i64,
}

/// A tensor: a view of a storage.
#[derive(Clone, Debug)]
pub(super) struct View<'a> {
    pub(super) storage: Storage<'a>,
    /// First element in the storage.
    pub(super) offset: i64,
    pub(super) shape: Vec<i64>,
    /// Elements of the storage from one index of an axis to the next.
    pub(super) strides: Vec<i64>,
}

/// The values of a pickle.
pub(super) struct Pickle<'a> {
    objects: Vec<Object<'a>>,
    root: Id,
}

impl<'a> Pickle<'a> {
    /// Reads a pickle; `place` names it in problems.
    ///
    /// # Errors
    /// A damaged pickle; an opcode or a global that makes anything but plain values and tensors.
    pub(super) fn read(bytes: &'a [u8], place: &str) -> Result<Self, Problems> {
        let mut machine = Machine::new(bytes);
        loop {
            let at = machine.at();
            let near = |machine: &Machine<'_>| match machine.nearest() {
                Some(key) => format!("{place} at byte {at}, after {}", quoted(key)),
                None => format!("{place} at byte {at}"),
            };
            match machine.step() {
                Ok(None) => {}
                Ok(Some(root)) => return Ok(Pickle { objects: machine.into_objects(), root }),
                Err(Stop::Damaged(what)) => {
                    let expected = "a whole pickle of tensors";
                    return Err(Problems::one(near(&machine), what, expected));
                }
                Err(Stop::Unread(dtype)) => {
                    return Err(Problems::one(near(&machine), format!("a tensor of {dtype}"), not_read(dtype)));
                }
                Err(Stop::Complex) => {
                    let expected =
                        "real ones: keep torch.view_as_real of it in the model, and compute with its two halves";
                    return Err(Problems::one(near(&machine), "a tensor of complex numbers", expected));
                }
                Err(Stop::Code(what)) => {
                    return Err(Problems::one(
                        near(&machine),
                        format!("{what}: a pickle with code in it, which is not run"),
                        "dictionaries of tensors and plain values; save the state dict alone, best with safetensors.torch.save_file",
                    ));
                }
            }
        }
    }

    /// The outermost value.
    pub(super) fn root(&self) -> Id {
        self.root
    }

    /// A value.
    pub(super) fn get(&self, id: Id) -> &Object<'a> {
        &self.objects[id]
    }
}

/// Why the machine stopped.
enum Stop {
    /// Bytes that are no pickle.
    Damaged(String),
    /// Something that would have to be executed.
    Code(String),
    /// A tensor of a type that is not read.
    Unread(&'static str),
    /// A tensor of complex numbers.
    Complex,
}

fn damaged<T>(what: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Damaged(what.into()))
}
