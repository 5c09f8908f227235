//! Matmul, Linear, Conv.

use anyhow::{Result, ensure};
use s2dit_ir::ValueId;
use s2dit_ir::ops::{Conv, Matmul};

use super::super::block::tensor;
use super::super::op;
use super::super::program::Value;
use super::Lowering;

impl Lowering<'_> {
    pub(super) fn matmul(&mut self, v: ValueId, m: &Matmul) -> Result<Value> {
        let mut operands = self.operands(v)?;
        let shape = self.f.shape(v).to_vec();
        let batch = &shape[..shape.len() - 2];
        for (operand, transpose) in operands.iter_mut().zip([m.transpose_x, m.transpose_y]) {
            let mut own = self.parts(*operand).0;
            let rank = own.len();
            if transpose {
                let perm: Vec<usize> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
                *operand = self.transposed(*operand, &perm);
                own.swap(rank - 2, rank - 1);
            }
            // The op wants equal leading axes.
            let wanted = [batch, &own[rank - 2..]].concat();
            *operand = self.brought_to(*operand, &wanted);
        }
        let result = self.result(v);
        Ok(self.emit(op::MATMUL, &operands, result))
    }

    /// A product of matrices: the leading axes of x are flattened and restored, the weight stays as the checkpoint has it.
    pub(super) fn linear(&mut self, v: ValueId) -> Result<Value> {
        let operands = self.f.operands(v);
        let shape = self.f.shape(v).to_vec();
        let weight = self.f.shape(operands[1]).to_vec();
        let rows = self.f.ty(operands[0]).elements() / weight[1];
        let x = self.value(operands[0])?;
        let x = self.reshaped(x, &[rows, weight[1]]);
        let w = self.value(operands[1])?;
        let w = self.turned(w);
        let element = self.parts(x).1;
        let mut y = self.emit(op::MATMUL, &[x, w], tensor(&[rows, weight[0]], element));
        if let Some(&bias) = operands.get(2) {
            let bias = self.value_as(bias, &[1, weight[0]])?;
            y = self.combined(op::BROADCASTING_ADD, y, bias);
        }
        Ok(self.reshaped(y, &shape))
    }

    /// A weight with its two axes swapped; once a graph.
    fn turned(&mut self, weight: Value) -> Value {
        let key = format!("turned {weight}");
        if let Some(value) = self.constants.get(&key) {
            return *value;
        }
        let value = self.transposed(weight, &[1, 0]);
        self.constants.insert(key, value);
        value
    }

    /// The op has no border and no bias; one spatial axis becomes two.
    pub(super) fn conv(&mut self, v: ValueId, c: &Conv) -> Result<Value> {
        let operands = self.f.operands(v);
        let shape = self.f.shape(v).to_vec();
        let weight = self.f.shape(operands[1]).to_vec();
        let axes = weight.len() - 2;
        ensure!((1..=3).contains(&axes), "a convolution over {axes} axes");
        let x = self.value(operands[0])?;
        let border = |i: usize, pads: &[usize]| i.checked_sub(2).map_or(0, |i| pads[i]);
        let before: Vec<usize> = (0..shape.len()).map(|i| border(i, &c.pad_before)).collect();
        let after: Vec<usize> = (0..shape.len()).map(|i| border(i, &c.pad_after)).collect();
        let mut x = self.padded(x, &before, &after, 0.0);
        let (mut strides, mut dilations) = (c.strides.clone(), c.dilations.clone());
        let (mut result, mut weight) = (shape.clone(), weight);
        if axes == 1 {
            let mut flat = self.parts(x).0;
            for shape in [&mut flat, &mut result, &mut weight] {
                shape.insert(2, 1);
            }
            x = self.reshaped(x, &flat);
            strides.insert(0, 1);
            dilations.insert(0, 1);
        }
        let w = self.value_as(operands[1], &weight)?;
        let (strides, dilations) = (self.ui32s(&strides), self.ui32s(&dilations));
        let groups = self.ui32(c.groups);
        let name = if axes == 3 { op::CONV_3D } else { op::CONV_2D };
        let element = self.parts(x).1;
        let mut y = self.emit(name, &[x, w, strides, dilations, groups], tensor(&result, element));
        if let Some(&bias) = operands.get(2) {
            let mut channels = vec![1; result.len()];
            channels[1] = result[1];
            let bias = self.value_as(bias, &channels)?;
            y = self.combined(op::BROADCASTING_ADD, y, bias);
        }
        Ok(self.reshaped(y, &shape))
    }
}
