//! What calls of globals make.

use s2dit_ir::DType;

use super::globals::Global;
use super::machine::Machine;
use super::{Id, Object, Stop, Storage, View, damaged};

impl<'a> Machine<'a> {
    /// What `cls.__new__` of a harmless class makes, whatever its arguments are: `Namespace()` before its attributes.
    pub(super) fn instance(&mut self, class: Id, opcode: u8) -> Result<(), Stop> {
        match self.objects[class] {
            Object::Global(Global::Harmless) => self.push(Object::Other),
            _ => return Err(Stop::Code(format!("the opcode 0x{opcode:02x}, which makes an object of a class"))),
        }
        Ok(())
    }

    /// What a call of a global makes.
    pub(super) fn call(&mut self, function: Id, arguments: Id) -> Result<Id, Stop> {
        let (Object::Global(global), Object::Tuple(arguments)) = (&self.objects[function], &self.objects[arguments])
        else {
            return damaged("a call of what is no function");
        };
        let (global, arguments) = (*global, arguments.clone());
        let made = match (global, arguments.as_slice()) {
            (Global::OrderedDict, []) | (Global::DefaultDict, [] | [_]) => Object::Dict(Vec::new()),
            (Global::RebuildTensor, &[storage, offset, size, stride, _, _, ref about @ ..]) => {
                // Conjugate and negative views are marked in a seventh argument.
                if about.iter().any(|id| !matches!(&self.objects[*id], Object::Dict(marks) if marks.is_empty())) {
                    return damaged("a tensor that is a conjugate or negative view of its storage");
                }
                Object::Tensor(self.view(storage, offset, size, stride)?)
            }
            (Global::RebuildParameter, &[tensor, ..]) if matches!(self.objects[tensor], Object::Tensor(_)) => {
                return Ok(tensor);
            }
            (Global::RebuildWithAttributes, &[function, class, arguments, _])
                if matches!(self.objects[function], Object::Global(Global::RebuildTensor))
                    && matches!(self.objects[class], Object::Global(Global::TensorClass)) =>
            {
                return self.call(function, arguments);
            }
            (Global::Size, &[sides]) => return Ok(sides),
            (Global::RebuildTyped, &[_, _, _, _, _, _, dtype, ..]) => {
                return Err(Stop::Unread(match self.objects[dtype] {
                    Object::Global(Global::Float8) => "fp8",
                    _ => "an unsigned type of 16 bits or more",
                }));
            }
            (Global::Harmless, _) => Object::Other,
            _ => return damaged(format!("a call of {global:?} with other arguments than torch.save writes")),
        };
        self.objects.push(made);
        Ok(self.objects.len() - 1)
    }

    fn view(&self, storage: Id, offset: Id, size: Id, stride: Id) -> Result<View<'a>, Stop> {
        let (&Object::Storage(storage), &Object::Int(offset)) = (&self.objects[storage], &self.objects[offset]) else {
            return damaged("a tensor without a storage");
        };
        let (shape, strides) = (self.integers(size)?, self.integers(stride)?);
        if shape.len() != strides.len() {
            return damaged("a tensor with other axes than strides");
        }
        Ok(View { storage, offset, shape, strides })
    }

    fn integers(&self, id: Id) -> Result<Vec<i64>, Stop> {
        /// PyTorch has no tensor of more axes. One tuple may be the sizes of many tensors: without a limit a small file fills the memory.
        const MOST_AXES: usize = 64;
        let Object::Tuple(items) = &self.objects[id] else { return damaged("sizes that are no tuple") };
        if items.len() > MOST_AXES {
            return damaged(format!("a tensor of {} axes, more than the {MOST_AXES} of PyTorch", items.len()));
        }
        let integer = |id: &Id| match self.objects[*id] {
            Object::Int(value) => Ok(value),
            _ => damaged("a size that is no integer"),
        };
        items.iter().map(integer).collect()
    }

    /// A persistent id: `('storage', torch.FloatStorage, '0', 'cpu', 1024)`.
    pub(super) fn storage(&self, id: Id) -> Result<Storage<'a>, Stop> {
        let Object::Tuple(items) = &self.objects[id] else { return damaged("a persistent id that is no storage") };
        let parts: Vec<&Object<'a>> = items.iter().map(|id| &self.objects[*id]).collect();
        match parts.as_slice() {
            &[
                &Object::Text("storage"),
                &Object::Global(class),
                &Object::Text(key),
                &Object::Text(_),
                &Object::Int(len),
            ] => match class {
                Global::Storage(dtype) => Ok(Storage { key, dtype, len }),
                Global::Untyped => Ok(Storage { key, dtype: DType::U8, len }),
                _ => damaged("a persistent id that is no storage"),
            },
            _ => damaged("a persistent id that is no storage"),
        }
    }
}
