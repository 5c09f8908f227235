//! Images sampled at points that are values: `resample`, `affine`, `crop_resize`.
//!
//! Points are computed while the program is raised; what is left are gathers of the pixels around them and weighted sums.

use anyhow::{Context, Result, bail};
use s2dit_ir::ops::GatherNd;
use s2dit_ir::{DType, Tensor, TensorType, ValueId};

use super::resize::Sampling;
use super::select::elements;
use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "resample" => resample,
        "affine" => affine,
        "crop_resize" => crop_resize,
        _ => return None,
    })
}

/// A point of an image of the batch.
struct Point {
    image: usize,
    x: f64,
    y: f64,
}

/// What lies outside an image.
#[derive(Clone, Copy, PartialEq)]
enum Outside {
    /// One number, everywhere.
    Constant(f64),
    /// As [`Outside::Constant`], and no point outside is mixed with the border's pixels.
    Cut(f64),
    /// The pixel of the border.
    Border,
    /// Mirrored at the border's pixels, which are not repeated.
    Reflection,
    /// Mirrored at the border.
    Symmetric,
}

impl Outside {
    fn value(self) -> Option<f64> {
        match self {
            Outside::Constant(value) | Outside::Cut(value) => Some(value),
            _ => None,
        }
    }

    /// The position of the pixel that stands for position `p`; `None` if none does.
    fn pixel(self, p: i64, extent: usize) -> Option<usize> {
        let n = extent as i64;
        let inside = match self {
            Outside::Constant(_) | Outside::Cut(_) => Some(p).filter(|p| (0..n).contains(p))?,
            Outside::Border => p.clamp(0, n - 1),
            Outside::Reflection if n == 1 => 0,
            Outside::Reflection => {
                let q = p.rem_euclid(2 * (n - 1));
                q.min(2 * (n - 1) - q)
            }
            Outside::Symmetric => {
                let q = p.rem_euclid(2 * n);
                q.min(2 * n - 1 - q)
            }
        };
        usize::try_from(inside).ok()
    }
}

/// Images `[B, C, H, W]` at points: `[points, C]`. `from` are the values that the points were computed from.
fn sampled(
    r: &mut Raise,
    x: ValueId,
    points: &[Point],
    outside: Outside,
    lines: bool,
    from: &[ValueId],
) -> Result<ValueId> {
    let &[_, _, height, width] = r.b.shape(x) else { bail!("{}: expected rank 4", r.b.f.ty(x)) };
    let dtype = r.b.f.dtype(x);
    let pixels = r.b.transpose(x, &[0, 2, 3, 1])?;
    let corners: &[(i64, i64)] = if lines { &[(0, 0), (0, 1), (1, 0), (1, 1)] } else { &[(0, 0)] };
    let mut sum: Option<ValueId> = None;
    let mut rest = vec![1.0; points.len()];
    for &(down, right) in corners {
        let mut indices = Vec::with_capacity(3 * points.len());
        let mut weights = Vec::with_capacity(points.len());
        for (point, rest) in points.iter().zip(&mut rest) {
            let (x, y) = if lines { (point.x.floor(), point.y.floor()) } else { (round(point.x), round(point.y)) };
            let weight = |p: f64, low: f64, step: i64| match (lines, step) {
                (false, _) => 1.0,
                (true, 0) => 1.0 - (p - low),
                (true, _) => p - low,
            };
            let cut = matches!(outside, Outside::Cut(_))
                && !((0.0..=(width - 1) as f64).contains(&point.x) && (0.0..=(height - 1) as f64).contains(&point.y));
            let row = outside.pixel(y as i64 + down, height).filter(|_| !cut);
            let column = outside.pixel(x as i64 + right, width).filter(|_| !cut);
            let weight = weight(point.x, x, right) * weight(point.y, y, down);
            let there = row.zip(column);
            let (row, column) = there.unwrap_or((0, 0));
            indices.extend([point.image as f64, row as f64, column as f64]);
            let weight = if there.is_some() && weight.is_finite() { weight } else { 0.0 };
            *rest -= weight;
            weights.push(weight);
        }
        let ty = TensorType::new(DType::I32, [points.len(), 3]);
        let indices = Tensor::from_values(&ty, indices).context("three indices a point")?;
        let indices = r.computed_here(indices, from)?;
        let ty = TensorType::new(dtype, [points.len(), 1]);
        let weights = Tensor::from_values(&ty, weights).context("one weight a point")?;
        let weights = r.computed_here(weights, from)?;
        let found = r.b.op(GatherNd { batch: 0 }, &[pixels, indices])?;
        let part = r.b.mul(found, weights)?;
        sum = Some(match sum {
            Some(sum) => r.b.add(sum, part)?,
            None => part,
        });
    }
    let sum = sum.context("no corners")?;
    let Some(value) = outside.value().filter(|value| *value != 0.0) else { return Ok(sum) };
    let ty = TensorType::new(dtype, [points.len(), 1]);
    let rest = Tensor::from_values(&ty, rest.iter().map(|rest| rest * value).collect()).context("one rest a point")?;
    let rest = r.computed_here(rest, from)?;
    Ok(r.b.add(sum, rest)?)
}

