//! `conv`: grouped convolution over one to three spatial axes.

use ndarray::{ArrayD, IxDyn};
use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, TensorOp, arity, require, same_float};
use crate::{Tensor, TensorType};

/// Cross-correlation as in `torch.nn.functional.conv{1,2,3}d`: x `[N, Cin, *s]`, W `[Cout, Cin/groups, *k]`, b `[Cout]`
/// (optional); zeros are padded before and after each spatial axis.
///
/// - C1: 1–3 spatial axes and attributes of that length. C2: `groups` divides Cin and Cout. C3: W and b agree.
/// - C4: the kernel fits into the padded input. C5: strides and dilations ≥ 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv {
    /// Step a spatial axis.
    pub strides: Vec<usize>,
    /// Zeros before each spatial axis.
    pub pad_before: Vec<usize>,
    /// Zeros after each spatial axis.
    pub pad_after: Vec<usize>,
    /// Distance between kernel taps.
    pub dilations: Vec<usize>,
    /// Channel groups.
    pub groups: usize,
}

impl Conv {
    /// No padding, no dilation, one group.
    pub fn with_strides(strides: &[usize]) -> Self {
        let n = strides.len();
        Conv {
            strides: strides.to_vec(),
            pad_before: vec![0; n],
            pad_after: vec![0; n],
            dilations: vec![1; n],
            groups: 1,
        }
    }
}

impl OpDef for Conv {
    fn name(&self) -> &'static str {
        "conv"
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
            ("pad_after", &self.pad_after),
            ("dilations", &self.dilations),
        ] {
            require!(a.len() == n, "{name} must have {n} entries, found {a:?}");
        }
        require!(self.strides.iter().chain(&self.dilations).all(|&v| v > 0), "strides and dilations must be positive");
        let g = self.groups;
        require!(
            g > 0 && x.shape[1] % g == 0 && w.shape[0] % g == 0,
            "groups {g} must divide the channels of {x} and {w}"
        );
        require!(w.shape[1] == x.shape[1] / g, "the weight {w} must take {} channels a group", x.shape[1] / g);
        if let Some(b) = operands.get(2) {
            require!(b.shape == [w.shape[0]], "the bias must be [{}], found {b}", w.shape[0]);
        }
        let mut shape = vec![x.shape[0], w.shape[0]];
        for i in 0..n {
            let padded = x.shape[i + 2] + self.pad_before[i] + self.pad_after[i];
            let k = w.shape[i + 2];
            require!(k > 0, "the kernel must not be empty, found {w}");
            let reach = (k - 1) * self.dilations[i] + 1;
            require!(padded >= reach, "the kernel reaches {reach} but spatial axis {i} has {padded} with padding");
            shape.push((padded - reach) / self.strides[i] + 1);
        }
        Ok(TensorType::new(x.dtype, shape))
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        let taps: usize = operands[1].shape[1..].iter().product();
        Cost::with_flops(2 * (taps * ty.elements()) as u64, operands, ty)
    }
}

impl TensorOp for Conv {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let (x, w) = (&operands[0].data, &operands[1].data);
        // One to three spatial axes are computed as three, the leading ones of extent 1.
        let n = ty.rank() - 2;
        let three = |v: &[usize], fill: usize| -> [usize; 3] {
            let mut out = [fill; 3];
            out[3 - n..].copy_from_slice(&v[v.len() - n..]);
            out
        };
        let (xs, ks, os) = (three(x.shape(), 1), three(w.shape(), 1), three(&ty.shape, 1));
        let (st, pb, di) = (three(&self.strides, 1), three(&self.pad_before, 0), three(&self.dilations, 1));
        let (cin_g, cout) = (w.shape()[1], w.shape()[0]);
        let cout_g = cout / self.groups;
        let cin = x.shape()[1];
        let xv: Vec<f64> = x.iter().copied().collect();
        let wv: Vec<f64> = w.iter().copied().collect();
        let at = |s: [usize; 3], p: [usize; 3]| (p[0] * s[1] + p[1]) * s[2] + p[2];
        let (xsize, ksize, osize) =
            (xs.iter().product::<usize>(), ks.iter().product::<usize>(), os.iter().product::<usize>());
        let mut out = vec![0.0; ty.elements()];
        for b in 0..ty.shape[0] {
            for co in 0..cout {
                let bias = operands.get(2).map_or(0.0, |t| t.data[[co]]);
                for o in 0..osize {
                    let p = [o / (os[1] * os[2]), o / os[2] % os[1], o % os[2]];
                    let mut sum = bias;
                    for ci in 0..cin_g {
                        let channel = (b * cin + co / cout_g * cin_g + ci) * xsize;
                        for k in 0..ksize {
                            let q = [k / (ks[1] * ks[2]), k / ks[2] % ks[1], k % ks[2]];
                            let mut s = [0; 3];
                            let inside = (0..3).all(|i| {
                                let pos = p[i] * st[i] + q[i] * di[i];
                                s[i] = pos.wrapping_sub(pb[i]);
                                pos >= pb[i] && s[i] < xs[i]
                            });
                            if inside {
                                sum += xv[channel + at(xs, s)] * wv[(co * cin_g + ci) * ksize + k];
                            }
                        }
                    }
                    out[(b * cout + co) * osize + o] = sum;
                }
            }
        }
        let data = ArrayD::from_shape_vec(IxDyn(&ty.shape), out).map_err(|e| OpError::new(e.to_string()))?;
        Ok(Tensor { dtype: ty.dtype, data })
    }
}
