//! Constants that are stored tensors as they are, or converted element by element.

use std::collections::HashSet;

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

/// Loads like [`plain_load`]'s whose bytes follow each other: one, or several joined along the slowest axis.
pub(super) fn plain_loads(f: &Function, v: ValueId) -> Option<Vec<(&str, TensorType)>> {
    if let Some(load) = plain_load(f, v) {
        return Some(vec![load]);
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
    loads.iter().all(exact).then_some(loads)
}

/// Every value of `from` is a value of `to`.
pub(crate) fn widens(from: DType, to: DType) -> bool {
    from == to || matches!((from, to), (DType::F16 | DType::BF16, DType::F32 | DType::F64) | (DType::F32, DType::F64))
}

/// The checkpoint tensor that a constant is, seen through casts, reshapes and compression.
pub fn loaded_tensor(f: &Function, v: ValueId) -> Option<&str> {
    match f.op(v) {
        Op::Load(load) => Some(&load.tensor),
        Op::Cast(_) | Op::Reshape(_) | Op::Compress(_) => loaded_tensor(f, *f.operands(v).first()?),
        _ => None,
    }
}

/// The checkpoint tensors that a constant is computed from, in order and each once: `a, b`. `None` if there are none.
pub fn sources(f: &Function, v: ValueId) -> Option<String> {
    let (mut names, mut seen, mut ahead) = (Vec::new(), HashSet::new(), vec![v]);
    while let Some(at) = ahead.pop() {
        if !seen.insert(at) {
            continue;
        }
        match f.op(at) {
            Op::Load(load) if !names.contains(&load.tensor.as_str()) => names.push(&load.tensor),
            _ => ahead.extend(f.operands(at).iter().rev()),
        }
    }
    (!names.is_empty()).then(|| names.join(", "))
}
