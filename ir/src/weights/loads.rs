//! Constants that are stored tensors as they are, or converted element by element.

use std::borrow::Cow;
use std::ops::Range;

use super::{WeightError, WeightSource};
use crate::convert::converts;
use crate::ops::{Cast, Concat};
use crate::{DType, Function, Op, TensorType, ValueId};

/// `load` under reshapes and casts of which at most one rounds.
pub(crate) fn plain_load(f: &Function, v: ValueId) -> Option<(&str, TensorType)> {
    let mut dtypes = vec![f.dtype(v)];
    let mut at = v;
    loop {
        match f.op(at) {
            Op::Load(load) => {
                dtypes.push(f.dtype(at));
                // f32 → f16 and bf16 → f32 → f16 round once; f32 → f16 → f32 must keep the middle step.
                let (result, stored) = (dtypes[0], f.dtype(at));
                let exact = dtypes.iter().all(|&d| d == result || widens(stored, d));
                return exact.then(|| (load.tensor.as_str(), f.ty(at).clone()));
            }
            Op::Cast(Cast { dtype }) => dtypes.push(*dtype),
            Op::Reshape(_) => {}
            _ => return None,
        }
        at = *f.operands(at).first()?;
    }
}

/// Loads like [`plain_load`]'s whose bytes follow each other: one, or several joined along the slowest axis. `None` if one
/// needs more than a conversion between float types.
pub(super) fn plain_loads(f: &Function, v: ValueId) -> Option<Vec<(&str, TensorType)>> {
    let streams = |(_, stored): &(&str, TensorType)| stored.dtype == f.dtype(v) || converts(stored.dtype, f.dtype(v));
    if let Some(load) = plain_load(f, v) {
        return streams(&load).then(|| vec![load]);
    }
    let (mut at, mut dtypes) = (v, Vec::new());
    while let Op::Cast(_) | Op::Reshape(_) = f.op(at) {
        dtypes.push(f.dtype(at));
        at = *f.operands(at).first()?;
    }
    let Op::Concat(Concat { axis: 0 }) = f.op(at) else { return None };
    let loads: Vec<_> = f.operands(at).into_iter().map(|o| plain_load(f, o)).collect::<Option<_>>()?;
    // What is joined is as it is stored, or wider: the conversion above rounds alone.
    let exact = |(_, stored): &(&str, TensorType)| {
        let result = f.dtype(v);
        widens(stored.dtype, f.dtype(at)) && dtypes.iter().all(|&d| d == result || widens(stored.dtype, d))
    };
    loads.iter().all(|load| exact(load) && streams(load)).then_some(loads)
}

/// Every value of `from` is a value of `to`.
pub(super) fn widens(from: DType, to: DType) -> bool {
    from == to || matches!((from, to), (DType::F16 | DType::BF16, DType::F32 | DType::F64) | (DType::F32, DType::F64))
}

/// The bytes of a tensor, as many as its type has.
pub(crate) fn load_bytes<'a>(
    source: &'a dyn WeightSource,
    tensor: &str,
    ty: &TensorType,
) -> Result<Cow<'a, [u8]>, WeightError> {
    let bytes = source.bytes(tensor)?;
    if bytes.len() != ty.bytes() {
        return Err(WeightError::Size { name: tensor.into(), expected: ty.clone(), found: bytes.len() });
    }
    Ok(bytes)
}

/// Some bytes of a tensor that is computed, which the source has [visited](WeightSource::visit); `None` if it is stored as it is.
pub(super) fn load_part(
    source: &dyn WeightSource,
    tensor: &str,
    range: Range<usize>,
) -> Option<Result<Vec<u8>, WeightError>> {
    let part = source.part(tensor, range.clone())?;
    Some(part.and_then(|bytes| {
        if bytes.len() != range.len() {
            let message = format!("{} bytes of {} in it", bytes.len(), range.len());
            return Err(WeightError::Read { name: tensor.into(), message });
        }
        source.visit(tensor, range.start as u64, &bytes);
        Ok(bytes)
    }))
}
