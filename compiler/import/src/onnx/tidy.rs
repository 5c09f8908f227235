//! What an exporter took apart: a layer's bias, added behind its product, and the rows that a `Gemm` wants flat.
//!
//! ```text
//! add(linear(x, W), b) → linear(x, W, b)        reshape(linear(reshape(x), W)) → linear(x, W)
//! ```

use s2dit_ir::ops::{Binary, Linear};
use s2dit_ir::{Function, Op, OpError, ValueId};

/// Puts them together again.
///
/// # Errors
/// None in practice: the rewrites keep types.
pub(super) fn run(f: &mut Function) -> Result<(), OpError> {
    for v in f.order() {
        let whole = match f.op(v) {
            Op::Binary(Binary::Add) => with_bias(f, v)?,
            Op::Reshape(_) => of_rows(f, v)?,
            _ => None,
        };
        if let Some(whole) = whole {
            f.replace_uses(v, whole);
        }
    }
    Ok(())
}

/// The only use of a value is this one.
fn only(f: &Function, v: ValueId) -> bool {
    f.users(v).len() == 1 && !f.results.iter().any(|(_, result)| *result == v)
}

/// A layer of two operands.
fn layer(f: &Function, v: ValueId) -> Option<[ValueId; 2]> {
    let Op::Linear(_) = f.op(v) else { return None };
    <[ValueId; 2]>::try_from(f.operands(v)).ok()
}

fn with_bias(f: &mut Function, v: ValueId) -> Result<Option<ValueId>, OpError> {
    let [a, b] = f.operands(v)[..] else { return Ok(None) };
    for (product, bias) in [(a, b), (b, a)] {
        let Some([x, weight]) = layer(f, product) else { continue };
        let outputs = f.shape(weight)[0];
        let fits = f.ty(bias).elements() == outputs && f.shape(bias).last() == Some(&outputs);
        if fits && f.shape(v) == f.shape(product) && only(f, product) && f.is_const(bias) {
            let scope = f.node(product).scope.clone();
            let bias = match f.shape(bias).len() {
                1 => bias,
                _ => f.add(s2dit_ir::ops::Reshape { shape: vec![outputs] }.into(), &[bias], &scope)?,
            };
            return f.add(Linear {}.into(), &[x, weight, bias], &scope).map(Some);
        }
    }
    Ok(None)
}

/// A layer between reshapes that flatten the rows and restore them.
fn of_rows(f: &mut Function, v: ValueId) -> Result<Option<ValueId>, OpError> {
    let product = f.operands(v)[0];
    let Op::Linear(_) = f.op(product) else { return Ok(None) };
    let operands = f.operands(product);
    let Op::Reshape(_) = f.op(operands[0]) else { return Ok(None) };
    let x = f.operands(operands[0])[0];
    let inputs = f.shape(operands[1])[1];
    let (Some((width, lead)), Some((_, rows))) = (f.shape(x).split_last(), f.shape(v).split_last()) else {
        return Ok(None);
    };
    if *width != inputs || lead != rows || !only(f, product) {
        return Ok(None);
    }
    let scope = f.node(product).scope.clone();
    let operands: Vec<ValueId> = [x].into_iter().chain(operands[1..].iter().copied()).collect();
    f.add(Linear {}.into(), &operands, &scope).map(Some)
}
