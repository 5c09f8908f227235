//! Ops that move elements.

use anyhow::Result;
use s2dit_ir::ops::{Pad, Slice};
use s2dit_ir::{DType, ValueId};

use super::{FLOATS, Inputs, Lowering, MOVABLE, named, tuple};

impl Lowering<'_> {
    pub(super) fn reshape(&mut self, v: ValueId, shape: &[usize]) -> Result<()> {
        self.takes(v, MOVABLE)?;
        let from = self.f.shape(self.f.operands(v)[0]);
        let x = &self.operands(v)?[0];
        let (op, inputs) = self.reshape_op(v, x, from, shape, "shape")?;
        self.emit(v, op, inputs)
    }

    /// `x` as `shape`, on the way to `v`; `param` names the constant that holds the shape.
    pub(super) fn reshaped(
        &mut self,
        v: ValueId,
        x: &str,
        from: &[usize],
        shape: &[usize],
        param: &str,
    ) -> Result<String> {
        let (op, inputs) = self.reshape_op(v, x, from, shape, param)?;
        self.step(v, op, self.f.dtype(v), shape, inputs)
    }

    /// MIL's `reshape` has no scalars: other ops remove or add all axes.
    fn reshape_op(
        &mut self,
        v: ValueId,
        x: &str,
        from: &[usize],
        shape: &[usize],
        param: &str,
    ) -> Result<(&'static str, Inputs)> {
        let all: Vec<usize> = (0..from.len().max(shape.len())).collect();
        Ok(match (from, shape) {
            ([], []) => ("identity", vec![("x", named(x))]),
            ([], _) => ("expand_dims", vec![("x", named(x)), ("axes", self.ints(v, "axes", &all)?)]),
            (_, []) => ("squeeze", vec![("x", named(x)), ("axes", self.ints(v, "axes", &all)?)]),
            _ => ("reshape", vec![("x", named(x)), ("shape", self.ints(v, param, shape)?)]),
        })
    }

    pub(super) fn transpose(&mut self, v: ValueId, perm: &[usize]) -> Result<()> {
        self.takes(v, MOVABLE)?;
        let x = self.operands(v)?.remove(0);
        let perm = self.ints(v, "perm", perm)?;
        self.emit(v, "transpose", vec![("x", named(&x)), ("perm", perm)])
    }

    pub(super) fn concat(&mut self, v: ValueId, axis: usize) -> Result<()> {
        self.takes(v, MOVABLE)?;
        let operands = self.operands(v)?;
        if let [x] = &operands[..] {
            return self.emit(v, "identity", vec![("x", named(x))]);
        }
        let axis = self.int(v, "axis", axis)?;
        let interleave = self.bool(v, "interleave", false);
        self.emit(v, "concat", vec![("values", tuple(&operands)), ("axis", axis), ("interleave", interleave)])
    }

    pub(super) fn slice(&mut self, v: ValueId, op: &Slice) -> Result<()> {
        self.takes(v, MOVABLE)?;
        let x = self.operands(v)?.remove(0);
        let mut inputs = vec![
            ("x", named(&x)),
            ("begin", self.ints(v, "begin", &op.begin)?),
            ("end", self.ints(v, "end", &op.end)?),
        ];
        if op.stride.iter().any(|&s| s != 1) {
            inputs.push(("stride", self.ints(v, "stride", &op.stride)?));
        }
        self.emit(v, "slice_by_index", inputs)
    }

    pub(super) fn pad(&mut self, v: ValueId, op: &Pad) -> Result<()> {
        self.takes(v, FLOATS)?;
        let x = self.operands(v)?.remove(0);
        let pairs: Vec<[usize; 2]> = op.before.iter().zip(&op.after).map(|(b, a)| [*b, *a]).collect();
        // MIL pads the last axes: the leading ones that are not padded are left out.
        let Some(first) = pairs.iter().position(|p| *p != [0, 0]) else {
            return self.emit(v, "identity", vec![("x", named(&x))]);
        };
        let pad = self.ints(v, "pad", pairs[first..].as_flattened())?;
        let mode = self.string(v, "mode", "constant");
        let value = self.scalar(v, "constant_val", op.value)?;
        self.emit(v, "pad", vec![("x", named(&x)), ("pad", pad), ("mode", mode), ("constant_val", value)])
    }

    pub(super) fn depth_to_space(&mut self, v: ValueId, block: usize) -> Result<()> {
        self.takes(v, FLOATS)?;
        let x = self.operands(v)?.remove(0);
        let block = self.int(v, "block_size", block)?;
        self.emit(v, "depth_to_space", vec![("x", named(&x)), ("block_size", block)])
    }

    pub(super) fn upsample(&mut self, v: ValueId, factor: usize) -> Result<()> {
        self.takes(v, FLOATS)?;
        let x = self.operands(v)?.remove(0);
        let inputs = vec![
            ("x", named(&x)),
            ("scale_factor_height", self.int(v, "scale_factor_height", factor)?),
            ("scale_factor_width", self.int(v, "scale_factor_width", factor)?),
        ];
        self.emit(v, "upsample_nearest_neighbor", inputs)
    }

    pub(super) fn gather(&mut self, v: ValueId, axis: usize) -> Result<()> {
        self.takes(v, &[DType::F16, DType::F32, DType::I32, DType::I16, DType::I8, DType::U16, DType::U8])?;
        let operands = self.operands(v)?;
        let inputs = vec![
            ("x", named(&operands[0])),
            ("indices", named(&operands[1])),
            ("axis", self.int(v, "axis", axis)?),
            ("batch_dims", self.int(v, "batch_dims", 0)?),
            ("validate_indices", self.bool(v, "validate_indices", false)),
        ];
        self.emit(v, "gather", inputs)
    }

    /// MIL repeats with `tile`, which wants the operand at full rank.
    pub(super) fn broadcast_to(&mut self, v: ValueId, shape: &[usize]) -> Result<()> {
        let f = self.f;
        let from = f.shape(f.operands(v)[0]);
        let mut x = self.operands(v)?.remove(0);
        if from == shape {
            return self.emit(v, "identity", vec![("x", named(&x))]);
        }
        self.takes(v, &[DType::F16, DType::F32, DType::I32, DType::Bool])?;
        if from.len() < shape.len() {
            let mut full = vec![1; shape.len() - from.len()];
            full.extend(from);
            if full == shape {
                return self.reshape(v, shape);
            }
            x = self.reshaped(v, &x, from, &full, "shape")?;
        }
        let lead = shape.len() - from.len();
        let reps: Vec<usize> =
            shape.iter().enumerate().map(|(i, &to)| if i < lead || from[i - lead] != to { to } else { 1 }).collect();
        let reps = self.ints(v, "reps", &reps)?;
        self.emit(v, "tile", vec![("x", named(&x)), ("reps", reps)])
    }
}
