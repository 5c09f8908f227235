//! What ops that are no primitives stand for: each carries a region of primitives, for systems that do not know the op.
//!
//! The regions are those that Apple's library writes. (Its softmax does not subtract the greatest element, and its `reduce_sum` inside keeps the shape
//! of the operand: a system that knows the op runs its own.)

use std::sync::Arc;

use super::block::{Block, float, tensor};
use super::op;
use super::program::{Argument, Attribute, Element, OPEN, Region, Type, Value};

/// The shape of a static tensor and its element type.
fn parts(ty: &Type) -> (Vec<usize>, Element) {
    match ty {
        Type::Tensor { shape, element } => (shape.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect(), *element),
        Type::Element(element) => (Vec::new(), *element),
        _ => (Vec::new(), Element::F32),
    }
}

/// As many open axes as `ty` has.
fn open(ty: &Type, element: Element) -> Type {
    Type::Tensor { shape: vec![OPEN; parts(ty).0.len()], element }
}

/// The primitive that an op with broadcasting stands for.
fn primitive(name: &str) -> &'static str {
    match name {
        op::BROADCASTING_SUB => op::SUB,
        op::BROADCASTING_MUL => op::MUL,
        op::BROADCASTING_DIVIDE => op::DIVIDE,
        op::BROADCASTING_FLOOR_DIVIDE => op::FLOOR_DIVIDE,
        op::BROADCASTING_MAXIMUM => op::MAXIMUM,
        op::BROADCASTING_MINIMUM => op::MINIMUM,
        op::BROADCASTING_POW => op::POW,
        op::BROADCASTING_EQUAL => op::EQUAL,
        op::BROADCASTING_NOT_EQUAL => op::NOT_EQUAL,
        op::BROADCASTING_GREATER => op::GREATER,
        op::BROADCASTING_AND => op::AND,
        op::BROADCASTING_OR => op::OR,
        op::BROADCASTING_XOR => op::XOR,
        _ => op::ADD,
    }
}

/// An elementwise op with broadcasting: both operands are brought to the result's shape.
pub(super) fn broadcasting(name: &str, x: &Argument, y: &Argument, result: &Type, file: &Arc<str>) -> Region {
    let mut b = Block::new(vec![x.clone(), y.clone()], file);
    let shape = parts(result).0;
    let (x, y) = (spread(&mut b, 0, &shape), spread(&mut b, 1, &shape));
    let value = b.op(primitive(name), &[x, y], result.clone());
    b.end(op::YIELD, &[value])
}

/// A value brought to a shape.
fn spread(b: &mut Block, value: Value, shape: &[usize]) -> Value {
    let (own, element) = parts(b.ty(value));
    let (mut value, mut padded) = (value, own);
    if padded.len() < shape.len() {
        padded = [vec![1; shape.len() - padded.len()], padded].concat();
        let wanted = b.si32s(&padded);
        value = b.op(op::RESHAPE, &[value, wanted], tensor(&padded, element));
    }
    let axes: Vec<usize> = (0..shape.len()).filter(|&i| padded[i] != shape[i]).collect();
    if axes.is_empty() {
        return value;
    }
    let extents: Vec<usize> = axes.iter().map(|&i| shape[i]).collect();
    let extents = b.ui32s(&extents);
    let axes = b.si32s(&axes);
    b.op(op::BROADCAST_IN_DIMS, &[value, extents, axes], tensor(shape, element))
}

/// An elementwise op with broadcasting, inside a region.
fn spreading(b: &mut Block, name: &'static str, x: Value, y: Value, result: Type) -> Value {
    let region = broadcasting(name, b.argument(x), b.argument(y), &result, &b.file);
    b.whole(name, &[x, y], result, Vec::new(), vec![region])
}