/// The nearest integer; halves go up, as in Apple's tests.
fn round(p: f64) -> f64 {
    (p + 0.5).floor()
}

/// `[points, C]` with the points in the order batch, height, width, as `[…batch, C, height, width]`.
fn as_images(r: &mut Raise, y: ValueId, batch: usize, height: usize, width: usize) -> Result<ValueId> {
    let channels = r.b.shape(y)[1];
    let y = r.b.reshape(y, &[batch, height, width, channels])?;
    Ok(r.b.transpose(y, &[0, 3, 1, 2])?)
}

fn outside(r: &Raise, op: &Operation) -> Result<Outside> {
    Ok(match r.text(op, "padding_mode", "constant")?.as_str() {
        "constant" => Outside::Constant(r.float(op, "padding_value", 0.0)?),
        "border" => Outside::Border,
        "reflection" => Outside::Reflection,
        "symmetric" => Outside::Symmetric,
        other => bail!("unknown padding_mode `{other}`"),
    })
}

fn is_bilinear(r: &Raise, op: &Operation) -> Result<bool> {
    match r.text(op, "sampling_mode", "bilinear")?.as_str() {
        "bilinear" => Ok(true),
        "nearest" => Ok(false),
        other => bail!("unknown sampling_mode `{other}`"),
    }
}

/// A coordinate in pixels.
fn in_pixels(mode: &str, corners: bool, p: f64, extent: usize) -> Result<f64> {
    let n = extent as f64;
    // From 0 to 1 over the image.
    let part = match mode {
        "unnormalized" => return Ok(p),
        "normalized_minus_one_to_one" => (p + 1.0) / 2.0,
        "normalized_zero_to_one" => p,
        other => bail!("unknown coordinates_mode `{other}`"),
    };
    Ok(if corners { part * (n - 1.0) } else { part * n - 0.5 })
}

/// Images at coordinates (x, y), given for each element of the result.
fn resample(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let (x, coordinates) = (r.operand(op, "x")?, r.operand(op, "coordinates")?);
    let (outside, lines) = (outside(r, op)?, is_bilinear(r, op)?);
    let mode = r.text(op, "coordinates_mode", "")?;
    let corners = r.flag(op, "align_corners", true)?;
    let &[batch, _, height, width] = r.b.shape(x) else { bail!("{}: expected rank 4", r.b.f.ty(x)) };
    let &[images, rows, columns, 2] = r.b.shape(coordinates) else {
        bail!("coordinates {}: expected [B, H, W, 2]", r.b.f.ty(coordinates))
    };
    if images != batch {
        bail!("coordinates of {images} images for {batch}");
    }
    let known = r.known(coordinates)?;
    let mut points = Vec::with_capacity(images * rows * columns);
    for (i, pair) in known.data.iter().copied().collect::<Vec<f64>>().chunks_exact(2).enumerate() {
        points.push(Point {
            image: i / (rows * columns),
            x: in_pixels(&mode, corners, pair[0], width)?,
            y: in_pixels(&mode, corners, pair[1], height)?,
        });
    }
    let y = sampled(r, x, &points, outside, lines, &[coordinates])?;
    Ok(vec![as_images(r, y, images, rows, columns)?])
}

/// Images at coordinates that a matrix makes of the result's own: x' = a₀x + a₁y + a₂, y' = b₀x + b₁y + b₂.
fn affine(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let (x, matrix) = (r.operand(op, "x")?, r.operand(op, "transform_matrix")?);
    let (outside, lines) = (outside(r, op)?, is_bilinear(r, op)?);
    let mode = r.text(op, "coordinates_mode", "")?;
    let corners = r.flag(op, "align_corners", true)?;
    let rows = usize::try_from(r.int(op, "output_height", None)?)?;
    let columns = usize::try_from(r.int(op, "output_width", None)?)?;
    let &[batch, _, height, width] = r.b.shape(x) else { bail!("{}: expected rank 4", r.b.f.ty(x)) };
    let known: Vec<f64> = r.known(matrix)?.data.iter().copied().collect();
    if known.len() != 6 && known.len() != 6 * batch {
        bail!("a transform_matrix {} for {batch} images", r.b.f.ty(matrix));
    }
    elements(&[batch, rows, columns])?;
    // The result's own coordinates, from the first pixel to the last.
    let own = |i: usize, count: usize| -> f64 {
        let n = count as f64;
        let part = if corners { i as f64 / (n - 1.0).max(1.0) } else { (i as f64 + 0.5) / n };
        match mode.as_str() {
            "unnormalized" => i as f64,
            "normalized_minus_one_to_one" => 2.0 * part - 1.0,
            _ => part,
        }
    };
    let mut points = Vec::with_capacity(batch * rows * columns);
    for image in 0..batch {
        let m = known.get(6 * image..6 * image + 6).unwrap_or(&known[..6]);
        for i in 0..rows * columns {
            let (u, v) = (own(i % columns, columns), own(i / columns, rows));
            points.push(Point {
                image,
                x: in_pixels(&mode, corners, m[0] * u + m[1] * v + m[2], width)?,
                y: in_pixels(&mode, corners, m[3] * u + m[4] * v + m[5], height)?,
            });
        }
    }
    let y = sampled(r, x, &points, outside, lines, &[matrix])?;
    Ok(vec![as_images(r, y, batch, rows, columns)?])
}

