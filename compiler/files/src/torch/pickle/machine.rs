//! The stack machine that pickles are written for: an opcode at a time.

use std::collections::HashMap;

use super::globals::Global;
use super::{Id, Object, Stop, damaged};
use crate::problems::shown;

/// The state of a pickle that is being read.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    pub(super) objects: Vec<Object<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack at which marks lie.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Machine { bytes, at: 0, objects: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }
    }

    /// The next byte.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The key under which an object is made: the last text that waits below the global that makes it, or else the last one that waits.
    pub(super) fn nearest(&self) -> Option<&'a str> {
        let mut below_global = false;
        let mut last = None;
        for id in self.stack.iter().rev() {
            match self.objects[*id] {
                Object::Global(_) => below_global = true,
                Object::Text(text) if below_global => return Some(text),
                Object::Text(text) => last = last.or(Some(text)),
                _ => {}
            }
        }
        last
    }

    /// Every object that was made.
    pub(super) fn into_objects(self) -> Vec<Object<'a>> {
        self.objects
    }

    /// Runs an opcode; the last one gives the outermost value.
    pub(super) fn step(&mut self) -> Result<Option<Id>, Stop> {
        match self.array::<1>()?[0] {
            // PROTO, FRAME
            0x80 => drop(self.array::<1>()?),
            0x95 => drop(self.array::<8>()?),
            b'.' => return self.pop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.since_mark()?),
            // NONE, NEWTRUE, NEWFALSE
            b'N' => self.push(Object::Other),
            0x88 | 0x89 => self.push(Object::Bool),
            // BININT, BININT1, BININT2, LONG1
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Object::Int(value.into()));
            }
            b'K' => {
                let [value] = self.array()?;
                self.push(Object::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Object::Int(value.into()));
            }
            0x8a => self.long()?,
            // BINFLOAT
            b'G' => {
                self.array::<8>()?;
                self.push(Object::Other);
            }
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8
            b'X' => self.text(4)?,
            0x8c => self.text(1)?,
            0x8d => self.text(8)?,
            // SHORT_BINBYTES, BINBYTES, BINSTRING, SHORT_BINSTRING
            b'C' | b'U' => self.plain(1)?,
            b'B' | b'T' => self.plain(4)?,
            // BINBYTES8, BYTEARRAY8
            0x8e | 0x96 => self.plain(8)?,
            // EMPTY_SET, ADDITEMS, FROZENSET
            0x8f => self.push(Object::Other),
            0x90 => {
                let items = self.since_mark()?;
                self.append(items)?;
            }
            0x91 => {
                self.since_mark()?;
                self.push(Object::Other);
            }
            b')' => self.push(Object::Tuple(Vec::new())),
            b']' => self.push(Object::List(Vec::new())),
            b'}' => self.push(Object::Dict(Vec::new())),
            // TUPLE, TUPLE1, TUPLE2, TUPLE3
            b't' => {
                let items = self.since_mark()?;
                self.push(Object::Tuple(items));
            }
            count @ 0x85..=0x87 => {
                let items = self.take(usize::from(count) - 0x84)?;
                self.push(Object::Tuple(items));
            }
            // APPEND, APPENDS
            b'a' => {
                let items = self.take(1)?;
                self.append(items)?;
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(items)?;
            }
            // SETITEM, SETITEMS
            b's' => {
                let items = self.take(2)?;
                self.set(&items)?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set(&items)?;
            }
            // BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
            b'q' => {
                let [key] = self.array()?;
                self.remember(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let [key] = self.array()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.recall(key)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            // STACK_GLOBAL
            0x93 => {
                let pair = self.take(2)?;
                match (&self.objects[pair[0]], &self.objects[pair[1]]) {
                    (&Object::Text(module), &Object::Text(name)) => self.global(module, name)?,
                    _ => return damaged("a global without a name"),
                }
            }
            b'R' => {
                let pair = self.take(2)?;
                let made = self.call(pair[0], pair[1])?;
                self.stack.push(made);
            }
            b'b' => self.build()?,
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(Object::Storage(storage));
            }
            // NEWOBJ, NEWOBJ_EX
            code @ (0x81 | 0x92) => {
                let class = self.take(if code == 0x81 { 2 } else { 3 })?[0];
                self.instance(class, code)?;
            }
            // INST, OBJ, EXT1, EXT2, EXT4
            code @ (b'i' | b'o' | 0x82..=0x84) => {
                return Err(Stop::Code(format!("the opcode 0x{code:02x}, which makes an object of a class")));
            }
            code => return damaged(format!("the opcode 0x{code:02x}")),
        }
        Ok(None)
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], Stop> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else { return damaged("the end of the pickle") };
        let bytes = &self.bytes[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    /// Bytes after their length, which has so many bytes.
    fn counted(&mut self, width: usize) -> Result<&'a [u8], Stop> {
        let mut length = [0; 8];
        length[..width].copy_from_slice(self.bytes(width)?);
        match usize::try_from(u64::from_le_bytes(length)) {
            Ok(length) => self.bytes(length),
            Err(_) => damaged("a text of more bytes than memory has"),
        }
    }

    fn text(&mut self, width: usize) -> Result<(), Stop> {
        match std::str::from_utf8(self.counted(width)?) {
            Ok(text) => self.push(Object::Text(text)),
            Err(_) => return damaged("a text that is not UTF-8"),
        }
        Ok(())
    }

    fn plain(&mut self, width: usize) -> Result<(), Stop> {
        self.counted(width)?;
        self.push(Object::Other);
        Ok(())
    }

    /// An integer of up to 255 bytes, in two's complement; one of more than 64 bits is nothing that a tensor has.
    fn long(&mut self) -> Result<(), Stop> {
        let digits = self.counted(1)?;
        let negative = digits.last().is_some_and(|last| last & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        match wide.get_mut(..digits.len()) {
            Some(low) => {
                low.copy_from_slice(digits);
                self.push(Object::Int(i64::from_le_bytes(wide)));
            }
            None => self.push(Object::Other),
        }
        Ok(())
    }

    fn line(&mut self) -> Result<&'a str, Stop> {
        let rest = &self.bytes[self.at..];
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return damaged("a line without an end") };
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).or_else(|_| damaged("a name that is not UTF-8"))
    }

    pub(super) fn push(&mut self, object: Object<'a>) {
        self.stack.push(self.objects.len());
        self.objects.push(object);
    }

    /// The stack above the last mark is all that an opcode may take.
    fn take(&mut self, count: usize) -> Result<Vec<Id>, Stop> {
        let floor = self.marks.last().copied().unwrap_or_default();
        match self.stack.len().checked_sub(count).filter(|at| *at >= floor) {
            Some(at) => Ok(self.stack.split_off(at)),
            None => damaged("an opcode without its values"),
        }
    }

    fn pop(&mut self) -> Result<Id, Stop> {
        Ok(self.take(1)?[0])
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, Stop> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => damaged("an opcode without its mark"),
        }
    }

    /// The object that an opcode adds to.
    fn top(&mut self) -> Result<Id, Stop> {
        let floor = self.marks.last().copied().unwrap_or_default();
        match self.stack.last() {
            Some(top) if self.stack.len() > floor => Ok(*top),
            _ => damaged("an opcode without its value"),
        }
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), Stop> {
        let top = self.top()?;
        match &mut self.objects[top] {
            Object::List(list) => list.extend(items),
            Object::Other => {}
            _ => return damaged("items for what is no list"),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Result<(), Stop> {
        let top = self.top()?;
        let (pairs, rest) = items.as_chunks::<2>();
        match &mut self.objects[top] {
            Object::Dict(entries) if rest.is_empty() => entries.extend(pairs.iter().map(|&[key, value]| (key, value))),
            Object::Other if rest.is_empty() => {}
            _ => return damaged("items for what is no dictionary"),
        }
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Result<(), Stop> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), Stop> {
        match self.memo.get(&key) {
            Some(id) => self.stack.push(*id),
            None => return damaged(format!("memo {key}, which nothing was put in")),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), Stop> {
        match Global::of(module, name) {
            Some(global) => self.push(Object::Global(global)),
            None if module == "torch" && name.starts_with("Complex") => return Err(Stop::Complex),
            None => return Err(Stop::Code(format!("the global `{}.{}`", shown(module), shown(name)))),
        }
        Ok(())
    }

    /// The state of an object: what `state_dict` hangs on its dictionary, and attributes of a parameter or of a harmless value, say nothing
    /// of tensors.
    fn build(&mut self) -> Result<(), Stop> {
        self.pop()?;
        let top = self.top()?;
        match self.objects[top] {
            Object::Dict(_) | Object::Tensor(_) | Object::Other => Ok(()),
            _ => Err(Stop::Code("the state of an object".into())),
        }
    }
}
