//! Constants: small ones within the program, large ones as resources, equal ones once.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, bail};
use s2dit_ir::weights::{self, ExpressionId};
use s2dit_ir::{DType, Op, ValueId};

use super::super::block::{dense, tensor};
use super::super::op;
use super::super::program::{Attribute, Type, Value};
use super::{Lowering, element_of, name_of, type_of};
use crate::held;

/// Constants of more bytes than this are resources.
const INLINE: usize = 64;

/// A resource, planned.
#[derive(Clone, Debug)]
pub(in super::super) struct Blob {
    /// Its name, unique in the asset.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// What is in it.
    pub data: Data,
}

/// The contents of a resource.
#[derive(Clone, Debug)]
pub(in super::super) enum Data {
    /// A constant of one of the functions.
    Value { function: usize, value: ValueId },
    /// A piece of a compressed weight of one of the functions.
    Compressed { function: usize, value: ValueId, piece: Piece },
}

/// The resources of a compressed weight, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Piece {
    /// One an element, packed.
    Codes,
    /// Scales or palettes.
    Table,
}

/// The resources of all functions.
#[derive(Default)]
pub(super) struct Blobs {
    pub(super) blobs: Vec<Blob>,
    pub(super) non_finite: Vec<(String, u64)>,
    by_key: HashMap<String, usize>,
    names: HashSet<String>,
}

impl Blobs {
    /// The number of the resource with this key, which `data` fills.
    pub(super) fn number(&mut self, key: String, name: &str, bytes: u64, data: Data) -> usize {
        if let Some(&number) = self.by_key.get(&key) {
            return number;
        }
        let mut unique = name.to_string();
        let mut tries = 1;
        while !self.names.insert(unique.clone()) {
            unique = format!("{name}_{tries}");
            tries += 1;
        }
        self.by_key.insert(key, self.blobs.len());
        self.blobs.push(Blob { name: unique, bytes, data });
        self.blobs.len() - 1
    }
}

impl Lowering<'_> {
    /// The constant `v` in a shape of as many elements.
    pub(super) fn constant(&mut self, v: ValueId, shape: &[usize]) -> Result<Value> {
        let (f, id) = (self.f, ExpressionId::of(self.f, v).to_string());
        let key = format!("{shape:?} {id}");
        if let Some(value) = self.constants.get(&key) {
            return Ok(*value);
        }
        let name = name_of(f, v);
        let value = match (f.op(v), weights::over_compressed(f, v)) {
            // Stored in half the bytes, and computed with in fp32.
            (Op::Cast(_), None) if f.dtype(v) == DType::F32 && self.is_half(v) => {
                let half = self.constant(f.operands(v)[0], shape)?;
                self.emit(op::CAST, &[half], tensor(shape, element_of(DType::F32)))
            }
            (Op::Compress(c), _) => {
                let (whole, value) = (f.shape(v).to_vec(), self.compressed(v, &name, c.scheme)?);
                if whole == shape { value } else { self.reshaped(value, shape) }
            }
            (_, Some(op)) => {
                bail!("the constant `{name}` is `{op}` of a compressed weight: it would be stored uncompressed")
            }
            _ => {
                let ty = f.ty(v);
                let as_type = type_of(&s2dit_ir::TensorType::new(ty.dtype, shape))?;
                self.plain(v, &name, id, as_type)?
            }
        };
        self.constants.insert(key, value);
        Ok(value)
    }

    /// Whether a cast is of fp16 numbers that are a resource.
    fn is_half(&self, v: ValueId) -> bool {
        let of = self.f.operands(v)[0];
        self.f.dtype(of) == DType::F16 && self.f.ty(of).bytes() > INLINE && !matches!(self.f.op(of), Op::Load(_))
    }

    fn plain(&mut self, v: ValueId, name: &str, id: String, as_type: Type) -> Result<Value> {
        let ty = self.f.ty(v);
        let splat = match self.f.op(v) {
            Op::Literal(literal) => literal.values.len() == 1,
            _ => false,
        };
        if !splat && ty.bytes() > INLINE && ty.dtype != DType::Bool {
            let data = Data::Value { function: self.index, value: v };
            let number = self.blobs.number(id, name, ty.bytes() as u64, data);
            return Ok(self.block.constant(as_type, Attribute::Resource(number)));
        }
        let mut bytes = Vec::with_capacity(ty.bytes());
        let written = weights::write_constant(self.f, v, self.source, &mut bytes)
            .with_context(|| format!("cannot compute the constant `{name}`"))?;
        held::check(name, ty.dtype, &written, &mut self.blobs.non_finite)?;
        Ok(self.block.constant(as_type, dense(bytes, ty.dtype.size())))
    }

    /// A piece of a compressed weight as a constant.
    pub(super) fn piece(&mut self, v: ValueId, name: &str, piece: Piece, bytes: u64, ty: Type) -> Value {
        let key = format!("{piece:?} of {}", ExpressionId::of(self.f, v));
        let suffix = match piece {
            Piece::Codes => "codes",
            Piece::Table => "table",
        };
        let data = Data::Compressed { function: self.index, value: v, piece };
        let number = self.blobs.number(key, &format!("{name}.{suffix}"), bytes, data);
        self.block.constant(ty, Attribute::Resource(number))
    }

    /// The constant or value `v` in a shape of as many elements.
    pub(super) fn value_as(&mut self, v: ValueId, shape: &[usize]) -> Result<Value> {
        if self.folded.contains(&v) {
            return self.constant(v, shape);
        }
        let value = self.value(v)?;
        Ok(self.reshaped(value, shape))
    }

    /// The type of the IR value `v`.
    pub(super) fn result(&self, v: ValueId) -> Type {
        tensor(self.f.shape(v), element_of(self.f.dtype(v)))
    }
}
