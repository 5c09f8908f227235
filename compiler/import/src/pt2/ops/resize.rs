//! Other resolutions: by whole factors to the nearest element, and between channels and pixels.

use s2dit_ir::OpError;

use super::super::call::Call;
use super::super::walk::{Slot, Walk};
use super::Group;

pub(super) const OPS: Group = &[
    ("aten.upsample_nearest1d.*", nearest),
    ("aten.upsample_nearest2d.*", nearest),
    ("aten.upsample_nearest3d.*", nearest),
    ("aten._upsample_nearest_exact1d.*", nearest),
    ("aten._upsample_nearest_exact2d.*", nearest),
    ("aten._upsample_nearest_exact3d.*", nearest),
    ("aten.pixel_shuffle.default", pixel_shuffle),
    ("aten.pixel_unshuffle.default", pixel_unshuffle),
    ("aten.channel_shuffle.default", channel_shuffle),
];

type Read = Result<Vec<Slot>, OpError>;

fn nearest(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let mut x = c.tensor(w, if c.has("input") { "input" } else { "self" })?;
    let shape = w.t.shape(&x);
    let n = shape.len().saturating_sub(2);
    let sizes = c.ints(w, "output_size")?;
    let factors = c.numbers(w, "scale_factors")?;
    for i in 0..n {
        let from = shape[i + 2];
        let to = match (&sizes, &factors) {
            (Some(sizes), _) => sizes.get(i).map(|n| *n as f64),
            (None, Some(factors)) => factors.get(i).map(|factor| (from as f64 * factor).floor()),
            (None, None) => None,
        };
        let to = to.ok_or_else(|| OpError::new("neither a size nor a factor"))?;
        let factor = to / from as f64;
        if factor.fract() != 0.0 || !(1.0..=1024.0).contains(&factor) {
            return Err(OpError::new(format!("a factor of {factor}, which is no whole number")));
        }
        x = w.repeated(&x, i + 2, factor as usize, true)?;
    }
    Ok(c.one(x))
}

/// `[…, C·r², H, W]` → `[…, C, H·r, W·r]`
fn pixel_shuffle(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let (shape, r) = (w.t.shape(&x), usize::try_from(c.int(w, "upscale_factor", None)?).unwrap_or(0));
    let square = r.checked_mul(r).filter(|square| *square > 0);
    let (&[ref lead @ .., channels, rows, columns], Some(square)) = (&shape[..], square) else {
        return Err(OpError::new(format!("{shape:?} by {r}")));
    };
    let (batch, out): (usize, usize) = (lead.iter().product(), channels / square);
    let x = w.t.reshape(&x, &[batch * out, r, r, rows, columns])?;
    let x = w.t.transpose(&x, &[0, 3, 1, 4, 2])?;
    Ok(c.one(w.t.reshape(&x, &[lead, &[out, rows * r, columns * r]].concat())?))
}

/// `[…, C, H·r, W·r]` → `[…, C·r², H, W]`
fn pixel_unshuffle(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let (shape, r) = (w.t.shape(&x), usize::try_from(c.int(w, "downscale_factor", None)?).unwrap_or(0));
    let &[ref lead @ .., channels, rows, columns] = &shape[..] else { return Err(OpError::new(format!("{shape:?}"))) };
    if r == 0 || rows % r != 0 || columns % r != 0 {
        return Err(OpError::new(format!("{shape:?} by {r}")));
    }
    let batch: usize = lead.iter().product();
    let x = w.t.reshape(&x, &[batch * channels, rows / r, r, columns / r, r])?;
    let x = w.t.transpose(&x, &[0, 2, 4, 1, 3])?;
    Ok(c.one(w.t.reshape(&x, &[lead, &[channels * r * r, rows / r, columns / r]].concat())?))
}

/// `[N, g·k, …]` → the same channels in the order of `[N, k·g, …]`
fn channel_shuffle(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let (shape, groups) = (w.t.shape(&x), usize::try_from(c.int(w, "groups", None)?).unwrap_or(0));
    let [batch, channels, ..] = shape[..] else { return Err(OpError::new(format!("{shape:?}"))) };
    if groups == 0 || channels % groups != 0 {
        return Err(OpError::new(format!("{groups} groups of {channels} channels")));
    }
    let rest: usize = shape[2..].iter().product();
    let x = w.t.reshape(&x, &[batch, groups, channels / groups, rest])?;
    let x = w.t.transpose(&x, &[0, 2, 1, 3])?;
    Ok(c.one(w.t.reshape(&x, &shape)?))
}
