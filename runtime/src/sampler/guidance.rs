//! Classifier-free guidance: away from what the network makes of a negative prompt.

use crate::HostTensor;

/// `n + g·(p − n)`, of the velocities with the prompt and with its negative; without a negative the velocity as it is.
#[must_use]
pub fn guided(positive: &HostTensor, negative: Option<&HostTensor>, guidance: f64) -> Vec<f64> {
    let positive = positive.data.iter().map(|p| f64::from(*p));
    match negative {
        None => positive.collect(),
        Some(negative) => {
            let away = |(p, n): (f64, &f32)| f64::from(*n) + guidance * (p - f64::from(*n));
            positive.zip(&negative.data).map(away).collect()
        }
    }
}
