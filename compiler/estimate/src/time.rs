//! The time of an op: whichever of products, weights and activations takes longest, and the engine's own time for an op.

use serde::Serialize;

use crate::device::Rates;
use crate::work::{Kind, Work};

/// What bounds a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Arithmetic of products.
    Products,
    /// Weights that come from memory.
    Weights,
    /// Activations that are read and written.
    Activations,
    /// Calls and ops, whatever they do.
    Dispatch,
}

impl Bound {
    /// Every bound.
    pub const ALL: [Bound; 4] = [Bound::Products, Bound::Weights, Bound::Activations, Bound::Dispatch];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Bound::Products => "products",
            Bound::Weights => "weights",
            Bound::Activations => "activations",
            Bound::Dispatch => "dispatch",
        }
    }
}

/// Seconds by what they are spent on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent([f64; 4]);

impl Spent {
    /// Seconds in all.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.0.iter().sum()
    }

    /// Seconds of a bound.
    #[must_use]
    pub fn on(&self, bound: Bound) -> f64 {
        self.0[bound as usize]
    }

    /// Adds seconds of a bound.
    pub fn add(&mut self, bound: Bound, seconds: f64) {
        self.0[bound as usize] += seconds;
    }

    /// Adds all seconds of another, so many times.
    pub fn add_all(&mut self, other: &Spent, times: f64) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += times * theirs;
        }
    }

    /// What most of it is spent on.
    #[must_use]
    pub fn bound(&self) -> Bound {
        let most = |a: &Bound, b: &Bound| self.on(*a).total_cmp(&self.on(*b));
        Bound::ALL.into_iter().max_by(most).unwrap_or(Bound::Products)
    }
}

const GIGA: f64 = 1e9;

impl Rates {
    /// The time of an op.
    #[must_use]
    pub fn spent(&self, work: &Work) -> Spent {
        let mut spent = Spent::default();
        if work.kind == Kind::View {
            return spent;
        }
        let terms = [
            (Bound::Products, self.products(work)),
            (Bound::Weights, self.weights(work)),
            (Bound::Activations, self.activations(work)),
        ];
        let longest = terms.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((bound, seconds)) = longest {
            let left = if work.fusable { 1.0 - self.fused_share } else { 1.0 };
            spent.add(bound, left * seconds);
        }
        spent.add(Bound::Dispatch, 1e-6 * self.op_us);
        spent
    }

    fn products(&self, work: &Work) -> f64 {
        if work.flops == 0 {
            return 0.0;
        }
        let flops = work.flops as f64;
        let small = (flops / (GIGA * self.product_knee_gflop)).min(1.0).powf(self.product_power);
        let narrow = (work.channels as f64 / self.narrow_channels).min(1.0).powf(self.narrow_power);
        let gain = if work.int8 { self.int8_gain } else { 1.0 };
        flops / (1e12 * self.product_tflops * gain * small.min(narrow))
    }

    fn weights(&self, work: &Work) -> f64 {
        let weights = work.weights;
        let plain = (weights.whole - weights.notched) as f64;
        let notch = self.notch_gbps.min(self.weight_gbps);
        let packed = weights.packed as f64 / self.packed_rate;
        ((plain + packed) / self.weight_gbps + weights.notched as f64 / notch) / GIGA
    }

    fn activations(&self, work: &Work) -> f64 {
        let bytes = work.traffic as f64;
        let fits = bytes <= 1e6 * self.working_set_mb;
        let rate = if fits { self.resident_gbps } else { self.spill_gbps.min(self.resident_gbps) };
        let passes = match work.kind {
            Kind::Norm => self.norm_passes,
            Kind::Softmax => self.softmax_passes,
            Kind::Product | Kind::Elementwise | Kind::View => 1.0,
        };
        bytes / (GIGA * rate) + (passes - 1.0).max(0.0) * bytes / (GIGA * self.resident_gbps)
    }
}
