//! Numbers of names, attributes and types, as LLVM's writer of bytecode gives them: what is used most often has the smallest number, and of
//! equals the one that was met first. Ops are met in the order of `IRNumberingState`: a region whole, then the regions within its ops, the last first.

use std::collections::HashMap;
use std::hash::Hash;

use super::super::program::{Attribute, Operation, Property, Region, Type};

/// Numbers of things that are stored once.
#[derive(Debug)]
pub(super) struct Numbers<T> {
    /// Things with the number of their uses; in the order of their numbers once they are [settled](Numbers::settle).
    things: Vec<(T, usize)>,
    index: HashMap<T, usize>,
}

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Numbers { things: Vec::new(), index: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Numbers<T> {
    /// Notes a use; `true` if it is the first.
    fn meet(&mut self, thing: &T) -> bool {
        if let Some(&at) = self.index.get(thing) {
            self.things[at].1 += 1;
            return false;
        }
        self.index.insert(thing.clone(), self.things.len());
        self.things.push((thing.clone(), 1));
        true
    }

    /// Gives the final numbers.
    fn settle(&mut self) {
        self.things.sort_by_key(|(_, uses)| std::cmp::Reverse(*uses));
        self.index = self.things.iter().enumerate().map(|(at, (thing, _))| (thing.clone(), at)).collect();
    }

    /// Things in the order of their numbers.
    pub(super) fn in_order(&self) -> impl ExactSizeIterator<Item = &T> {
        self.things.iter().map(|(thing, _)| thing)
    }

    /// The number of a thing that was met.
    pub(super) fn of(&self, thing: &T) -> u64 {
        // What is written was met before: both walk the same ops.
        self.index.get(thing).map_or(u64::MAX, |&at| at as u64)
    }
}

/// The numbers of a program.
#[derive(Debug, Default)]
pub(super) struct Numbering {
    pub(super) names: Numbers<String>,
    pub(super) attributes: Numbers<Attribute>,
    pub(super) types: Numbers<Type>,
}

impl Numbering {
    pub(super) fn of(root: &Operation) -> Numbering {
        let mut numbering = Numbering::default();
        numbering.operation(root);
        let mut regions: Vec<&Region> = root.regions.iter().collect();
        while let Some(region) = regions.pop() {
            for argument in &region.arguments {
                numbering.attribute(&Attribute::Location(argument.file.clone()));
                numbering.ty(&argument.ty);
            }
            for op in &region.operations {
                numbering.operation(op);
            }
            regions.extend(region.operations.iter().flat_map(|op| &op.regions));
        }
        numbering.names.settle();
        numbering.attributes.settle();
        numbering.types.settle();
        numbering
    }

    fn operation(&mut self, op: &Operation) {
        self.names.meet(&op.name.to_string());
        for ty in &op.results {
            self.ty(ty);
        }
        for property in &op.properties {
            if let Property::Required(attribute) | Property::Optional(Some(attribute)) = property {
                self.attribute(attribute);
            }
        }
        self.attribute(&Attribute::Location(op.file.clone()));
    }

    fn attribute(&mut self, attribute: &Attribute) {
        if !self.attributes.meet(attribute) {
            return;
        }
        match attribute {
            Attribute::Type(ty) => self.ty(ty),
            Attribute::Array(values) | Attribute::Dictionary(values) | Attribute::Opaque { values, .. } => {
                for value in values {
                    self.attribute(value);
                }
            }
            Attribute::Range(file) => self.attribute(&Attribute::File(file.clone())),
            Attribute::Location(file) => {
                self.attribute(&Attribute::Range(file.clone()));
                self.attribute(&Attribute::Unit);
            }
            Attribute::Callee(name) => {
                self.attribute(&Attribute::Symbol(name.clone()));
                self.ty(&Type::Callable);
            }
            Attribute::String(_)
            | Attribute::Symbol(_)
            | Attribute::Float(_)
            | Attribute::Signed { .. }
            | Attribute::Integer { .. }
            | Attribute::Dense { .. }
            | Attribute::Resource(_)
            | Attribute::Choice { .. }
            | Attribute::Unit
            | Attribute::File(_) => {}
        }
    }

    fn ty(&mut self, ty: &Type) {
        if !self.types.meet(ty) {
            return;
        }
        match ty {
            Type::Tensor { element, .. } => self.ty(&Type::Element(*element)),
            Type::Function { inputs, results } => results.iter().chain(inputs).for_each(|ty| self.ty(ty)),
            Type::Handle { shape, element } => self.ty(&Type::Tensor { shape: shape.clone(), element: *element }),
            Type::Element(_) | Type::Token | Type::Callable | Type::Other { .. } => {}
        }
    }
}
