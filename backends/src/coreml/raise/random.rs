//! Random tensors, of a generator of our own: Core ML does not say which numbers a seed gives.
//!
//! Numbers follow the distribution that the op names, and two runs give the same ones.

use anyhow::{Context, Result, bail};
use s2dit_ir::{Tensor, TensorType, ValueId};

use super::select::elements;
use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "random_bernoulli" | "random_normal" | "random_uniform" => drawn,
        "random_categorical" => categorical,
        _ => return None,
    })
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Generator(u64);

impl Generator {
    /// A generator for one op: ops without a seed do not repeat each other.
    fn of(r: &Raise, op: &Operation) -> Result<Generator> {
        let seed = r.int(op, "seed", Some(-1))?;
        let name = op.outputs.first().map_or("", |o| o.name.as_str());
        let own = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        Ok(Generator(if seed < 0 { own } else { seed as u64 }))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to but without 1.
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Box and Muller's transform.
    fn normal(&mut self) -> f64 {
        let (radius, angle) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }
}

fn drawn(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let shape = r.sizes(op, "shape")?.context("input `shape` is missing")?;
    elements(&shape)?;
    let from = r.operand(op, "shape")?;
    let mut generator = Generator::of(r, op)?;
    let (a, b) = match op.r#type.as_str() {
        "random_bernoulli" => (r.float(op, "prob", 0.5)?, 0.0),
        "random_normal" => (r.float(op, "mean", 0.0)?, r.float(op, "stddev", 1.0)?),
        _ => (r.float(op, "low", 0.0)?, r.float(op, "high", 1.0)?),
    };
    let mut one = || match op.r#type.as_str() {
        "random_bernoulli" => f64::from(u8::from(generator.uniform() < a)),
        "random_normal" => a + b * generator.normal(),
        _ => a + (b - a) * generator.uniform(),
    };
    let ty = TensorType::new(r.declared(op)?.dtype, shape);
    let values = (0..ty.elements()).map(|_| one()).collect();
    let value = Tensor::from_values(&ty, values).context("as many numbers as elements")?;
    Ok(vec![r.computed_here(value, &[from])?])
}

/// `size` classes for each row of logits or probabilities.
fn categorical(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let size = usize::try_from(r.int(op, "size", Some(1))?)?;
    let logits = match r.text(op, "mode", "logits")?.as_str() {
        "logits" => true,
        "probs" => false,
        other => bail!("unknown mode `{other}`"),
    };
    let mut generator = Generator::of(r, op)?;
    let known = r.known(x)?;
    let mut shape = r.b.shape(x).to_vec();
    let classes = shape.pop().filter(|n| *n > 0).context("no classes")?;
    shape.push(size);
    elements(&shape)?;
    let values: Vec<f64> = known.data.iter().copied().collect();
    // Of an infinite logit or probability the shares of all classes are NaN.
    if let Some(x) = values.iter().find(|x| x.is_nan() || **x == f64::INFINITY) {
        bail!(
            "found {x} among the classes' {}, expected finite numbers",
            if logits { "logits" } else { "probabilities" }
        );
    }
    let mut chosen = Vec::new();
    for row in values.chunks_exact(classes) {
        let greatest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = row.iter().map(|x| if logits { (x - greatest).exp() } else { *x }).collect();
        let total: f64 = weights.iter().sum();
        // Classes of no share at all: logits that are all -inf, probabilities that are all 0.
        if !total.is_finite() || total <= 0.0 {
            bail!("found classes whose shares add up to {total}, expected a positive number");
        }
        for _ in 0..size {
            let mut left = generator.uniform() * total;
            let class = weights.iter().position(|w| {
                left -= w;
                left < 0.0
            });
            chosen.push(class.unwrap_or(classes - 1) as f64);
        }
    }
    let ty = TensorType::new(r.declared(op)?.dtype, shape);
    let value = Tensor::from_values(&ty, chosen).context("as many classes as elements")?;
    Ok(vec![r.computed_here(value, &[x])?])
}
