//! Large constants computed a few rows at a time: what is multiplied, joined or rearranged within its rows is never held
//! whole.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use ndarray::{Axis, Slice as NdSlice};

use super::{WeightError, WeightSource, evaluate_constant, load_bytes};
use crate::ops::{Concat, OpError};
use crate::{Function, Op, Tensor, TensorType, ValueId};

/// Elements of a block: its float64 values stay in the cache.
const BLOCK: usize = 1 << 16;

/// Evaluates `v` in blocks of whole rows of its first axis, in order, and hands each to `sink`. The values are those of
/// [`evaluate_constant`].
///
/// # Errors
/// See [`WeightError`].
pub(super) fn evaluate(
    f: &Function,
    v: ValueId,
    source: &dyn WeightSource,
    mut sink: impl FnMut(Tensor) -> Result<(), WeightError>,
) -> Result<(), WeightError> {
    let ty = f.ty(v);
    let Some(&rows) = ty.shape.first() else { return sink(evaluate_constant(f, v, source)?) };
    let step = (BLOCK * rows / ty.elements().max(1)).clamp(1, rows.max(1));
    let mut blocks = Blocks { f, source, stored: HashMap::new(), whole: HashMap::new() };
    for begin in (0..rows).step_by(step) {
        sink(blocks.rows(v, begin..rows.min(begin + step))?)?;
    }
    for v in blocks.stored.into_keys() {
        if let Op::Load(load) = f.op(v) {
            source.done(&load.tensor);
        }
    }
    Ok(())
}

struct Blocks<'a> {
    f: &'a Function,
    source: &'a dyn WeightSource,
    /// Stored tensors' bytes.
    stored: HashMap<ValueId, Cow<'a, [u8]>>,
    /// What cannot be computed by rows, or is needed by all of them.
    whole: HashMap<ValueId, Tensor>,
}

impl Blocks<'_> {
    /// Some rows of a value.
    fn rows(&mut self, v: ValueId, range: Range<usize>) -> Result<Tensor, WeightError> {
        let ty = self.f.ty(v);
        let mut shape = ty.shape.clone();
        shape[0] = range.len();
        let part = TensorType::new(ty.dtype, shape);
        let operands = self.f.operands(v);
        let op = self.f.op(v);
        match op {
            // Small: computed once rather than for every block.
            _ if ty.elements() <= BLOCK && !matches!(op, Op::Load(_)) => self.some_of_whole(v, range),
            Op::Load(load) => {
                let size = ty.bytes() / ty.shape[0];
                if !self.stored.contains_key(&v) {
                    self.stored.insert(v, load_bytes(self.source, &load.tensor, ty)?);
                }
                let bytes = &self.stored[&v][range.start * size..range.end * size];
                Tensor::from_le_bytes(&part, bytes).ok_or_else(|| WeightError::Missing { name: load.tensor.clone() })
            }
            Op::Cast(_) | Op::Unary(_) | Op::Binary(_) => {
                let inputs: Vec<Tensor> = operands
                    .iter()
                    .map(|&o| if self.by_rows(v, o) { self.rows(o, range.clone()) } else { self.whole(o).cloned() })
                    .collect::<Result<_, _>>()?;
                self.eval(v, op, &inputs, &part)
            }
            // A row of one is some rows of the other.
            Op::Reshape(_) if self.f.shape(operands[0]).first().is_some_and(|n| n % ty.shape[0] == 0) => {
                let each = self.f.shape(operands[0])[0] / ty.shape[0];
                let input = self.rows(operands[0], range.start * each..range.end * each)?;
                self.eval(v, op, &[input], &part)
            }
            Op::Concat(Concat { axis }) if *axis > 0 => {
                let inputs: Vec<Tensor> =
                    operands.iter().map(|&o| self.rows(o, range.clone())).collect::<Result<_, _>>()?;
                self.eval(v, op, &inputs, &part)
            }
            Op::Concat(_) => {
                let (mut inputs, mut first) = (Vec::new(), 0);
                for o in operands {
                    let last = first + self.f.shape(o)[0];
                    let (begin, end) = (range.start.max(first), range.end.min(last));
                    if begin < end {
                        inputs.push(self.rows(o, begin - first..end - first)?);
                    }
                    first = last;
                }
                self.eval(v, op, &inputs, &part)
            }
            Op::Pad(pad) if pad.before[0] == 0 && pad.after[0] == 0 => {
                let input = self.rows(operands[0], range)?;
                self.eval(v, op, &[input], &part)
            }
            Op::Slice(slice) if slice.stride[0] == 1 => {
                let begin = slice.begin[0];
                let input = self.rows(operands[0], begin + range.start..begin + range.end)?;
                let mut rest = slice.clone();
                (rest.begin[0], rest.end[0]) = (0, range.len());
                self.eval(v, &rest.into(), &[input], &part)
            }
            _ => self.some_of_whole(v, range),
        }
    }

    fn some_of_whole(&mut self, v: ValueId, range: Range<usize>) -> Result<Tensor, WeightError> {
        let ends = NdSlice::new(range.start as isize, Some(range.end as isize), 1);
        let whole = self.whole(v)?;
        Ok(Tensor { dtype: whole.dtype, data: whole.data.slice_axis(Axis(0), ends).to_owned() })
    }

    /// Whether an elementwise op's rows are made of this operand's rows: it is not repeated along the first axis.
    fn by_rows(&self, v: ValueId, operand: ValueId) -> bool {
        let (result, own) = (self.f.shape(v), self.f.shape(operand));
        own.len() == result.len() && own[0] == result[0]
    }

    fn whole(&mut self, v: ValueId) -> Result<&Tensor, WeightError> {
        if !self.whole.contains_key(&v) {
            let value = evaluate_constant(self.f, v, self.source)?;
            self.whole.insert(v, value);
        }
        Ok(&self.whole[&v])
    }

    fn eval(&self, v: ValueId, op: &Op, inputs: &[Tensor], ty: &TensorType) -> Result<Tensor, WeightError> {
        let scope = || self.f.node(v).scope.to_string();
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        op.eval(&inputs, ty).map_err(|error: OpError| WeightError::Op { op: op.name(), scope: scope(), error })
    }
}