/// Boxes of images, resized: a box of an image, or of every image.
fn crop_resize(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let &[batch, channels, height, width] = r.b.shape(x) else { bail!("{}: expected rank 4", r.b.f.ty(x)) };
    let rows = usize::try_from(r.int(op, "target_height", Some(1))?)?;
    let columns = usize::try_from(r.int(op, "target_width", Some(1))?)?;
    let normalized = r.flag(op, "normalized_coordinates", false)?;
    let scale = r.float(op, "spatial_scale", 1.0)?;
    let mode = r.text(op, "box_coordinate_mode", "CORNERS_HEIGHT_FIRST")?;
    let sampling = Sampling::named(&r.text(op, "sampling_mode", "DEFAULT")?)?;
    let pad = r.float(op, "pad_value", 0.0)?;
    // Until iOS 16 a row is a box, or an image's number and a box; since then numbers stand apart.
    let old = r.has(op, "roi");
    let boxes = r.operand(op, if old { "roi" } else { "boxes" })?;
    let count = *r.b.shape(boxes).first().context("boxes of rank 0")?;
    let known: Vec<f64> = r.known(boxes)?.data.iter().copied().collect();
    let width_of_row = known.len().checked_div(count).context("no boxes")?;
    if width_of_row != 4 && !(old && width_of_row == 5) {
        bail!("boxes {}: expected 4 numbers each", r.b.f.ty(boxes));
    }
    let mut from = vec![boxes];
    let numbers: Option<Vec<f64>> = match (old, width_of_row) {
        (true, 4) => None,
        (true, _) => Some(known.chunks_exact(5).map(|row| row[0]).collect()),
        (false, _) if r.has(op, "box_indices") => {
            let numbers = r.operand(op, "box_indices")?;
            from.push(numbers);
            Some(r.known(numbers)?.data.iter().copied().collect())
        }
        (false, _) => Some((0..count).map(|i| i as f64).collect()),
    };
    let images: Vec<Vec<usize>> = match numbers {
        None => vec![(0..batch).collect(); count],
        Some(numbers) => numbers.iter().map(|n| vec![*n as usize]).collect(),
    };
    if images.len() != count || images.iter().flatten().any(|image| *image >= batch) {
        bail!("boxes of images that are not among the {batch}");
    }
    let each = images.first().map_or(0, Vec::len);
    elements(&[count, each, channels, rows, columns])?;
    let mut points = Vec::with_capacity(count * each * rows * columns);
    for (row, images) in known.chunks_exact(width_of_row).zip(&images) {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| row[width_of_row - 4 + i]);
        let [top, left, bottom, right] = match mode.as_str() {
            "CORNERS_HEIGHT_FIRST" => [a, b, c, d],
            "CORNERS_WIDTH_FIRST" => [b, a, d, c],
            "CENTER_SIZE_HEIGHT_FIRST" => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
            "CENTER_SIZE_WIDTH_FIRST" => [b - d / 2.0, a - c / 2.0, b + d / 2.0, a + c / 2.0],
            other => bail!("unknown box_coordinate_mode `{other}`"),
        };
        let unit = |p: f64, extent: usize| if normalized { p * (extent as f64 - 1.0) } else { p * scale };
        let (top, bottom) = (unit(top, height), unit(bottom, height));
        let (left, right) = (unit(left, width), unit(right, width));
        // A box from pixel to pixel is a grid of its own.
        let at = |low: f64, high: f64, i: usize, count: usize| low + sampling.point(i, high - low + 1.0, count);
        for &image in images {
            for i in 0..rows * columns {
                points.push(Point {
                    image,
                    x: at(left, right, i % columns, columns),
                    y: at(top, bottom, i / columns, rows),
                });
            }
        }
    }
    let y = sampled(r, x, &points, Outside::Cut(pad), true, &from)?;
    let y = as_images(r, y, count * each, rows, columns)?;
    Ok(vec![if old { r.b.reshape(y, &[count, each, channels, rows, columns])? } else { y }])
}