/// `max(x, 0)`.
pub(super) fn relu(x: &Argument, file: &Arc<str>) -> Region {
    let (ty, element) = (&x.ty, parts(&x.ty).1);
    let mut b = Block::new(vec![x.clone()], file);
    let zero = number(&mut b, 0.0, element, &[]);
    let value = spreading(&mut b, op::BROADCASTING_MAXIMUM, 0, zero, ty.clone());
    b.end(op::YIELD, &[value])
}

/// `1 / (1 + exp(−x))`; with `times_x`, that many x.
pub(super) fn sigmoid(x: &Argument, times_x: bool, file: &Arc<str>) -> Region {
    let (ty, element) = (&x.ty, parts(&x.ty).1);
    let mut b = Block::new(vec![x.clone()], file);
    let zero = number(&mut b, 0.0, element, &[1]);
    let one = number(&mut b, 1.0, element, &[1]);
    let negative = spreading(&mut b, op::BROADCASTING_SUB, zero, 0, ty.clone());
    let exp = b.op(op::EXP, &[negative], ty.clone());
    let sum = spreading(&mut b, op::BROADCASTING_ADD, one, exp, ty.clone());
    let mut value = spreading(&mut b, op::BROADCASTING_DIVIDE, one, sum, ty.clone());
    if times_x {
        value = spreading(&mut b, op::BROADCASTING_MUL, 0, value, ty.clone());
    }
    b.end(op::YIELD, &[value])
}

/// A number in every element.
fn number(b: &mut Block, value: f64, element: Element, shape: &[usize]) -> Value {
    b.constant(tensor(shape, element), Attribute::Dense { splat: true, bytes: float(value, element) })
}

/// `exp(x) / sum(exp(x))` along an axis that is a value.
pub(super) fn softmax(x: &Argument, axis: &Argument, file: &Arc<str>) -> Region {
    let mut b = Block::new(vec![x.clone(), axis.clone()], file);
    let one = b.si32s(&[1]);
    let axes = b.op(op::RESHAPE, &[1, one], tensor(&[1], Element::Si32));
    let exp = b.op(op::EXP, &[0], x.ty.clone());
    let sum = summed(&mut b, exp, axes, x.ty.clone());
    let value = spreading(&mut b, op::BROADCASTING_DIVIDE, exp, sum, x.ty.clone());
    b.end(op::YIELD, &[value])
}

fn summed(b: &mut Block, x: Value, axes: Value, result: Type) -> Value {
    // The library takes the first argument for a value of this op.
    let inside = Argument { ty: b.ty(x).clone(), file: b.file.clone() };
    let region = reduce(op::REDUCE_SUM, &inside, b.argument(axes), &b.file);
    b.whole(op::REDUCE_SUM, &[x, axes], result, Vec::new(), vec![region])
}

/// A sum, product, maximum or minimum along axes that are a value. Sums and products of 16 bits are made in 32.
pub(super) fn reduce(name: &str, x: &Argument, axes: &Argument, file: &Arc<str>) -> Region {
    let element = parts(&x.ty).1;
    let sums = matches!(name, op::REDUCE_SUM | op::REDUCE_PRODUCT);
    let wide = if sums && element == Element::F16 { Element::F32 } else { element };
    let (combine, start) = match (name, wide) {
        (op::REDUCE_SUM, wide) => (op::ADD, zero_or_one(0, wide)),
        (op::REDUCE_PRODUCT, wide) => (op::MUL, zero_or_one(1, wide)),
        (op::REDUCE_MAX, Element::F16) => (op::MAXIMUM, half::f16::MIN.to_le_bytes().to_vec()),
        (op::REDUCE_MAX, Element::Si32) => (op::MAXIMUM, i32::MIN.to_le_bytes().to_vec()),
        (op::REDUCE_MAX, _) => (op::MAXIMUM, f32::MIN.to_le_bytes().to_vec()),
        (_, Element::F16) => (op::MINIMUM, half::f16::MAX.to_le_bytes().to_vec()),
        (_, Element::Si32) => (op::MINIMUM, i32::MAX.to_le_bytes().to_vec()),
        (..) => (op::MINIMUM, f32::MAX.to_le_bytes().to_vec()),
    };
    let mut b = Block::new(vec![x.clone(), axes.clone()], file);
    let start = b.constant(tensor(&[], wide), Attribute::Dense { splat: true, bytes: start });
    let scalar = tensor(&[], wide);
    let arguments = [scalar.clone(), tensor(&[], element)].map(|ty| Argument { ty, file: file.clone() });
    let mut inside = Block::new(arguments.to_vec(), file);
    let next = if wide == element { 1 } else { inside.op(op::CAST, &[1], scalar.clone()) };
    let combined = inside.op(combine, &[0, next], scalar);
    let inside = inside.end(op::YIELD, &[combined]);
    let value = b.whole(op::REDUCE, &[0, 1, start], open(&x.ty, element), Vec::new(), vec![inside]);
    b.end(op::YIELD, &[value])
}

