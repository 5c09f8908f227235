//! Products with a stored weight that is read once, row by row, and never held in float64.

use super::{Stored, WeightError, WeightSource, plain_load};
use crate::ops::OpError;
use crate::{Function, Tensor, TensorType, ValueId};

/// Elements from which on a weight is worth streaming.
const WORTH_IT: usize = 1 << 16;

/// Whether a weight is better streamed than held: a large stored tensor.
pub(crate) fn streams(f: &Function, weight: ValueId) -> bool {
    f.ty(weight).elements() >= WORTH_IT && plain_load(f, weight).is_some()
}

/// `linear` at `v` whose weight [`streams`]; of `inputs`, the weight's place is not looked at.
pub(crate) fn streamed_linear(
    f: &Function,
    v: ValueId,
    inputs: &[Option<&Tensor>],
    source: &dyn WeightSource,
    failed: impl Fn(OpError) -> WeightError,
) -> Result<Tensor, WeightError> {
    let missing = || failed(OpError::new("an operand has no value"));
    let x = inputs.first().copied().flatten().ok_or_else(missing)?;
    let weight = f.operands(v)[1];
    let ty = f.ty(weight);
    let inner = ty.shape[1];
    let x: Vec<f64> = x.data.iter().copied().collect();
    let mut products = Products {
        row: TensorType::new(ty.dtype, [inner]),
        pending: Vec::new(),
        x: x.chunks_exact(inner.max(1)).collect(),
        columns: Vec::with_capacity(ty.shape[0]),
    };
    let (stored, mut buffer) = (Stored::new(f, weight, source).ok_or_else(missing)?, Vec::new());
    for index in 0..stored.count() {
        products.take(stored.compute(index, &mut buffer)?.bytes(&buffer)).ok_or_else(missing)?;
    }
    stored.done();
    let columns = products.columns;
    let bias: Option<Vec<f64>> = match inputs.get(2) {
        Some(bias) => Some(bias.ok_or_else(missing)?.data.iter().copied().collect()),
        None => None,
    };
    let rows = x.len() / inner.max(1);
    let at = |r: usize, o: usize| columns[o][r] + bias.as_ref().map_or(0.0, |b| b[o]);
    let y = (0..rows).flat_map(|r| (0..columns.len()).map(move |o| (r, o))).map(|(r, o)| at(r, o)).collect();
    Tensor::from_values(f.ty(v), y).ok_or_else(missing)
}

/// Takes the weight's bytes and multiplies each row as soon as it is whole.
struct Products<'a> {
    row: TensorType,
    pending: Vec<u8>,
    x: Vec<&'a [f64]>,
    /// For each row of the weight, its product with each row of x.
    columns: Vec<Vec<f64>>,
}

impl Products<'_> {
    /// Takes the next bytes; `None` if they are no values.
    fn take(&mut self, bytes: &[u8]) -> Option<()> {
        self.pending.extend_from_slice(bytes);
        let size = self.row.bytes();
        let whole = self.pending.len() / size * size;
        for row in self.pending[..whole].chunks_exact(size) {
            let row = Tensor::from_le_bytes(&self.row, row)?;
            let products = self.x.iter().map(|x| row.data.iter().zip(*x).map(|(a, b)| a * b).sum());
            self.columns.push(products.collect());
        }
        self.pending.drain(..whole);
        Some(())
    }
}
