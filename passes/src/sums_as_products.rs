//! Long sums and means are products with ones.
//!
//! ```text
//! %y = reduce_sum(%x) {axes = [3]}      %o = literal {values = [1.0]}       : f32[4096, 1]
//!      : f32[1, 8, 1, 1]             →  %y = matmul(%x, %o)                 : f32[1, 8, 1, 1]
//! ```
//! The Neural Engine adds up a `reduce_sum` in fp16, whose whole numbers end at 2,048: from there on a sum of small numbers stands still. It adds up products wider (ANEForge,
//! arXiv 2606.17090: 16,384 ones are summed exactly). A sum of fewer elements than that stays as it is.

use s2dit_ir::ops::{Conv, OpError, Reduce, ReduceKind};
use s2dit_ir::{Builder, Function, Module, Op, TensorType, ValueId};

use crate::Property;
use crate::pass::{PassKind, Run};

/// Sums of more elements are products.
pub const MOST: usize = 2048;

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
    let each = match reduce.kind {
        ReduceKind::Sum => 1.0,
        ReduceKind::Mean => 1.0 / terms as f64,
        _ => return Ok(None),
    };
    if terms <= MOST || f.is_const(v) || !f.dtype(v).is_float() {
        return Ok(None);
    }
    let (shape, node) = (f.shape(v).to_vec(), f.node(v).clone());
    // Axes that follow each other are one.
    let (first, last) = (reduce.axes[0], reduce.axes[reduce.axes.len() - 1]);
    if last + 1 - first != reduce.axes.len() {
        return Ok(None);
    }
    let trailing: usize = dims[last + 1..].iter().product();
    let mut b = Builder::new(f);
    b.enter(&node.scope);
    let dtype = node.ty.dtype;
    let ones = |b: &mut Builder, shape: &[usize]| {
        let one = b.literal(&TensorType::new(dtype, vec![1; shape.len()]), vec![each])?;
        b.broadcast_to(one, shape)
    };
    let sum = if last + 1 == rank {
        let mut lead = dims[..first].to_vec();
        lead.resize(lead.len().max(1), 1);
        lead.push(terms);
        let rows = b.reshape(x, &lead)?;
        let mut shape = vec![1; b.shape(rows).len()];
        shape[b.shape(rows).len() - 2] = terms;
        let ones = ones(&mut b, &shape)?;
        b.matmul(rows, ones)?
    } else if first == 1 && last == 1 && rank == 4 {
        // Channels of an image: a 1×1 convolution.
        let ones = ones(&mut b, &[1, terms, 1, 1])?;
        let plain = Conv {
            strides: vec![1, 1],
            pad_before: vec![0, 0],
            pad_after: vec![0, 0],
            dilations: vec![1, 1],
            groups: 1,
        };
        b.conv(plain, x, ones, None)?
    } else {
        let mut dims = dims[..first].to_vec();
        dims.extend([terms, trailing]);
        let columns = b.reshape(x, &dims)?;
        let mut shape = vec![1; dims.len()];
        shape[dims.len() - 1] = terms;
        let ones = ones(&mut b, &shape)?;
        b.matmul(ones, columns)?
    };
    b.reshape(sum, &shape).map(Some)
}
