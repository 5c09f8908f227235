//! Pool, ConvTranspose.

use anyhow::Result;
use s2dit_ir::ValueId;
use s2dit_ir::ops::{ConvTranspose, Pool};

use super::{Lowering, int, ints};

impl Lowering<'_> {
    pub(super) fn pool(&mut self, v: ValueId, p: &Pool) -> Result<()> {
        let x = self.operands(v)?;
        let mut attributes = vec![
            ints("kernel_shape", p.window.iter().copied()),
            ints("pads", p.pad_before.iter().chain(&p.pad_after).copied()),
            ints("strides", p.strides.iter().copied()),
        ];
        if p.mean {
            attributes.insert(0, int("count_include_pad", 1));
        }
        self.emit(v, if p.mean { "AveragePool" } else { "MaxPool" }, &x, attributes);
        Ok(())
    }

    /// What is kept beyond the last kernel is ONNX's `output_padding`.
    pub(super) fn conv_transpose(&mut self, v: ValueId, c: &ConvTranspose) -> Result<()> {
        let operands = self.f.operands(v);
        let x = self.operands(v)?;
        let kernel = self.f.shape(operands[1])[2..].to_vec();
        let spatial = self.f.shape(operands[0])[2..].to_vec();
        let full: Vec<usize> = (0..kernel.len()).map(|i| c.full(i, spatial[i], kernel[i])).collect();
        let kept: Vec<usize> = c.pad_before.iter().zip(&c.extents).map(|(pad, extent)| pad + extent).collect();
        let after: Vec<usize> = full.iter().zip(&kept).map(|(full, kept)| full.saturating_sub(*kept)).collect();
        let beyond: Vec<usize> = full.iter().zip(&kept).map(|(full, kept)| kept.saturating_sub(*full)).collect();
        let attributes = vec![
            ints("dilations", c.dilations.iter().copied()),
            int("group", c.groups as i64),
            ints("kernel_shape", kernel),
            ints("output_padding", beyond),
            ints("pads", c.pad_before.iter().chain(&after).copied()),
            ints("strides", c.strides.iter().copied()),
        ];
        self.emit(v, "ConvTranspose", &x, attributes);
        Ok(())
    }
}
