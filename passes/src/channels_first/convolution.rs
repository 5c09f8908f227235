//! Convolutions over space, and over time and space, on planes.

use s2dit_ir::ops::{Conv, OpError};
use s2dit_ir::{Builder, ValueId};

use super::form::natural;
use super::{LARGEST_EXTENT, Rewriter, Stored};

impl Rewriter<'_> {
    pub(super) fn conv(&mut self, v: ValueId, operands: &[ValueId], conv: &Conv) -> Result<Option<Stored>, OpError> {
        if !operands[1..].iter().all(|&o| self.is_const(o)) || conv.dilations.iter().any(|&d| d != 1) {
            return Ok(None);
        }
        if let Some(stored) = self.tiles(v, operands, conv)? {
            return Ok(Some(stored));
        }
        if let Some(stored) = self.frames_below(v, operands, conv)? {
            return Ok(Some(stored));
        }
        match self.over_time(v, operands, conv)? {
            Some(stored) => Ok(Some(stored)),
            None => self.time_in_channels(v, operands, conv),
        }
    }

    /// A convolution of each frame `[F, C, h, w]` that keeps its size: frames lie below each other in one plane, with as many rows of zeros
    /// between them as a kernel reaches over the edge of a frame. What it makes of those rows is left out.
    fn frames_below(&mut self, v: ValueId, operands: &[ValueId], conv: &Conv) -> Result<Option<Stored>, OpError> {
        let x = operands[0];
        let (&[frames, channels, rows, cols], &[_, made, out_rows, out_cols]) = (self.dims(x), self.dims(v)) else {
            return Ok(None);
        };
        let between = if frames == 1 { 0 } else { conv.pad_before[0].max(conv.pad_after[0]) };
        let height = rows + between;
        let fits = frames * height <= LARGEST_EXTENT && height * cols <= LARGEST_EXTENT;
        if conv.strides.iter().any(|&s| s != 1) || (out_rows, out_cols) != (rows, cols) || !fits {
            return Ok(None);
        }
        let order = vec![1, 0, 2, 3];
        let all = self.ordered(x, &order, &[1, channels, frames, rows * cols])?;
        let weight = self.plain(operands[1])?;
        let bias = operands.get(2).map(|&b| self.plain(b)).transpose()?;
        let value = self.at(v, |b| {
            let all = if between == 0 { all } else { b.pad(all, &[0; 4], &[0, 0, 0, between * cols], 0.0)? };
            let plane = b.reshape(all, &[1, channels, frames * height, cols])?;
            let y = b.conv(conv.clone(), plane, weight, bias)?;
            let y = b.reshape(y, &[1, made, frames, height * cols])?;
            if between == 0 { Ok(y) } else { b.slice(y, 3, 0, rows * cols) }
        })?;
        Ok(Some(Stored { value, order }))
    }

    /// Windows that tile each frame (patches, strides): frames lie below each other in one plane, and no window lies on two of them. Zeros
    /// below a frame are rows of its own in that plane; those to its right are the convolution's.
    fn tiles(&mut self, v: ValueId, operands: &[ValueId], conv: &Conv) -> Result<Option<Stored>, OpError> {
        let (x, kernel) = (operands[0], self.dims(operands[1]));
        let dims = self.dims(x);
        let (order, batch, channels, rows, cols, frames) = match *dims {
            [frames, channels, rows, cols] => (vec![1, 0, 2, 3], 1, channels, rows, cols, frames),
            [batch, channels, frames, rows, cols] if kernel[2] == 1 && conv.strides[0] == 1 => {
                (natural(5), batch, channels, rows, cols, frames)
            }
            _ => return Ok(None),
        };
        let [kh, kw] = kernel[kernel.len() - 2..] else { return Ok(None) };
        let strides = &conv.strides[conv.strides.len() - 2..];
        let (time, after) = conv.pad_after.split_at(conv.pad_after.len() - 2);
        let &[below, right] = after else { return Ok(None) };
        let elsewhere = conv.pad_before.iter().chain(time).any(|&p| p != 0);
        let tiled = (rows + below) % kh == 0 && (cols + right) % kw == 0;
        if elsewhere || conv.groups != 1 || strides != [kh, kw] || !tiled {
            return Ok(None);
        }
        let plane = if below == 0 {
            self.ordered(x, &order, &[batch, channels, frames * rows, cols])?
        } else {
            let frame = self.ordered(x, &order, &[batch, channels, frames, rows * cols])?;
            self.at(v, |b| {
                let taller = b.pad(frame, &[0; 4], &[0, 0, 0, below * cols], 0.0)?;
                b.reshape(taller, &[batch, channels, frames * (rows + below), cols])
            })?
        };
        let weight = self.plain(operands[1])?;
        let bias = operands.get(2).map(|&b| self.plain(b)).transpose()?;
        let weight_shape = [kernel[0], kernel[1], kh, kw];
        let value = self.at(v, |b| {
            let weight = b.reshape(weight, &weight_shape)?;
            let conv = Conv {
                strides: vec![kh, kw],
                pad_before: vec![0, 0],
                pad_after: vec![0, right],
                dilations: vec![1, 1],
                groups: 1,
            };
            b.conv(conv, plane, weight, bias)
        })?;
        Ok(Some(Stored { value, order }))
    }

    /// A convolution over time alone that joins channels: one of a plane whose rows are frames, and whose columns are the pixels of a frame.
    fn over_time(&mut self, v: ValueId, operands: &[ValueId], conv: &Conv) -> Result<Option<Stored>, OpError> {
        let (x, kernel) = (operands[0], self.dims(operands[1]));
        let &[made, width, taps, 1, 1] = kernel else { return Ok(None) };
        let apart = conv.pad_before[1..].iter().chain(&conv.pad_after[1..]).all(|&p| p == 0);
        if width == 1 || conv.strides[1..] != [1, 1] || !apart {
            return Ok(None);
        }
        let order = natural(5);
        let plane = self.in_form(x, &order)?;
        let weight = self.plain(operands[1])?;
        let bias = operands.get(2).map(|&b| self.plain(b)).transpose()?;
        let value = self.at(v, |b| {
            let weight = b.reshape(weight, &[made, width, taps, 1])?;
            let conv = Conv {
                strides: vec![conv.strides[0], 1],
                pad_before: vec![conv.pad_before[0], 0],
                pad_after: vec![conv.pad_after[0], 0],
                dilations: vec![1, 1],
                groups: conv.groups,
            };
            b.conv(conv, plane, weight, bias)
        })?;
        Ok(Some(Stored { value, order }))
    }

    /// A depthwise convolution over time and space: the frames of a channel are channels of their own, and one grouped plane
    /// convolution takes each group of frames to the group of its results. Its kernel holds each tap where the frame is
    /// that it meets, and zeros before the first and after the last: a band, as a convolution in time is one.
    ///
    /// Long clips go in runs of frames: see [`longest_run`].
    fn time_in_channels(&mut self, v: ValueId, operands: &[ValueId], conv: &Conv) -> Result<Option<Stored>, OpError> {
        let (x, kernel) = (operands[0], self.dims(operands[1]));
        let (&[1, width, frames, rows, cols], &[_, _, made, out_rows, out_cols]) = (self.dims(x), self.dims(v)) else {
            return Ok(None);
        };
        let &[_, 1, taps, kh, kw] = kernel else { return Ok(None) };
        let plain = conv.strides.iter().all(|&s| s == 1) && conv.groups == width && kernel[0] == width;
        if !plain || (out_rows, out_cols) != (rows, cols) {
            return Ok(None);
        }
        let order = natural(5);
        let all = self.in_form(x, &order)?;
        let weight = self.plain(operands[1])?;
        let bias = operands.get(2).map(|&b| self.plain(b)).transpose()?;
        let run = longest_run(width, taps, kh * kw).min(made);
        let value = self.at(v, |b| {
            let mut parts = Vec::new();
            for first in (0..made).step_by(run) {
                let count = run.min(made - first);
                // Frames that the run's taps meet; before and after the clip there is only padding.
                let begin = first.saturating_sub(conv.pad_before[0]);
                let end = (first + count - 1 + taps).saturating_sub(conv.pad_before[0]).min(frames);
                let band = band(b, weight, [first, count], [begin, end], conv.pad_before[0])?;
                let kernel = b.reshape(band, &[width * count, end - begin, kh, kw])?;
                let bias = match bias {
                    Some(bias) => {
                        let bias = b.reshape(bias, &[width, 1])?;
                        let bias = b.broadcast_to(bias, &[width, count])?;
                        Some(b.reshape(bias, &[width * count])?)
                    }
                    None => None,
                };
                let input = if (begin, end) == (0, frames) { all } else { b.slice(all, 2, begin, end)? };
                let input = b.reshape(input, &[1, width * (end - begin), rows, cols])?;
                let plane = Conv {
                    strides: vec![1, 1],
                    pad_before: conv.pad_before[1..].to_vec(),
                    pad_after: conv.pad_after[1..].to_vec(),
                    dilations: vec![1, 1],
                    groups: width,
                };
                let part = b.conv(plane, input, kernel, bias)?;
                parts.push(if parts.is_empty() && count == made {
                    part
                } else {
                    b.reshape(part, &[1, width, count, rows * cols])?
                });
            }
            if parts.len() == 1 { Ok(parts[0]) } else { b.concat(&parts, 2) }
        })?;
        Ok(Some(Stored { value, order }))
    }
}

