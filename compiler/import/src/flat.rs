//! Linear layers of matrices become linear layers of tokens.
//!
//! ```text
//! reshape(linear(reshape(x) : [36, 16]) : [36, 16]) : [1, 36, 16]  →  linear(x) : [1, 36, 16]
//! ```
//! ONNX's `Gemm` takes matrices, so what makes it of other products, such as onnxslim, puts reshapes around it. They hide the layers of a block from
//! whoever looks for formulas.

use s2dit_ir::ops::{Linear, OpError, Reshape};
use s2dit_ir::{Function, Op, ValueId};

/// Takes reshapes off linear layers.
///
/// # Errors
/// A defect: the new ops have the old ones' types.
pub(crate) fn undo(f: &mut Function) -> Result<(), OpError> {
    for v in f.order() {
        match f.op(v) {
            Op::Linear(_) => before(f, v)?,
            Op::Reshape(_) => behind(f, v)?,
            _ => {}
        }
    }
    f.remove_dead();
    Ok(())
}

/// Whether a layer is of several tokens. The layers of a time are of one row, which has no other form.
fn has_rows(f: &Function, layer: ValueId) -> bool {
    f.shape(layer).last().is_some_and(|width| f.ty(layer).elements() > *width)
}

/// A layer of what was flattened is the flattened layer.
fn before(f: &mut Function, v: ValueId) -> Result<(), OpError> {
    let mut operands = f.operands(v);
    let (Op::Reshape(_), Some(&whole)) = (f.op(operands[0]), f.operands(operands[0]).first()) else { return Ok(()) };
    let flattened = f.ty(whole).rank() > f.ty(v).rank() && f.shape(whole).last() == f.shape(operands[0]).last();
    if !flattened || !has_rows(f, v) {
        return Ok(());
    }
    operands[0] = whole;
    let (shape, scope) = (f.shape(v).to_vec(), f.node(v).scope.to_string());
    let layer = f.add(Linear {}.into(), &operands, &scope)?;
    let flat = f.add(Reshape { shape }.into(), &[layer], &scope)?;
    f.replace_uses(v, flat);
    Ok(())
}

/// What gives the rows of a layer more axes gives them to what it is a layer of.
fn behind(f: &mut Function, v: ValueId) -> Result<(), OpError> {
    let Some(&layer) = f.operands(v).first() else { return Ok(()) };
    let Op::Linear(_) = f.op(layer) else { return Ok(()) };
    let mut shape = f.shape(v).to_vec();
    let wider = shape.len() > f.ty(layer).rank() && shape.last() == f.shape(layer).last();
    if !wider || !has_rows(f, v) || !f.is_used_only_by(layer, v) {
        return Ok(());
    }
    let (mut operands, scope) = (f.operands(layer), f.node(layer).scope.to_string());
    if let (Some(last), Some(width)) = (shape.last_mut(), f.shape(operands[0]).last()) {
        *last = *width;
    }
    operands[0] = f.add(Reshape { shape }.into(), &[operands[0]], &scope)?;
    let wide = f.add(Linear {}.into(), &operands, &scope)?;
    f.replace_uses(v, wide);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use s2dit_ir::text::{parse, print};

    fn undone(body: &str) -> String {
        let text = format!("module {{ func @main(%x: f32[1, 6, 4], %w: f32[3, 4], %b: f32[3]) {{\n{body}\n}} }}");
        let mut module = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        undo(&mut module.functions[0]).expect("no defect");
        print(&module)
    }

    #[test]
    fn a_layer_of_a_flattened_value_is_a_layer_of_the_value() {
        let text = undone(
            "%0 = reshape(%x) {shape = [6, 4]} : f32[6, 4]\n%1 = linear(%0, %w, %b) : f32[6, 3]\n\
             %2 = reshape(%1) {shape = [1, 6, 3]} : f32[1, 6, 3]\n%y = exp(%2) : f32[1, 6, 3]\nreturn y = %y",
        );
        assert!(text.contains("= linear(%x, %w, %b) : f32[1, 6, 3]"), "{text}");
    }

    #[test]
    fn heads_that_are_joined_with_the_rows_stay_apart_from_them() {
        let text = undone(
            "%h = reshape(%x) {shape = [1, 6, 2, 2]} : f32[1, 6, 2, 2]\n%0 = reshape(%h) {shape = [6, 4]} : f32[6, 4]\n\
             %1 = linear(%0, %w, %b) : f32[6, 3]\n%2 = reshape(%1) {shape = [1, 6, 3]} : f32[1, 6, 3]\n%y = exp(%2) : f32[1, 6, 3]\nreturn y = %y",
        );
        assert!(text.contains("linear(") && !text.contains(": f32[6, 3]"), "{text}");
        // A layer of a matrix alone stays.
        let matrix = "%0 = reshape(%x) {shape = [6, 4]} : f32[6, 4]\n%h = exp(%0) : f32[6, 4]\n%y = linear(%h, %w, %b) : f32[6, 3]\nreturn y = %y";
        assert!(undone(matrix).contains(": f32[6, 3]"));
    }
}
