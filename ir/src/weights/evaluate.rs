//! Large constants computed a few rows at a time: what is multiplied, joined or rearranged within its rows is never held
//! whole.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::{ArrayD, Axis, IxDyn, Slice as NdSlice};

use crate::convert::{converts, to_f64};
use crate::interp::evaluate_constant;
use crate::ops::{Concat, OpError};
use crate::source::{WeightError, WeightSource, load_bytes, load_part, widens};
use crate::{Function, Op, Tensor, TensorType, ValueId};

/// Elements of a block: its float64 values stay in the cache.
const BLOCK: usize = 1 << 16;

/// A constant, in blocks of whole rows of its first axis. The values are those of [`evaluate_constant`].
pub(super) struct Rows<'a> {
    f: &'a Function,
    source: &'a dyn WeightSource,
    /// Rows of the constant; `None` of a scalar.
    rows: Option<usize>,
    /// Rows of a block.
    step: usize,
    elements: usize,
    /// Stored tensors' bytes.
    stored: Mutex<HashMap<ValueId, Arc<Cow<'a, [u8]>>>>,
    /// What cannot be computed by rows, or is needed by all of them.
    whole: Mutex<HashMap<ValueId, Arc<Tensor>>>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(f: &'a Function, v: ValueId, source: &'a dyn WeightSource) -> Self {
        let ty = f.ty(v);
        let rows = ty.shape.first().copied();
        let (most, elements) = (rows.unwrap_or(1), ty.elements());
        let step = (BLOCK * most / elements.max(1)).clamp(1, most.max(1));
        Rows { f, source, rows, step, elements, stored: Mutex::default(), whole: Mutex::default() }
    }

    /// The number of blocks.
    pub(super) fn blocks(&self) -> usize {
        self.rows.map_or(1, |rows| rows.div_ceil(self.step))
    }

    /// The first element of a block.
    pub(super) fn first(&self, index: usize) -> usize {
        self.rows.map_or(0, |rows| index * self.step * (self.elements / rows.max(1)))
    }

    /// The values of a block of `v`, which this was made for.
    pub(super) fn compute(&self, v: ValueId, index: usize) -> Result<Tensor, WeightError> {
        match self.rows {
            Some(rows) => self.some(v, index * self.step..rows.min((index + 1) * self.step)),
            None => evaluate_constant(self.f, v, self.source),
        }
    }

    /// Tells the source which tensors are not needed any more.
    pub(super) fn done(&self) {
        for v in lock(&self.stored).drain() {
            if let Op::Load(load) = self.f.op(v.0) {
                self.source.done(&load.tensor);
            }
        }
    }

    /// Elements in float64, beyond a block, that are held at once to compute rows of `v`.
    pub(super) fn held(&self, v: ValueId) -> usize {
        let operands = self.f.operands(v).into_iter();
        let most = match self.way(v) {
            Way::Whole => Some(self.held_by_all(v)),
            Way::Stored => None,
            Way::Elementwise => {
                operands.map(|o| if self.by_rows(v, o) { self.held(o) } else { self.held_by_all(o) }).max()
            }
            Way::Reshape(_) | Way::Rows => operands.map(|o| self.held(o)).max(),
        };
        most.unwrap_or(0)
    }

    /// Elements that are held at once when all of `v` is evaluated, if they are more than a block: an op's operands, some of them repeated
    /// to its shape, and its result.
    fn held_by_all(&self, v: ValueId) -> usize {
        let (mut seen, mut ahead, mut most) = (HashSet::new(), vec![v], 0);
        while let Some(at) = ahead.pop() {
            let operands = self.f.operands(at);
            let elements = |v: ValueId| self.f.ty(v).elements();
            most = most.max(2 * elements(at) + operands.iter().map(|o| elements(*o)).sum::<usize>());
            ahead.extend(operands.into_iter().filter(|o| seen.insert(*o)));
        }
        if most > 2 * BLOCK { most } else { 0 }
    }

    /// How rows of a value are computed.
    fn way(&self, v: ValueId) -> Way {
        let (ty, operands) = (self.f.ty(v), self.f.operands(v));
        match self.f.op(v) {
            Op::Load(_) => Way::Stored,
            // Small: computed once rather than for every block.
            _ if ty.elements() <= BLOCK => Way::Whole,
            Op::Cast(_) | Op::Unary(_) | Op::Binary(_) => Way::Elementwise,
            // A row of one is some rows of the other.
            Op::Reshape(_) => match self.f.shape(operands[0]).first() {
                Some(n) if n % ty.shape[0] == 0 => Way::Reshape(n / ty.shape[0]),
                _ => Way::Whole,
            },
            Op::Concat(_) => Way::Rows,
            Op::Pad(pad) if pad.before[0] == 0 && pad.after[0] == 0 => Way::Rows,
            Op::Slice(slice) if slice.stride[0] == 1 => Way::Rows,
            _ => Way::Whole,
        }
    }

    /// Some rows of a value.
    fn some(&self, v: ValueId, range: Range<usize>) -> Result<Tensor, WeightError> {
        let ty = self.f.ty(v);
        let mut shape = ty.shape.clone();
        shape[0] = range.len();
        let part = TensorType::new(ty.dtype, shape);
        let operands = self.f.operands(v);
        let op = self.f.op(v);
        match (self.way(v), op) {
            (Way::Stored, Op::Load(load)) => self.stored(v, &load.tensor, range, &part),
            // A stored value is one of any wider type.
            (Way::Elementwise, Op::Cast(cast))
                if matches!(self.f.op(operands[0]), Op::Load(_)) && widens(self.f.dtype(operands[0]), cast.dtype) =>
            {
                let stored = self.some(operands[0], range)?;
                Ok(Tensor { dtype: cast.dtype, ..stored })
            }
            (Way::Elementwise, _) => {
                let inputs: Vec<Arc<Tensor>> = operands
                    .iter()
                    .map(|&o| match self.by_rows(v, o) {
                        true => self.some(o, range.clone()).map(Arc::new),
                        false => self.whole(o),
                    })
                    .collect::<Result<_, _>>()?;
                self.eval(v, op, &inputs.iter().map(|t| &**t).collect::<Vec<_>>(), &part)
            }
            (Way::Reshape(each), _) => {
                let input = self.some(operands[0], range.start * each..range.end * each)?;
                match input.data.is_standard_layout() {
                    true => input.data.into_shape_with_order(IxDyn(&part.shape)).map_or_else(
                        |e| Err(self.failed(v, op, OpError::new(e.to_string()))),
                        |data| Ok(Tensor { dtype: part.dtype, data }),
                    ),
                    false => self.eval(v, op, &[&input], &part),
                }
            }
            (Way::Rows, Op::Concat(Concat { axis: 0 })) => {
                let (mut inputs, mut first) = (Vec::new(), 0);
                for o in operands {
                    let last = first + self.f.shape(o)[0];
                    let (begin, end) = (range.start.max(first), range.end.min(last));
                    if begin < end {
                        inputs.push(self.some(o, begin - first..end - first)?);
                    }
                    first = last;
                }
                self.eval(v, op, &inputs.iter().collect::<Vec<_>>(), &part)
            }
            (Way::Rows, Op::Slice(slice)) => {
                let begin = slice.begin[0];
                let input = self.some(operands[0], begin + range.start..begin + range.end)?;
                let mut rest = slice.clone();
                (rest.begin[0], rest.end[0]) = (0, range.len());
                self.eval(v, &rest.into(), &[&input], &part)
            }
            (Way::Rows, _) => {
                let inputs: Vec<Tensor> =
                    operands.iter().map(|&o| self.some(o, range.clone())).collect::<Result<_, _>>()?;
                self.eval(v, op, &inputs.iter().collect::<Vec<_>>(), &part)
            }
            _ => {
                let ends = NdSlice::new(range.start as isize, Some(range.end as isize), 1);
                let whole = self.whole(v)?;
                Ok(Tensor { dtype: whole.dtype, data: whole.data.slice_axis(Axis(0), ends).to_owned() })
            }
        }
    }

    /// Rows of a stored tensor.
    fn stored(&self, v: ValueId, tensor: &str, range: Range<usize>, part: &TensorType) -> Result<Tensor, WeightError> {
        let ty = self.f.ty(v);
        let size = ty.bytes() / ty.shape[0];
        let range = range.start * size..range.end * size;
        if let Some(rows) = load_part(self.source, tensor, range.clone()) {
            return values(tensor, &rows?, part);
        }
        let bytes = match lock(&self.stored).get(&v) {
            Some(bytes) => Arc::clone(bytes),
            None => Arc::new(load_bytes(self.source, tensor, ty)?),
        };
        lock(&self.stored).entry(v).or_insert_with(|| Arc::clone(&bytes));
        self.source.visit(tensor, range.start as u64, &bytes[range.clone()]);
        values(tensor, &bytes[range], part)
    }

    /// Whether an elementwise op's rows are made of this operand's rows: it is not repeated along the first axis.
    fn by_rows(&self, v: ValueId, operand: ValueId) -> bool {
        let (result, own) = (self.f.shape(v), self.f.shape(operand));
        own.len() == result.len() && own[0] == result[0]
    }

    /// A value that all blocks need. The lock is held while it is computed: other threads wait for it.
    fn whole(&self, v: ValueId) -> Result<Arc<Tensor>, WeightError> {
        let mut whole = lock(&self.whole);
        if let Some(value) = whole.get(&v) {
            return Ok(Arc::clone(value));
        }
        let value = Arc::new(evaluate_constant(self.f, v, self.source)?);
        whole.insert(v, Arc::clone(&value));
        Ok(value)
    }

    fn eval(&self, v: ValueId, op: &Op, inputs: &[&Tensor], ty: &TensorType) -> Result<Tensor, WeightError> {
        op.eval(inputs, ty).map_err(|error| self.failed(v, op, error))
    }

    fn failed(&self, v: ValueId, op: &Op, error: OpError) -> WeightError {
        WeightError::Op { op: op.name(), scope: self.f.node(v).scope.to_string(), error }
    }
}

/// The values of stored rows.
fn values(tensor: &str, rows: &[u8], ty: &TensorType) -> Result<Tensor, WeightError> {
    let missing = || WeightError::Missing { name: tensor.into() };
    if !converts(ty.dtype, ty.dtype) {
        return Tensor::from_le_bytes(ty, rows).ok_or_else(missing);
    }
    let mut values = vec![0.0; ty.elements()];
    to_f64(ty.dtype, rows, &mut values);
    ArrayD::from_shape_vec(IxDyn(&ty.shape), values).map(|data| Tensor { dtype: ty.dtype, data }).map_err(|_| missing())
}

/// How rows of a value are computed.
#[derive(Clone, Copy)]
enum Way {
    /// From the bytes of a stored tensor.
    Stored,
    /// From the same rows of operands, but for those that are repeated along the first axis.
    Elementwise,
    /// From so many rows of the operand each.
    Reshape(usize),
    /// From rows of the operands.
    Rows,
    /// As some of the whole value.
    Whole,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
