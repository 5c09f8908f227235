//! Regions as they are made: ops one after the other, with the types of their values.

use std::collections::HashSet;
use std::sync::Arc;

use super::op;
use super::program::{Argument, Attribute, Element, Operation, Property, Region, Type, Value};

/// A region that grows.
#[derive(Debug)]
pub(super) struct Block {
    region: Region,
    values: Vec<Argument>,
    constants: HashSet<Value>,
    /// The file of the ops that are being made.
    pub(super) file: Arc<str>,
}

impl Block {
    /// A region with these arguments.
    pub(super) fn new(arguments: Vec<Argument>, file: &Arc<str>) -> Block {
        let values = arguments.clone();
        let region = Region { arguments, operations: Vec::new() };
        Block { region, values, constants: HashSet::new(), file: file.clone() }
    }

    /// The type of a value.
    pub(super) fn ty(&self, value: Value) -> &Type {
        &self.values[value].ty
    }

    /// The arguments.
    pub(super) fn arguments(&self) -> impl Iterator<Item = &Argument> {
        self.region.arguments.iter()
    }

    /// Whether a value is a constant.
    pub(super) fn is_constant(&self, value: Value) -> bool {
        self.constants.contains(&value)
    }

    /// A value as the argument of what an op stands for.
    pub(super) fn argument(&self, value: Value) -> &Argument {
        &self.values[value]
    }

    /// Appends an op with one result and no constant parts.
    pub(super) fn op(&mut self, name: &'static str, operands: &[Value], result: Type) -> Value {
        self.whole(name, operands, result, Vec::new(), Vec::new())
    }

    /// Appends an op with one result.
    pub(super) fn whole(
        &mut self,
        name: &'static str,
        operands: &[Value],
        result: Type,
        properties: Vec<Property>,
        regions: Vec<Region>,
    ) -> Value {
        self.push(name, operands, vec![result], properties, regions);
        self.values.len() - 1
    }

    /// Appends an op with two results.
    pub(super) fn pair(&mut self, name: &'static str, operands: &[Value], results: &[Type; 2]) -> (Value, Value) {
        self.push(name, operands, results.to_vec(), Vec::new(), Vec::new());
        (self.values.len() - 2, self.values.len() - 1)
    }

    fn push(
        &mut self,
        name: &'static str,
        operands: &[Value],
        results: Vec<Type>,
        properties: Vec<Property>,
        regions: Vec<Region>,
    ) {
        self.values.extend(results.iter().map(|ty| Argument { ty: ty.clone(), file: self.file.clone() }));
        self.region.operations.push(Operation {
            name: name.into(),
            operands: operands.to_vec(),
            results,
            properties,
            regions,
            file: self.file.clone(),
        });
    }

    /// A constant.
    pub(super) fn constant(&mut self, ty: Type, value: Attribute) -> Value {
        let constant = self.whole(op::CONSTANT, &[], ty, vec![Property::Required(value)], Vec::new());
        self.constants.insert(constant);
        constant
    }

    /// Unsigned numbers in a row.
    pub(super) fn ui32s(&mut self, values: &[usize]) -> Value {
        let bytes = values.iter().flat_map(|v| (*v as u32).to_le_bytes()).collect();
        self.constant(tensor(&[values.len()], Element::Ui32), dense(bytes, 4))
    }

    /// Signed numbers in a row.
    pub(super) fn si32s(&mut self, values: &[usize]) -> Value {
        let bytes = values.iter().flat_map(|v| (*v as i32).to_le_bytes()).collect();
        self.constant(tensor(&[values.len()], Element::Si32), dense(bytes, 4))
    }

    /// The region, which ends with an op that hands on values.
    pub(super) fn end(mut self, name: &'static str, values: &[Value]) -> Region {
        self.push(name, values, Vec::new(), Vec::new(), Vec::new());
        self.region
    }

    /// Takes out what no op and none of `values` needs, and gives the rest its new numbers.
    pub(super) fn prune(&mut self, values: &mut [Value]) {
        let arguments = self.region.arguments.len();
        let mut needed = vec![false; self.values.len()];
        needed[..arguments].fill(true);
        values.iter().for_each(|v| needed[*v] = true);
        let mut first = self.values.len();
        for op in self.region.operations.iter().rev() {
            first -= op.results.len();
            let results = &mut needed[first..first + op.results.len()];
            if results.contains(&true) {
                // An op has all of its results or none.
                results.fill(true);
                op.operands.iter().for_each(|v| needed[*v] = true);
            }
        }
        let mut at = arguments;
        self.region.operations.retain(|op| {
            at += op.results.len();
            needed[at - op.results.len()..at].contains(&true)
        });
        let mut numbers = Vec::with_capacity(needed.len());
        let mut next = 0;
        for needed in &needed {
            numbers.push(next);
            next += usize::from(*needed);
        }
        let operands = self.region.operations.iter_mut().flat_map(|op| &mut op.operands);
        operands.chain(values).for_each(|v| *v = numbers[*v]);
        let mut kept = needed.iter();
        self.values.retain(|_| kept.next() == Some(&true));
    }

    /// The number of ops that are no constants.
    pub(super) fn ops(&self) -> usize {
        self.region.operations.iter().filter(|operation| operation.name != op::CONSTANT).count()
    }
}

/// The type of a tensor.
pub(super) fn tensor(shape: &[usize], element: Element) -> Type {
    Type::Tensor { shape: shape.iter().map(|d| *d as i64).collect(), element }
}

/// Elements of `size` bytes; equal ones as one that stands for all.
pub(super) fn dense(bytes: Vec<u8>, size: usize) -> Attribute {
    let mut elements = bytes.chunks_exact(size);
    let first = elements.next();
    match first {
        Some(first) if elements.all(|e| e == first) => Attribute::Dense { splat: true, bytes: first.to_vec() },
        _ => Attribute::Dense { splat: false, bytes },
    }
}

/// A number as the bytes of a floating-point element.
pub(super) fn float(value: f64, element: Element) -> Vec<u8> {
    match element {
        Element::F64 => value.to_le_bytes().to_vec(),
        Element::F16 => half::f16::from_f64(value).to_le_bytes().to_vec(),
        Element::BF16 => half::bf16::from_f64(value).to_le_bytes().to_vec(),
        _ => (value as f32).to_le_bytes().to_vec(),
    }
}
