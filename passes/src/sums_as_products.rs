//! Long sums and means are products with ones.
//!
//! ```text
//! %y = reduce_sum(%x) {axes = [3]}      %o = literal {values = [1.0]}       : f32[4096, 1]
//!      : f32[1, 8, 1, 1]             →  %y = matmul(%x, %o)                 : f32[1, 8, 1, 1]
//! ```
//! The Neural Engine adds up a `reduce_sum` in fp16, whose whole numbers end at 2,048: from there on a sum of small numbers stands still. It adds up products wider (ANEForge,
//! arXiv 2606.17090: 16,384 ones are summed exactly). A sum of fewer elements than that stays as it is.

use s2dit_ir::ops::{Conv, OpError, Reduce, ReduceKind};
use s2dit_ir::{Builder, DType, Function, Module, Op, TensorType, ValueId};

use crate::Property;
use crate::pass::{PassKind, Run};

/// Sums of more elements are products.
pub const MOST: usize = 2048;
/// The engine's products have at most so many terms.
const DEEPEST: usize = 16_384;

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "sums-as-products",
    doc: "no sum or mean of more than 2,048 floats but as a product with ones",
    needs: &[Property::TensorOps, Property::Fp32],
    run: Run::Plain(run),
    ..PassKind::PLAIN
};

/// Runs on every function; returns the number of sums that are products.
///
/// # Errors
/// None in practice: the product has the sum's elements.
pub fn run(module: &mut Module) -> Result<usize, OpError> {
    let mut changes = 0;
    for f in &mut module.functions {
        for v in f.order() {
            let Op::Reduce(reduce) = f.op(v).clone() else { continue };
            let Some(y) = product(f, v, &reduce)? else { continue };
            f.replace_uses(v, y);
            changes += 1;
        }
        f.remove_dead();
    }
    Ok(changes)
}

fn product(f: &mut Function, v: ValueId, reduce: &Reduce) -> Result<Option<ValueId>, OpError> {
    let x = f.operands(v)[0];
    let (dims, rank) = (f.shape(x).to_vec(), f.ty(x).rank());
    let terms: usize = reduce.axes.iter().map(|&axis| dims[axis]).product();
    if !matches!(reduce.kind, ReduceKind::Sum | ReduceKind::Mean) {
        return Ok(None);
    }
    // Of a mean each product is one: a number for all terms may be below what fp16 holds well.
    let each = |part: usize| if reduce.kind == ReduceKind::Mean { 1.0 / part as f64 } else { 1.0 };
    if terms <= MOST || f.is_const(v) || !f.dtype(v).is_float() {
        return Ok(None);
    }
    // Axes that follow each other are one.
    let (first, last) = (reduce.axes[0], reduce.axes[reduce.axes.len() - 1]);
    let (Some(parts), true) = (parts(terms), last + 1 - first == reduce.axes.len()) else { return Ok(None) };
    let (shape, node) = (f.shape(v).to_vec(), f.node(v).clone());
    let mut b = Builder::new(f);
    b.enter(&node.scope);
    let sum = if first == 1 && last == 1 && rank == 4 && parts.len() == 1 {
        // Channels of an image: a 1×1 convolution.
        let ones = ones(&mut b, node.ty.dtype, &[1, terms, 1, 1], each(terms))?;
        let (strides, none) = (vec![1, 1], vec![0, 0]);
        let plain = Conv { strides, pad_before: none.clone(), pad_after: none, dilations: vec![1, 1], groups: 1 };
        b.conv(plain, x, ones, None)?
    } else {
        let (lead, trailing) = (&dims[..first], dims[last + 1..].iter().product::<usize>());
        let mut sum = x;
        let mut left = terms;
        for &part in &parts {
            left /= part;
            // What is added up: rows, or columns of matrices. The parts that are left are rows or matrices more.
            let mut dims = lead.to_vec();
            if left > 1 {
                dims.push(left);
            }
            if trailing == 1 {
                dims.resize(dims.len().max(1), 1);
                dims.push(part);
                let mut of_ones = vec![1; dims.len()];
                of_ones[dims.len() - 2] = part;
                let rows = b.reshape(sum, &dims)?;
                let ones = ones(&mut b, node.ty.dtype, &of_ones, each(part))?;
                sum = b.matmul(rows, ones)?;
            } else {
                dims.extend([part, trailing]);
                let mut of_ones = vec![1; dims.len()];
                of_ones[dims.len() - 1] = part;
                let columns = b.reshape(sum, &dims)?;
                let ones = ones(&mut b, node.ty.dtype, &of_ones, each(part))?;
                sum = b.matmul(ones, columns)?;
            }
        }
        sum
    };
    b.reshape(sum, &shape).map(Some)
}

fn ones(b: &mut Builder, dtype: DType, shape: &[usize], each: f64) -> Result<ValueId, OpError> {
    let one = b.literal(&TensorType::new(dtype, vec![1; shape.len()]), vec![each])?;
    b.broadcast_to(one, shape)
}

/// The terms as one product, or as two after each other: no product has more than [`DEEPEST`]. The last terms are added up first.
fn parts(terms: usize) -> Option<Vec<usize>> {
    if terms <= DEEPEST {
        return Some(vec![terms]);
    }
    let last = (terms.div_ceil(DEEPEST)..=DEEPEST).rev().find(|&last| terms.is_multiple_of(last))?;
    Some(vec![last, terms / last])
}
