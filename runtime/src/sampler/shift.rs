//! Shifts of noise levels: how much of a clip's steps is spent where noise is high.

use serde_json::Value;

use super::fields::Fields;
use crate::Error;
use crate::error::refuse;

/// The noise level that `shift` makes of `sigma`: `s·σ / (1 + (s − 1)·σ)`.
#[must_use]
pub fn shifted(sigma: f64, shift: f64) -> f64 {
    shift * sigma / (1.0 + (shift - 1.0) * sigma)
}

/// How noise levels are shifted.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shift {
    /// By one number.
    Fixed(f64),
    /// By a number that grows with the latent.
    Dynamic(Dynamic),
}

/// A shift of which μ is a line through two numbers of places.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Dynamic {
    /// A number of places and its μ.
    from: (f64, f64),
    /// Another, and its μ.
    to: (f64, f64),
    /// Whether the shift is e^μ, or μ itself.
    is_exponential: bool,
}

impl Shift {
    /// Reads the fields that both kinds have; `field` is the name of the fixed shift.
    pub(super) fn read(fields: &mut Fields<'_>, field: &str) -> Shift {
        let fixed = fields.positive(field, 1.0);
        let from = (fields.positive("base_image_seq_len", 256.0), fields.number("base_shift", 0.5));
        let to = (fields.positive("max_image_seq_len", 4096.0), fields.number("max_shift", 1.15));
        let kind = fields.word("time_shift_type", "exponential", &["exponential", "linear"]);
        if !fields.flag("use_dynamic_shifting", false) {
            return Shift::Fixed(fixed);
        }
        if from.0 >= to.0 {
            fields.problem("max_image_seq_len", to.0.to_string(), &format!("more than base_image_seq_len, {}", from.0));
        }
        if kind == "linear" && from.1.min(to.1) <= 0.0 {
            fields.problem(
                "base_shift",
                from.1.to_string(),
                "shifts above 0, of which a linear time_shift_type makes no exponential",
            );
        }
        Shift::Dynamic(Dynamic { from, to, is_exponential: kind == "exponential" })
    }

    /// A noise level of a latent with so many places.
    pub(super) fn of(&self, sigma: f64, places: usize) -> f64 {
        match self {
            Shift::Fixed(shift) => shifted(sigma, *shift),
            Shift::Dynamic(Dynamic { from, to, is_exponential }) => {
                let mu = from.1 + (to.1 - from.1) / (to.0 - from.0) * (places as f64 - from.0);
                shifted(sigma, if *is_exponential { mu.exp() } else { mu })
            }
        }
    }
}

/// Reads `shift_terminal`: the level that the last one before 0 is stretched to.
pub(super) fn terminal(fields: &mut Fields<'_>) -> Option<f64> {
    match fields.take("shift_terminal") {
        None | Some(Value::Null) => None,
        Some(value) => match value.as_f64() {
            Some(0.0) => None,
            Some(level) if level > 0.0 && level < 1.0 => Some(level),
            _ => {
                fields.problem("shift_terminal", value.to_string(), "null, or a noise level between 0 and 1");
                None
            }
        },
    }
}

/// Stretches levels from 1 so that the last is `terminal`.
///
/// # Errors
/// Levels of which the last is the first, 1, as that of a single step is: diffusers divides 0 by 0 there, and its clip is NaN.
pub(super) fn stretched(sigmas: &mut [f64], terminal: Option<f64>) -> Result<(), Error> {
    let Some((terminal, last)) = terminal.zip(sigmas.last().copied()) else { return Ok(()) };
    let factor = (1.0 - last) / (1.0 - terminal);
    if factor <= 0.0 {
        refuse!(
            Input,
            "steps: found {}, expected at least 2: shift_terminal of this scheduler stretches the noise levels between the first step and the last, and \
             diffusers makes NaN of a single one",
            sigmas.len()
        );
    }
    for sigma in sigmas {
        *sigma = 1.0 - (1.0 - *sigma) / factor;
    }
    Ok(())
}
