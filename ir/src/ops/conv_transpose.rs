//! `conv_transpose`: the transpose of `conv`, seen as a linear map of x.

use ndarray::{ArrayD, IxDyn, indices};
use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, TensorOp, arity, require, same_float};
use crate::{Tensor, TensorType};

/// Each element of x `[N, Cin, *s]` adds its kernel W `[Cin, Cout/groups, *k]` to the result at `position·stride`; of that, `extents` elements an
/// axis are kept behind the first `pad_before`. b `[Cout]` is optional. As `torch.nn.functional.conv_transpose{1,2,3}d`.
///
/// - C1: 1–3 spatial axes and attributes of that length. C2: `groups` divides Cin. C3: W and b agree. C4: strides and dilations ≥ 1.
/// - C5: what is kept goes beyond the last kernel by less than a stride.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvTranspose {
    /// Step a spatial axis.
    pub strides: Vec<usize>,
    /// Elements cut off in front of each spatial axis.
    pub pad_before: Vec<usize>,
    /// Spatial extents of the result.
    pub extents: Vec<usize>,
    /// Distance between kernel taps.
    pub dilations: Vec<usize>,
    /// Channel groups.
    pub groups: usize,
}

impl ConvTranspose {
    /// Elements of a spatial axis before anything is cut off.
    pub fn full(&self, axis: usize, extent: usize, kernel: usize) -> usize {
        extent.saturating_sub(1) * self.strides[axis] + kernel.saturating_sub(1) * self.dilations[axis] + 1
    }
}

impl OpDef for ConvTranspose {
    fn name(&self) -> &'static str {
        "conv_transpose"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 2..=3)?;
        same_float(operands)?;
        let (x, w) = (operands[0], operands[1]);
        require!((3..=5).contains(&x.rank()), "x must be [N, C, 1–3 spatial axes], found {x}");
        let n = x.rank() - 2;
        require!(w.rank() == x.rank(), "the weight of {x} must have rank {}, found {w}", x.rank());
        for (name, a) in [
            ("strides", &self.strides),
            ("pad_before", &self.pad_before),
            ("extents", &self.extents),
            ("dilations", &self.dilations),
        ] {
            require!(a.len() == n, "{name} must have {n} entries, found {a:?}");
        }
        require!(self.strides.iter().chain(&self.dilations).all(|&v| v > 0), "strides and dilations must be positive");
        let g = self.groups;
        require!(
            g > 0 && x.shape[1] % g == 0 && w.shape[0] == x.shape[1],
            "groups {g} and the weight {w} must fit the channels of {x}"
        );
        let channels = w.shape[1] * g;
        if let Some(b) = operands.get(2) {
            require!(b.shape == [channels], "the bias must be [{channels}], found {b}");
        }
        for i in 0..n {
            require!(w.shape[i + 2] > 0 && x.shape[i + 2] > 0, "x {x} and the kernel {w} must not be empty");
            let (full, kept) = (self.full(i, x.shape[i + 2], w.shape[i + 2]), self.pad_before[i] + self.extents[i]);
            let beyond = kept.saturating_sub(full);
            require!(
                self.extents[i] > 0 && (beyond == 0 || beyond < self.strides[i].max(self.dilations[i])),
                "{} elements behind {} of the {full} of spatial axis {i}",
                self.extents[i],
                self.pad_before[i]
            );
        }
        let shape: Vec<usize> = [x.shape[0], channels].into_iter().chain(self.extents.iter().copied()).collect();
        Ok(TensorType::new(x.dtype, shape))
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        let taps: usize = operands[1].shape[1..].iter().product();
        Cost::with_flops(2 * (taps * operands[0].elements()) as u64, operands, ty)
    }
}

impl TensorOp for ConvTranspose {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let (x, w) = (&operands[0].data, &operands[1].data);
        let (ins, outs) = (x.shape()[1] / self.groups, w.shape()[1]);
        let bias = |at: &IxDyn| operands.get(2).map_or(0.0, |b| b.data[[at[1]]]);
        let mut data = ArrayD::from_shape_fn(IxDyn(&ty.shape), |at| bias(&at));
        for (at, value) in x.indexed_iter() {
            let group = at[1] / ins;
            for tap in indices(IxDyn(&w.shape()[1..])) {
                let mut to = vec![at[0], group * outs + tap[0]];
                let mut weight = vec![at[1], tap[0]];
                for i in 0..self.strides.len() {
                    weight.push(tap[i + 1]);
                    let position = at[i + 2] * self.strides[i] + tap[i + 1] * self.dilations[i];
                    to.push(position.wrapping_sub(self.pad_before[i]));
                }
                if let Some(sum) = data.get_mut(IxDyn(&to)) {
                    *sum += value * w[IxDyn(&weight)];
                }
            }
        }
        Ok(Tensor { dtype: ty.dtype, data })
    }
}
