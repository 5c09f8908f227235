//! Weights in few bits: the expression below a `compress` op, and what its scheme makes of it.

use super::Blocks;
use crate::compress::{self, Compressed, Feedback};
use crate::convert;
use crate::interp::evaluate_constant;
use crate::ops::Compress;
use crate::source::{WeightError, WeightSource, load_bytes, loaded_tensor, plain_load};
use crate::{DType, Function, Op, OpError, ValueId};

/// A compressed weight as it is stored; `v` is the result of a [`Compress`] op.
///
/// # Errors
/// See [`WeightError`]; a weight that its scheme cannot hold.
pub fn compressed(f: &Function, v: ValueId, source: &dyn WeightSource) -> Result<Compressed, WeightError> {
    let failed = |error: OpError| WeightError::Compress { name: described(f, v), error };
    let Op::Compress(Compress { scheme }) = f.op(v) else {
        return Err(failed(OpError::new("expected a compressed weight")));
    };
    let operands = f.operands(v);
    let importance: Option<Vec<f64>> = match operands.get(1) {
        Some(v) => Some(evaluate_constant(f, *v, source)?.data.into_iter().collect()),
        None => None,
    };
    let factors: Option<Vec<f32>> = match operands.get(2) {
        Some(v) => Some(floats(f, *v, source)?),
        None => None,
    };
    let inputs = f.shape(v)[1..].iter().product::<usize>().max(1);
    let feedback = factors.as_deref().map(|factors| Feedback { factors, block: factors.len() / inputs });
    let weight = operands[0];
    let compress = |halves: &[u16]| {
        compress::compress(*scheme, f.shape(v), halves, importance.as_deref(), feedback).map_err(failed)
    };
    if let Some((tensor, stored)) = plain_load(f, weight) {
        let bytes = load_bytes(source, tensor, &stored)?;
        if let Some(halves) = compress::to_halves(&bytes, stored.dtype) {
            let (compressed, ()) = rayon::join(|| compress(&halves), || source.visit(tensor, 0, &bytes));
            source.done(tensor);
            return compressed;
        }
    }
    compress(&halves(f, weight, source)?)
}

/// A computed constant as fp16 bits.
fn halves(f: &Function, v: ValueId, source: &dyn WeightSource) -> Result<Vec<u16>, WeightError> {
    let mut halves = Vec::with_capacity(f.ty(v).elements());
    let (blocks, mut buffer) = (Blocks::computed(f, v, DType::F16, source), Vec::new());
    for index in 0..blocks.count() {
        let block = blocks.compute(index, &mut buffer)?;
        halves.extend(block.bytes(&buffer).as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b)));
    }
    blocks.done();
    Ok(halves)
}

/// A constant in fp32; a stored tensor is not held in float64 on the way.
fn floats(f: &Function, v: ValueId, source: &dyn WeightSource) -> Result<Vec<f32>, WeightError> {
    if let Some((tensor, stored)) = plain_load(f, v)
        && matches!(stored.dtype, DType::F16 | DType::BF16 | DType::F32)
    {
        let bytes = load_bytes(source, tensor, &stored)?;
        let mut wide = vec![0.0; stored.elements()];
        convert::to_f32(stored.dtype, &bytes, &mut wide);
        source.done(tensor);
        return Ok(wide);
    }
    Ok(evaluate_constant(f, v, source)?.data.iter().map(|x| *x as f32).collect())
}

/// The op of a constant that has a compressed weight below it: evaluated, it would be stored uncompressed.
pub fn over_compressed(f: &Function, v: ValueId) -> Option<&'static str> {
    let below = |o: ValueId| matches!(f.op(o), Op::Compress(_)) || over_compressed(f, o).is_some();
    f.operands(v).into_iter().any(below).then(|| f.op(v).name())
}

/// The tensor that a constant comes from, or its scope.
fn described(f: &Function, v: ValueId) -> String {
    loaded_tensor(f, v).map_or_else(|| f.node(v).scope.to_string(), str::to_string)
}