/// Elements of the kernel of one run.
const LARGEST_BAND: usize = 1 << 22;

/// Frames that one plane convolution makes, of a kernel with `taps` in time and `plane` elements in space.
///
/// A run costs four ops, so a clip that is not long is one run. But the kernel of a run of `r` frames has `width · r · (r + taps − 1) ·
/// plane` elements, most of them zeros: it grows with the square. So a run is as long as leaves its channels within the
/// engine's range and its kernel at most [`LARGEST_BAND`] elements (8 MB in fp16), and at least a frame, whose kernel is no larger
/// than the convolution's own. All runs but the first and the last have equal kernels, which are stored once: the weights
/// of a clip do not grow with its length.
fn longest_run(width: usize, taps: usize, plane: usize) -> usize {
    let in_range = (LARGEST_EXTENT / width).saturating_sub(taps - 1);
    let elements = |run: usize| width * run * (run + taps - 1) * plane;
    (1..=in_range).take_while(|&run| elements(run) <= LARGEST_BAND).last().unwrap_or(1)
}

/// The kernels `[D, count, end − begin, kh, kw]` that take frames `begin..end` to frames `first..first + count`.
fn band(
    b: &mut Builder,
    weight: ValueId,
    [first, count]: [usize; 2],
    [begin, end]: [usize; 2],
    pad_before: usize,
) -> Result<ValueId, OpError> {
    let taps = b.shape(weight)[2];
    let mut rows = Vec::with_capacity(count);
    for frame in first..first + count {
        // Tap k meets the frame `frame + k − pad_before`.
        let meets = |k: usize| (frame + k).checked_sub(pad_before).filter(|at| (begin..end).contains(at));
        let met: Vec<usize> = (0..taps).filter(|&k| meets(k).is_some()).collect();
        let (Some(&low), Some(&high)) = (met.first(), met.last()) else {
            return Err(OpError::new("a frame that no tap meets"));
        };
        let part = b.slice(weight, 2, low, high + 1)?;
        let before = meets(low).unwrap_or(begin) - begin;
        let after = end - begin - before - (high + 1 - low);
        rows.push(b.pad(part, &[0, 0, before, 0, 0], &[0, 0, after, 0, 0], 0.0)?);
    }
    b.concat(&rows, 1)
}
