//! The lowerings of a device: which of those that it asks for gain time, and whether their ops are worth it.
//!
//! An op more is time that the phone needs once, when it compiles an uncompiled package: what a lowering saves in [`PAYBACK`] chunks has to make good for that. What a limit asks for
//! is no trade-off and is always there.

use anyhow::Result;
use s2dit_passes::channels_first::Norms;
use s2dit_passes::{Lowerings, tile_queries};
use serde::Serialize;

use crate::device::{Case, Device};
use crate::estimate::estimate;
use crate::subject::Subject;

/// Chunks of a stream, or clips, in which a lowering pays for the first load of its ops.
pub const PAYBACK: f64 = 1000.0;

/// The largest number of fp16.
const LARGEST_HALF: f64 = 65_504.0;

/// A lowering that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Tried {
    /// Name of the pass.
    pub name: &'static str,
    /// Milliseconds of a step that it saves, in the likely case; below zero if it costs some.
    pub saves_ms: f64,
    /// Ops of all functions more.
    pub more_ops: i64,
    /// Whether the package has it.
    pub taken: bool,
}

/// The lowerings of a device for a model.
#[derive(Clone, Debug, Serialize)]
pub struct Chosen {
    /// Name of the device.
    pub device: String,
    /// A step without them, in milliseconds, in the likely case.
    pub plain_ms: f64,
    /// A step with them.
    pub step_ms: f64,
    /// Ops of all functions without them.
    pub plain_ops: usize,
    /// Ops with them.
    pub ops: usize,
    /// What was tried, in order.
    pub tried: Vec<Tried>,
    /// What is there.
    #[serde(skip)]
    pub lowerings: Lowerings,
}

/// What a device could ask for: a name, and what adds it.
type Candidate = (&'static str, fn(&Device) -> Lowerings);

const CANDIDATES: [Candidate; 4] = [
    ("tile-queries", |device| Lowerings {
        tiles: Some(tile_queries::Options {
            working_set: device.working_set(),
            queries: device.limits.queries.value as usize,
        }),
        ..Lowerings::default()
    }),
    ("norms-by-length", |device| Lowerings {
        norms: Norms::Length,
        apart_beyond: Some(device.working_set()),
        ..Lowerings::default()
    }),
    ("split-hidden", |device| Lowerings { hidden: Some(device.working_set()), ..Lowerings::default() }),
    ("pad-notch", |device| Lowerings { notch: device.notched_tokens(), ..Lowerings::default() }),
];

impl Device {
    /// Bytes of values that an op reads and writes without leaving the engine, in the likely case.
    #[must_use]
    pub fn working_set(&self) -> usize {
        (1e6 * self.figures.working_set_mb.likely) as usize
    }

    /// Tokens below which a product waits for fp16 weights that hit the notch; `None` of a device that streams these as fast as others.
    #[must_use]
    pub fn notched_tokens(&self) -> Option<usize> {
        let rates = self.figures.at(Case::Likely);
        // A weight of two bytes takes 2/rate, its products with N tokens 2·N/peak.
        let tokens = 1e3 * rates.product_tflops / rates.notch_gbps;
        (rates.notch_gbps < rates.weight_gbps).then_some(tokens as usize)
    }

    /// What the limits of the device ask for, whatever it costs.
    #[must_use]
    pub fn asks(&self) -> Lowerings {
        Lowerings { rows: self.limits.slice_largest.value < LARGEST_HALF, ..Lowerings::default() }
    }
}

/// Chooses lowerings for a device: `lower` gives what a model becomes with some.
///
/// # Errors
/// What `lower` fails with.
pub fn choose(device: &Device, mut lower: impl FnMut(Lowerings) -> Result<Subject>) -> Result<Chosen> {
    let mut measure = |lowerings: Lowerings| -> Result<Measured> {
        let subject = lower(lowerings)?;
        let made = estimate(&subject, device, 0.0);
        let ops = made.functions.iter().map(|f| f.ops).sum();
        Ok(Measured { step_ms: made.step_ms.likely, chunk_ms: made.chunk_ms.likely, ops })
    };
    let mut lowerings = device.asks();
    let plain = measure(lowerings)?;
    let (mut best, mut tried) = (plain, Vec::new());
    for (name, of) in CANDIDATES {
        let more = with(lowerings, of(device));
        let made = measure(more)?;
        let more_ops = made.ops as i64 - best.ops as i64;
        let saved = best.chunk_ms - made.chunk_ms;
        let load = device.figures.compile_ms_per_op.likely * more_ops as f64;
        let taken = saved > 0.0 && saved * PAYBACK >= load;
        tried.push(Tried { name, saves_ms: best.step_ms - made.step_ms, more_ops, taken });
        if taken {
            (lowerings, best) = (more, made);
        }
    }
    Ok(Chosen {
        device: device.name.clone(),
        plain_ms: plain.step_ms,
        step_ms: best.step_ms,
        plain_ops: plain.ops,
        ops: best.ops,
        tried,
        lowerings,
    })
}

#[derive(Clone, Copy)]
struct Measured {
    step_ms: f64,
    chunk_ms: f64,
    ops: usize,
}

/// Both.
fn with(one: Lowerings, other: Lowerings) -> Lowerings {
    Lowerings {
        norms: if other.norms == Norms::default() { one.norms } else { other.norms },
        apart_beyond: one.apart_beyond.or(other.apart_beyond),
        tiles: one.tiles.or(other.tiles),
        hidden: one.hidden.or(other.hidden),
        notch: one.notch.or(other.notch),
        rows: one.rows || other.rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_rates_say_what_a_device_asks_for() {
        let open = |name: &str| Device::open(name).unwrap();
        assert!(open("m1").asks().rows && !open("m5").asks().rows);
        assert_eq!(open("iphone16promax").working_set(), 24_000_000);
        // 10 TFLOP/s and 18 GB/s: 2/18e9 of a weight is 2·N/10e12 at N = 555.
        assert_eq!(open("iphone16promax").notched_tokens(), Some(555));
        let mut even = open("m5");
        even.figures.notch_gbps.likely = even.figures.weight_gbps.likely;
        assert_eq!(even.notched_tokens(), None);
    }
}