fn zero_or_one(value: u8, element: Element) -> Vec<u8> {
    match element {
        Element::Si32 | Element::Ui32 => u32::from(value).to_le_bytes().to_vec(),
        Element::Si64 | Element::Ui64 => u64::from(value).to_le_bytes().to_vec(),
        _ => float(f64::from(value), element),
    }
}

/// The mean along axes that are a value: the sum over the product of the extents, in 32 bits.
pub(super) fn reduce_mean(x: &Argument, axes: &Argument, file: &Arc<str>) -> Region {
    let ((shape, element), count) = (parts(&x.ty), parts(&axes.ty).0.first().copied().unwrap_or(0));
    let mut b = Block::new(vec![x.clone(), axes.clone()], file);
    let half = element == Element::F16;
    let wide = if half { Element::F32 } else { element };
    let values = if half { b.op(op::CAST, &[0], tensor(&shape, wide)) } else { 0 };
    let all = open(&x.ty, wide);
    let sum = summed(&mut b, values, 1, all.clone());
    let extents = b.ui32s(&shape);
    let column = b.si32s(&[count, 1]);
    let column = b.op(op::RESHAPE, &[1, column], tensor(&[count, 1], Element::Si32));
    let extents = b.op(op::GATHER_ND, &[extents, column], tensor(&[count], Element::Ui32));
    let first = b.si32s(&[0]);
    let extents = b.op(op::CAST, &[extents], tensor(&[count], Element::Ui64));
    let region = reduce(op::REDUCE_PRODUCT, b.argument(extents), b.argument(first), file);
    let product = b.whole(op::REDUCE_PRODUCT, &[extents, first], tensor(&[1], Element::Ui64), Vec::new(), vec![region]);
    let product = b.op(op::CAST, &[product], tensor(&[1], wide));
    let region = divide_open(b.argument(sum), b.argument(product), shape.len(), file);
    let mut mean = b.whole(op::BROADCASTING_DIVIDE, &[sum, product], all, Vec::new(), vec![region]);
    if half {
        mean = b.op(op::CAST, &[mean], open(&x.ty, element));
    }
    b.end(op::YIELD, &[mean])
}

/// A quotient of a tensor with open axes and a number.
fn divide_open(x: &Argument, y: &Argument, rank: usize, file: &Arc<str>) -> Region {
    let mut b = Block::new(vec![x.clone(), y.clone()], file);
    let row = tensor(&[rank], Element::Ui32);
    let own = b.op(op::GET_SHAPE, &[0], row.clone());
    let other = b.ui32s(&[1]);
    let shape = b.op(op::BROADCAST_SHAPES, &[own, other], row);
    let x = b.op(op::BROADCAST_TO, &[0, shape], x.ty.clone());
    let y = b.op(op::BROADCAST_TO, &[1, shape], b.ty(x).clone());
    let value = b.op(op::DIVIDE, &[x, y], b.ty(x).clone());
    b.end(op::YIELD, &[value])
}
