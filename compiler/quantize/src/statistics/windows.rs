//! The input elements that each output of a linear or convolution is made of.

use s2dit_ir::Op;

/// The windows of an input: for each output position, the elements that a row of the weight is multiplied with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Windows {
    /// Rows of the last axis.
    Rows {
        /// Number of windows.
        count: usize,
        /// Length of a window.
        width: usize,
    },
    /// Windows of `[N, C, …]`.
    Kernel {
        /// For each output position and kernel position, where in a channel; `None` in the padding.
        places: Vec<Option<u32>>,
        /// Kernel positions.
        positions: usize,
        /// Elements of a channel.
        channel: usize,
        /// Channels of a group, groups, samples.
        extents: [usize; 3],
    },
}

impl Windows {
    /// The windows of an op that multiplies an input of shape `x` with a weight of shape `w`.
    pub(super) fn of(op: &Op, x: &[usize], w: &[usize]) -> Windows {
        let Op::Conv(conv) = op else {
            let width = x.last().copied().unwrap_or(1).max(1);
            return Windows::Rows { count: x.iter().product::<usize>() / width, width };
        };
        let axes = x.len() - 2;
        let padded = |i: usize| x[i + 2] + conv.pad_before[i] + conv.pad_after[i];
        let outputs: Vec<usize> =
            (0..axes).map(|i| (padded(i) - (w[i + 2] - 1) * conv.dilations[i] - 1) / conv.strides[i] + 1).collect();
        let positions = w[2..].iter().product();
        let mut places = Vec::new();
        for output in 0..outputs.iter().product::<usize>() {
            for position in 0..positions {
                let (o, k) = (digits(output, &outputs), digits(position, &w[2..]));
                let place = (0..axes).try_fold(0, |place, i| {
                    let at = (o[i] * conv.strides[i] + k[i] * conv.dilations[i]).checked_sub(conv.pad_before[i])?;
                    (at < x[i + 2]).then_some(place * x[i + 2] + at)
                });
                places.push(place.map(|p| p as u32));
            }
        }
        let channel = x[2..].iter().product();
        Windows::Kernel { places, positions, channel, extents: [w[1], conv.groups, x[0]] }
    }

    /// The number of windows; every group of a grouped convolution has its own.
    pub(super) fn count(&self) -> usize {
        match self {
            Windows::Rows { count, .. } => *count,
            Windows::Kernel { places, positions, extents, .. } => places.len() / positions * extents[1] * extents[2],
        }
    }

    /// Input `i` of a window.
    pub(super) fn input(&self, x: &[f32], window: usize, i: usize) -> f64 {
        match self {
            Windows::Rows { width, .. } => f64::from(x[window * width + i]),
            Windows::Kernel { places, positions, channel, extents: [channels, ..] } => {
                let outputs = places.len() / positions;
                let (plane, output) = (window / outputs, window % outputs);
                let place = places[output * positions + i % positions];
                place.map_or(0.0, |p| f64::from(x[(plane * channels + i / positions) * channel + p as usize]))
            }
        }
    }
}

/// A flat index as an index of each axis.
fn digits(mut index: usize, extents: &[usize]) -> Vec<usize> {
    let mut digits: Vec<usize> = extents
        .iter()
        .rev()
        .map(|n| {
            let digit = index % n;
            index /= n;
            digit
        })
        .collect();
    digits.reverse();
    digits
}

#[cfg(test)]
mod tests {
    use s2dit_ir::ops::{Conv, OpDef, TensorOp};
    use s2dit_ir::{DType, Tensor, TensorType};

    use super::*;

    /// Products with the windows are the convolution.
    #[test]
    fn windows_are_what_a_convolution_multiplies() {
        let conv = Conv {
            strides: vec![2, 1],
            pad_before: vec![1, 0],
            pad_after: vec![0, 2],
            dilations: vec![1, 2],
            groups: 2,
        };
        let (x, w) = ([2, 6, 5, 4], [4, 3, 2, 3]);
        let tensor = |shape: &[usize], step: usize| {
            let n: usize = shape.iter().product();
            let ty = TensorType::new(DType::F32, shape.to_vec());
            Tensor::from_values(&ty, (0..n).map(|i| (i * step % 17) as f64 - 8.0).collect()).unwrap()
        };
        let (xt, wt) = (tensor(&x, 5), tensor(&w, 7));
        let (xty, wty) = (TensorType::new(DType::F32, x), TensorType::new(DType::F32, w));
        let ty = conv.infer(&[&xty, &wty], None).unwrap();
        let wanted: Vec<f64> = conv.eval(&[&xt, &wt], &ty).unwrap().data.into_iter().collect();

        let windows = Windows::of(&Op::Conv(conv), &x, &w);
        let data: Vec<f32> = xt.data.iter().map(|v| *v as f32).collect();
        let weight: Vec<f64> = wt.data.iter().copied().collect();
        let outputs: usize = ty.shape[2..].iter().product();
        assert_eq!(windows.count(), 2 * 2 * outputs);
        for window in 0..windows.count() {
            // Two output channels a group.
            let (sample, group, output) = (window / outputs / 2, window / outputs % 2, window % outputs);
            for row in 0..2 {
                let channel = group * 2 + row;
                let sum: f64 = (0..18).map(|i| weight[channel * 18 + i] * windows.input(&data, window, i)).sum();
                assert_eq!(sum, wanted[(sample * 4 + channel) * outputs + output]);
            }
        }
    }
}
