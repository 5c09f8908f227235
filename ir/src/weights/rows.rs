//! Products with a stored weight that is read once, row by row, and never held in float64.

use std::io::{self, Write};

use super::{WeightError, WeightSource, plain_load, write_constant};
use crate::ops::OpError;
use crate::{Function, Tensor, TensorType, ValueId};

/// Elements from which on a weight is worth streaming.
pub(crate) const WORTH_IT: usize = 1 << 16;

/// Whether a weight's bytes can be streamed.
pub(crate) fn can_stream(f: &Function, weight: ValueId) -> bool {
    plain_load(f, weight).is_some()
}

/// `linear` at `v`; of `inputs`, the weight's place is not looked at.
pub(crate) fn linear(
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
    let mut sink = Rows {
        row: TensorType::new(ty.dtype, [inner]),
        pending: Vec::new(),
        x: x.chunks_exact(inner.max(1)).collect(),
        columns: Vec::with_capacity(ty.shape[0]),
    };
    write_constant(f, weight, source, &mut sink)?;
    let columns = sink.columns;
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
struct Rows<'a> {
    row: TensorType,
    pending: Vec<u8>,
    x: Vec<&'a [f64]>,
    /// For each row of the weight, its product with each row of x.
    columns: Vec<Vec<f64>>,
}

impl Write for Rows<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        let size = self.row.bytes();
        let whole = self.pending.len() / size * size;
        for row in self.pending[..whole].chunks_exact(size) {
            let row = Tensor::from_le_bytes(&self.row, row).ok_or_else(|| io::Error::other("a row of another size"))?;
            let products = self.x.iter().map(|x| row.data.iter().zip(*x).map(|(a, b)| a * b).sum());
            self.columns.push(products.collect());
        }
        self.pending.drain(..whole);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
