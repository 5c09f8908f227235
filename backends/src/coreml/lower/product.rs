//! Products with weights and between activations.

use anyhow::{Result, ensure};
use s2dit_ir::ops::{Conv, Matmul};
use s2dit_ir::{DType, TensorType, ValueId};

use super::{FLOATS, Inputs, Lowering, named};

/// The rank up to which `linear` takes its operand.
const LINEAR_RANK: usize = 3;

impl Lowering<'_> {
    pub(super) fn matmul(&mut self, v: ValueId, op: &Matmul) -> Result<()> {
        self.takes(v, FLOATS)?;
        let operands = self.operands(v)?;
        let inputs = self.matmul_inputs(v, &operands[0], &operands[1], op.transpose_x, op.transpose_y);
        self.emit(v, "matmul", inputs)
    }

    fn matmul_inputs(&mut self, v: ValueId, x: &str, y: &str, transpose_x: bool, transpose_y: bool) -> Inputs {
        vec![
            ("x", named(x)),
            ("y", named(y)),
            ("transpose_x", self.bool(v, "transpose_x", transpose_x)),
            ("transpose_y", self.bool(v, "transpose_y", transpose_y)),
        ]
    }

    pub(super) fn linear(&mut self, v: ValueId) -> Result<()> {
        self.takes(v, FLOATS)?;
        let f = self.f;
        let operands = f.operands(v);
        let constant = operands[1..].iter().all(|o| self.constant.contains(o));
        let names = self.operands(v)?;
        if !constant || f.ty(v).rank() > LINEAR_RANK {
            return self.linear_by_matmul(v, &names);
        }
        let bias = match names.get(2) {
            Some(bias) => named(bias),
            None => {
                let bias = TensorType::new(f.dtype(v), [f.shape(operands[1])[0]]);
                let zeros = self.out.blobs.made(bias.dtype, &bias.shape, vec![0; bias.bytes()])?;
                self.param(v, "bias", zeros)
            }
        };
        self.emit(v, "linear", vec![("x", named(&names[0])), ("weight", named(&names[1])), ("bias", bias)])
    }

    /// A `linear` as `matmul` and `add`, for operands that MIL's `linear` does not take.
    fn linear_by_matmul(&mut self, v: ValueId, names: &[String]) -> Result<()> {
        let f = self.f;
        let (dtype, shape) = (f.dtype(v), f.shape(v));
        // `matmul` treats operands of one dimension in its own way.
        let vector = shape.len() == 1;
        let rows = if vector { vec![1, shape[0]] } else { shape.to_vec() };
        let x = match vector {
            true => {
                let inner = f.shape(f.operands(v)[0])[0];
                self.reshaped(v, &names[0], &[inner], &[1, inner], "x_shape")?
            }
            false => names[0].clone(),
        };
        let inputs = self.matmul_inputs(v, &x, &names[1], false, true);
        match (names.get(2), vector) {
            (None, false) => self.emit(v, "matmul", inputs),
            (Some(bias), false) => {
                let product = self.step(v, "matmul", dtype, &rows, inputs)?;
                self.emit(v, "add", vec![("x", named(&product)), ("y", named(bias))])
            }
            (None, true) => {
                let product = self.step(v, "matmul", dtype, &rows, inputs)?;
                let to = self.ints(v, "shape", shape)?;
                self.emit(v, "reshape", vec![("x", named(&product)), ("shape", to)])
            }
            (Some(bias), true) => {
                let product = self.step(v, "matmul", dtype, &rows, inputs)?;
                let flat = self.reshaped(v, &product, &rows, shape, "shape")?;
                self.emit(v, "add", vec![("x", named(&flat)), ("y", named(bias))])
            }
        }
    }

    pub(super) fn conv(&mut self, v: ValueId, op: &Conv) -> Result<()> {
        self.takes(v, FLOATS)?;
        let f = self.f;
        let operands = f.operands(v);
        let constant_weight = self.constant.contains(&operands[1]);
        ensure!(
            constant_weight || op.dilations.iter().all(|&d| d == 1),
            "Core ML dilates constant kernels only, found dilations {:?} with a computed one",
            op.dilations
        );
        let names = self.operands(v)?;
        let pad: Vec<usize> = op.pad_before.iter().zip(&op.pad_after).flat_map(|(b, a)| [*b, *a]).collect();
        let pad_type = if pad.iter().all(|&p| p == 0) { "valid" } else { "custom" };
        let mut inputs = vec![
            ("x", named(&names[0])),
            ("weight", named(&names[1])),
            ("strides", self.ints(v, "strides", &op.strides)?),
            ("pad_type", self.string(v, "pad_type", pad_type)),
            ("pad", self.ints(v, "pad", &pad)?),
            ("dilations", self.ints(v, "dilations", &op.dilations)?),
            ("groups", self.int(v, "groups", op.groups)?),
        ];
        match operands.get(2) {
            None => self.emit(v, "conv", inputs),
            Some(bias) if self.constant.contains(bias) => {
                inputs.push(("bias", named(&names[2])));
                self.emit(v, "conv", inputs)
            }
            Some(_) => self.conv_then_bias(v, inputs, &names[2]),
        }
    }

    /// MIL's bias is a constant: a computed one is added by hand.
    fn conv_then_bias(&mut self, v: ValueId, inputs: Inputs, bias: &str) -> Result<()> {
        let (dtype, shape): (DType, &[usize]) = (self.f.dtype(v), self.f.shape(v));
        let mut wide = vec![1; shape.len()];
        wide[1] = shape[1];
        let conv = self.step(v, "conv", dtype, shape, inputs)?;
        let bias = self.reshaped(v, bias, &[shape[1]], &wide, "bias_shape")?;
        self.emit(v, "add", vec![("x", named(&conv)), ("y", named(&bias))])
    }
}
