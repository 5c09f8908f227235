//! Convolutions of frames, in planes and over time.

use s2dit_ir::ValueId;
use s2dit_ir::ops::Conv;

use super::super::builder::Built;
use super::Frames;

/// What a convolution over time sees beside a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// A frame alone: the kernel has no axis of time, or an axis of one frame.
    Plane,
    /// The frames before it; before the start of a video there are zeros.
    AfterZeros,
    /// The frames before it; before the first frame of the clip there are copies of it.
    AfterCopies,
    /// As many frames on both sides; beyond the clip there are copies of its first and its last frame.
    Centred,
}

/// Another order of the channels that a convolution makes: they are counted by `extents`, the last one fastest, and stored by the extents in the
/// order `order`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    /// What the channels are counted by.
    pub extents: &'a [usize],
    /// The axes of `extents`, slowest first.
    pub order: &'a [usize],
    /// The channels are multiplied with a number, after which another is added.
    pub then: (f64, f64),
}

impl Frames<'_> {
    /// The convolution `name` of the current module: `weight [O, I, (kt,) kh, kw]` and, if `has_bias`, `bias [O]`. Planes keep their size: kernels are odd.
    pub(crate) fn conv(&mut self, name: &str, x: ValueId, kernel: Kernel, has_bias: bool) -> Built {
        self.conv_rows(name, x, kernel, has_bias, None)
    }

    /// [`Frames::conv`] with its channels in another order.
    pub(crate) fn conv_rows(
        &mut self,
        name: &str,
        x: ValueId,
        kernel: Kernel,
        has_bias: bool,
        rows: Option<Rows<'_>>,
    ) -> Built {
        self.within(name, |m| {
            let mut weight = m.param("weight")?;
            let shape = m.b.shape(weight).to_vec();
            let [out, channels, ref taps @ .., height, width] = shape[..] else {
                return Err(s2dit_ir::OpError::new(format!("a convolution of weight {shape:?}")).into());
            };
            let taps: usize = taps.iter().product();
            let mut seen = x;
            if taps > 1 {
                seen = m.seen(x, taps, kernel)?;
                weight = m.b.transpose(weight, &[0, 2, 1, 3, 4])?;
            }
            if shape.len() > 4 {
                weight = m.b.reshape(weight, &[out, taps * channels, height, width])?;
            }
            let mut bias = has_bias.then(|| m.param("bias")).transpose()?;
            if let Some(rows) = rows {
                weight = m.reordered(weight, rows)?;
                bias = bias.map(|bias| m.reordered(bias, rows)).transpose()?;
            }
            let pad = vec![height / 2, width / 2];
            let conv = Conv { pad_before: pad.clone(), pad_after: pad, ..Conv::with_strides(&[1, 1]) };
            Ok(m.b.conv(conv, seen, weight, bias)?)
        })
    }

    /// The frames that a kernel of so many `taps` sees of each frame, as channels: `[T, C, h, w]` to `[T, taps·C, h, w]`.
    fn seen(&mut self, x: ValueId, taps: usize, kernel: Kernel) -> Built {
        let [frames, channels, rows, cols] = self.b.shape(x)[..] else {
            return Err(s2dit_ir::OpError::new("frames of another rank").into());
        };
        let whole = match kernel {
            Kernel::Plane => return Err(s2dit_ir::OpError::new("a kernel of planes with an axis of time").into()),
            Kernel::AfterZeros => self.behind_past(x, taps - 1)?,
            Kernel::AfterCopies | Kernel::Centred => {
                let after = if kernel == Kernel::Centred { (taps - 1) / 2 } else { 0 };
                let first = self.b.slice(x, 0, 0, 1)?;
                let last = self.b.slice(x, 0, frames - 1, frames)?;
                let copies = [vec![first; taps - 1 - after], vec![x], vec![last; after]].concat();
                self.b.concat(&copies, 0)?
            }
        };
        if frames == 1 {
            return Ok(self.b.reshape(whole, &[1, taps * channels, rows, cols])?);
        }
        let mut parts = Vec::with_capacity(taps);
        for tap in 0..taps {
            parts.push(self.b.slice(whole, 0, tap, tap + frames)?);
        }
        Ok(self.b.concat(&parts, 1)?)
    }

    /// A weight `[O, …]` or a bias `[O]` with its rows in another order.
    fn reordered(&mut self, x: ValueId, rows: Rows<'_>) -> Built {
        let shape = self.b.shape(x).to_vec();
        let rest: usize = shape[1..].iter().product();
        let mut y = self.b.reshape(x, &[rows.extents, &[rest]].concat())?;
        y = self.b.transpose(y, &[rows.order, &[rows.extents.len()]].concat())?;
        y = self.b.reshape(y, &shape)?;
        let (scale, shift) = rows.then;
        if scale != 1.0 {
            y = self.b.mul_scalar(y, scale)?;
        }
        if shape.len() == 1 && shift != 0.0 {
            y = self.b.add_scalar(y, shift)?;
        }
        Ok(y)
    }
}
