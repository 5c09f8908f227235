//! `softplus` without guards, where its operand is proved to be small.
//!
//! ```text
//! %y = feature_map(%x, %W, %b)  →  %0 = add(matmul(%x, %Wᵀ), %b)    |%0| ≤ maxᵢ(‖Wᵢ‖·‖x‖ + |bᵢ|) < 80
//!                                  %y = log(add(exp(%0), 1))
//! ```
//! ‖x‖ ≤ √D·max|g| behind an RMS norm of D channels with the gain g; heads are parts of the channels and rotations keep the norm. In fp32
//! `exp` is finite below 88. Of the five element-wise ops that ONNX Runtime needs for a guarded softplus, two go. The pass
//! reads weights: the kernels and gains, which are small.

use s2dit_ir::ops::Unary;
use s2dit_ir::weights::evaluate_constant;
use s2dit_ir::{Builder, Function, Module, Op, ValueId, WeightError, WeightSource};

use crate::Property;
use crate::pass::{PassError, PassKind, Run};

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "bound-softplus",
    doc: "no guard in a softplus whose operand is proved to be small",
    needs: &[Property::Fused, Property::Fp32],
    destroys: &[Property::Fused],
    run: Run::InContext(|module, context| run(module, context.weights)),
    ..PassKind::PLAIN
};

/// `exp` of anything below is far from infinite in fp32.
pub const LIMIT: f64 = 80.0;

/// Runs on every function; returns the number of feature maps without guards.
///
/// # Errors
/// Weights that cannot be read.
pub fn run(module: &mut Module, weights: &dyn WeightSource) -> Result<usize, PassError> {
    let mut changes = 0;
    for f in &mut module.functions {
        for v in f.order() {
            let Op::FeatureMap(_) = f.op(v) else { continue };
            if feature_map_bound(f, v, weights)?.is_none_or(|bound| bound >= LIMIT) {
                continue;
            }
            let (operands, scope) = (f.operands(v), f.node(v).scope.clone());
            let mut b = Builder::new(f);
            b.enter(&scope);
            let y = b.matmul_t(operands[0], operands[1])?;
            let y = b.add(y, operands[2])?;
            let y = b.unary(Unary::Exp, y)?;
            let y = b.add_scalar(y, 1.0)?;
            let y = b.unary(Unary::Log, y)?;
            f.replace_uses(v, y);
            changes += 1;
        }
        f.remove_dead();
    }
    Ok(changes)
}

/// A bound of |x·Wᵀ + b|; `None` if there is none.
fn feature_map_bound(f: &Function, v: ValueId, weights: &dyn WeightSource) -> Result<Option<f64>, WeightError> {
    let [x, w, b] = f.operands(v)[..] else { return Ok(None) };
    if !f.is_const(w) || !f.is_const(b) {
        return Ok(None);
    }
    let Some(norm) = norm(f, x, weights)? else { return Ok(None) };
    let width = f.shape(w).last().copied().unwrap_or(1).max(1);
    let (w, b) = (evaluate_constant(f, w, weights)?, evaluate_constant(f, b, weights)?);
    let flat: Vec<f64> = w.data.iter().copied().collect();
    let row = flat.chunks(width).map(|r| r.iter().map(|x| x * x).sum::<f64>().sqrt()).fold(0.0, worst);
    let bias = b.data.iter().map(|x| x.abs()).fold(0.0, worst);
    Ok(Some(row * norm + bias))
}

/// A bound of the Euclidean norm of `v` along its last axis; `None` if there is none.
fn norm(f: &Function, v: ValueId, weights: &dyn WeightSource) -> Result<Option<f64>, WeightError> {
    let operands = f.operands(v);
    let last = |v: ValueId| f.shape(v).last().copied().unwrap_or(1);
    match f.op(v) {
        Op::RmsNorm(n) if n.axis + 1 == f.ty(v).rank() => {
            let gain = match operands.get(1) {
                Some(&gain) if f.is_const(gain) => {
                    evaluate_constant(f, gain, weights)?.data.iter().map(|x| x.abs()).fold(0.0, worst)
                }
                Some(_) => return Ok(None),
                None => 1.0,
            };
            Ok(Some((last(v) as f64).sqrt() * gain))
        }
        Op::Rope(r) if r.axis + 1 == f.ty(v).rank() => norm(f, operands[0], weights),
        // A head is a part of the channels.
        Op::Reshape(_) if last(operands[0]) % last(v) == 0 => norm(f, operands[0], weights),
        Op::Transpose(t) if t.perm.last() == Some(&(t.perm.len() - 1)) => norm(f, operands[0], weights),
        _ => Ok(None),
    }
}

/// The larger one; NaN is larger than any number.
fn worst(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::INFINITY } else { a.max(b) }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use s2dit_ir::TensorType;
    use s2dit_ir::text::parse;

    use super::*;

    struct Constant(f64);

    impl WeightSource for Constant {
        fn ty(&self, _: &str) -> Option<TensorType> {
            None
        }
        fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
            let count = if name == "gain" { 16 } else { 2 * 8 * 8 };
            let value = if name == "gain" { 1.0 } else { self.0 as f32 };
            Ok(value.to_le_bytes().repeat(count).into())
        }
    }

    const GRAPH: &str = r#"module {
  func @main(%x: f32[1, 5, 16]) {
    %g = load {tensor = "gain"} : f32[16]
    %n = rms_norm(%x, %g) {axis = 2, eps = 1e-6} : f32[1, 5, 16]
    %r = reshape(%n) {shape = [1, 5, 2, 8]} : f32[1, 5, 2, 8]
    %t = transpose(%r) {perm = [0, 2, 1, 3]} : f32[1, 2, 5, 8]
    %w = load {tensor = "kernel"} : f32[2, 8, 8]
    %b = literal {values = [3.0]} : f32[1]
    %y = feature_map(%t, %w, %b) : f32[1, 2, 5, 8]
    return y = %y
  }
}"#;

    /// √16 · √8·w + 3 < 80 iff w < 6.8.
    #[test]
    fn the_bound_decides() {
        for (weight, changes) in [(6.8, 1), (6.81, 0), (f64::NAN, 0)] {
            let mut module = parse(GRAPH).unwrap();
            assert_eq!(run(&mut module, &Constant(weight)).unwrap(), changes, "{weight}");
        }
    }

    #[test]
    fn an_operand_that_is_not_normalised_has_no_bound() {
        let mut module = parse(&GRAPH.replace("reshape(%n)", "reshape(%x)")).unwrap();
        assert_eq!(run(&mut module, &Constant(0.0)).unwrap(), 0);
    }
}
