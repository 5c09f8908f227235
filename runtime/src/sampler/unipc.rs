//! UniPC, a multistep predictor and corrector ([arXiv 2302.04867](https://arxiv.org/abs/2302.04867)), for flow matching: diffusers' `UniPCMultistepScheduler` as
//! Wan's pipelines configure it. With λ = log((1 − σ)/σ) and the estimates `m = x − σ·v` of the clean latent, a step follows `m` as a
//! polynomial in λ through the last estimates. The network's answer to a latent corrects that latent before the next step.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::fields::Fields;
use super::shift::{self, shifted};
use super::{NoiseLevels, Run, Sampler, Spacing};
use crate::Error;

const TRAIN_TIMESTEPS: f64 = 1000.0;
/// Below this distance from 1 the first level is moved by as much, where log(1 − σ) is finite.
const BELOW_ONE: f64 = 1e-6;
/// Estimates that a step follows at most.
const MOST_ORDER: usize = 3;

/// UniPC with B(h) = e^h − 1, on estimates of the clean latent.
#[derive(Clone, Debug, PartialEq)]
pub struct UniPc {
    shift: f64,
    terminal: Option<f64>,
    order: usize,
    /// Steps after which nothing is corrected.
    uncorrected: Vec<usize>,
    spacing: Spacing,
}

impl UniPc {
    pub(super) fn read(fields: &mut Fields<'_>, spacing: Spacing) -> UniPc {
        let flow = "the network predicts the velocity of flow matching";
        fields.only("num_train_timesteps", &json!(1000), &json!(1000), "the network's timesteps are 1000·σ");
        fields.only("prediction_type", &json!("epsilon"), &json!("flow_prediction"), flow);
        fields.only("use_flow_sigmas", &json!(false), &json!(true), flow);
        fields.only("predict_x0", &json!(true), &json!(true), "steps follow estimates of the clean latent");
        fields.only("solver_type", &json!("bh2"), &json!("bh2"), "the other has no last step to σ = 0");
        fields.only("final_sigmas_type", &json!("zero"), &json!("zero"), "the last step ends without noise");
        fields.only("lower_order_final", &json!(true), &json!(true), "the last step to σ = 0 follows one estimate");
        fields.only("thresholding", &json!(false), &json!(false), "latents are not clipped");
        fields.only("solver_p", &Value::Null, &Value::Null, "the predictor is UniP");
        fields.only("use_dynamic_shifting", &json!(false), &json!(false), "the shift is flow_shift");
        for field in ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"] {
            fields.only(field, &json!(false), &json!(false), "other spacings are not supported");
        }
        // What the class reads for noise that is not that of flow matching.
        fields.ignore(&[
            "beta_start",
            "beta_end",
            "beta_schedule",
            "trained_betas",
            "rescale_betas_zero_snr",
            "timestep_spacing",
        ]);
        fields.ignore(&["steps_offset", "dynamic_thresholding_ratio", "sample_max_value", "sigma_min", "sigma_max"]);
        fields.ignore(&["time_shift_type"]);
        let uncorrected = match fields.take("disable_corrector") {
            None => Vec::new(),
            Some(value) => {
                let steps = value.as_array().and_then(|steps| {
                    steps.iter().map(|step| usize::try_from(step.as_u64()?).ok()).collect::<Option<Vec<usize>>>()
                });
                steps.unwrap_or_else(|| {
                    fields.problem("disable_corrector", value.to_string(), "a list of steps");
                    Vec::new()
                })
            }
        };
        UniPc {
            shift: fields.positive("flow_shift", 1.0),
            terminal: shift::terminal(fields),
            order: fields.integer("solver_order", 2, MOST_ORDER),
            uncorrected,
            spacing,
        }
    }
}

impl Sampler for UniPc {
    fn levels(&self, steps: usize, _places: usize) -> Result<NoiseLevels, Error> {
        let mut sigmas = match self.spacing {
            Spacing::Linear => Spacing::linear(steps),
            Spacing::Scheduler => {
                let last = 1.0 / TRAIN_TIMESTEPS;
                (0..steps).map(|i| 1.0 + (last - 1.0) * i as f64 / steps as f64).collect()
            }
        };
        for sigma in &mut sigmas {
            *sigma = shifted(*sigma, self.shift);
        }
        shift::stretched(&mut sigmas, self.terminal)?;
        if let Some(first) = sigmas.first_mut().filter(|first| (**first - 1.0).abs() < BELOW_ONE) {
            *first -= BELOW_ONE;
        }
        // The class hands out whole timesteps.
        let timesteps = sigmas.iter().map(|sigma| (TRAIN_TIMESTEPS * sigma).trunc()).collect();
        // And it keeps levels in fp32, which changes 1 − σ of the first one by a hundredth.
        for sigma in &mut sigmas {
            *sigma = f64::from(*sigma as f32);
        }
        sigmas.push(0.0);
        NoiseLevels { sigmas, timesteps }.checked()
    }

    fn begin(&self, levels: &NoiseLevels) -> Box<dyn Run> {
        let settings = self.clone();
        Box::new(Steps { settings, sigmas: levels.sigmas.clone(), done: 0, estimates: VecDeque::new(), before: None })
    }
}

struct Steps {
    settings: UniPc,
    sigmas: Vec<f64>,
    done: usize,
    /// Estimates of the clean latent, the newest last.
    estimates: VecDeque<Vec<f64>>,
    /// The latent that the last step began with, and how many estimates that step followed.
    before: Option<(Vec<f64>, usize)>,
}

impl Run for Steps {
    fn step(&mut self, x: &mut [f64], velocity: &[f64]) {
        let at = self.done;
        let sigma = self.sigmas[at];
        let estimate: Vec<f64> = x.iter().zip(velocity).map(|(x, v)| x - sigma * v).collect();
        if let Some((before, order)) = self.before.take()
            && at > 0
            && !self.settings.uncorrected.contains(&(at - 1))
        {
            self.correct(x, &before, &estimate, order);
        }
        self.estimates.push_back(estimate);
        if self.estimates.len() > self.settings.order {
            self.estimates.pop_front();
        }
        let order = self.settings.order.min(self.sigmas.len() - 1 - at).min(self.estimates.len());
        self.before = Some((x.to_vec(), order));
        self.predict(x, order);
        self.done += 1;
    }
}

/// The weights of a step from one level to another.
struct Weights {
    /// Of the latent.
    latent: f64,
    /// Of the newest estimate.
    estimate: f64,
    /// Of the differences of estimates.
    differences: f64,
    /// Places of the older estimates in λ, from 0 at the newest one in units of the step; then 1, the step's end.
    places: Vec<f64>,
    /// Right sides of the equations for the weights of the differences.
    sides: Vec<f64>,
}

impl Steps {
    /// λ of a level.
    fn lambda(&self, level: usize) -> f64 {
        let sigma = self.sigmas[level];
        (1.0 - sigma).ln() - sigma.ln()
    }

    /// Weights of the step from a level to the next, with `order` estimates at levels up to `from`.
    fn weights(&self, from: usize, order: usize) -> Weights {
        let (begin, end) = (self.sigmas[from], self.sigmas[from + 1]);
        let lambda = self.lambda(from);
        let h = self.lambda(from + 1) - lambda;
        let older = (1..order).map(|i| (self.lambda(from - i) - lambda) / h);
        let places: Vec<f64> = older.chain([1.0]).collect();
        let phi_1 = (-h).exp_m1();
        let (mut phi, mut factorial) = (phi_1 / -h - 1.0, 1.0);
        let mut sides = Vec::with_capacity(order);
        for i in 1..=order {
            sides.push(phi * factorial / phi_1);
            factorial *= (i + 1) as f64;
            phi = phi / -h - 1.0 / factorial;
        }
        let alpha = 1.0 - end;
        Weights { latent: end / begin, estimate: -alpha * phi_1, differences: -alpha * phi_1, places, sides }
    }

    /// The differences of older estimates from the newest one of `order`, each over its place.
    fn differences<'s>(&'s self, order: usize, places: &'s [f64]) -> impl Iterator<Item = Vec<f64>> + 's {
        let newest = self.estimates.len() - 1;
        (1..order).map(move |i| {
            let pair = self.estimates[newest - i].iter().zip(&self.estimates[newest]);
            pair.map(|(older, newest)| (older - newest) / places[i - 1]).collect()
        })
    }

    /// UniP: the latent at the next level.
    fn predict(&self, x: &mut [f64], order: usize) {
        let weights = self.weights(self.done, order);
        let of_differences = match order {
            1 => Vec::new(),
            // As the paper's code simplifies it.
            2 => vec![0.5],
            _ => solved(&weights.places[..order - 1], &weights.sides[..order - 1]),
        };
        let Some(newest) = self.estimates.back() else { return };
        for (x, m) in x.iter_mut().zip(newest) {
            *x = weights.latent * *x + weights.estimate * m;
        }
        for (difference, weight) in self.differences(order, &weights.places).zip(of_differences) {
            for (x, d) in x.iter_mut().zip(&difference) {
                *x += weights.differences * weight * d;
            }
        }
    }

    /// UniC: the latent of this level again, from that of the level before, with the estimate that the network makes of it.
    fn correct(&self, x: &mut [f64], before: &[f64], estimate: &[f64], order: usize) {
        let weights = self.weights(self.done - 1, order);
        let of_differences = match order {
            1 => vec![0.5],
            _ => solved(&weights.places, &weights.sides),
        };
        let Some(newest) = self.estimates.back() else { return };
        let last = of_differences.last().copied().unwrap_or_default();
        for (((x, b), m), e) in x.iter_mut().zip(before).zip(newest).zip(estimate) {
            *x = weights.latent * b + weights.estimate * m + weights.differences * last * (e - m);
        }
        for (difference, weight) in self.differences(order, &weights.places).zip(of_differences) {
            for (x, d) in x.iter_mut().zip(&difference) {
                *x += weights.differences * weight * d;
            }
        }
    }
}

/// Solves `Σₖ placesₖⁱ·wₖ = sidesᵢ` for i from 0, by Gauss's elimination. Places differ from each other.
fn solved(places: &[f64], sides: &[f64]) -> Vec<f64> {
    let n = places.len();
    let mut rows: Vec<Vec<f64>> =
        (0..n).map(|i| places.iter().map(|place| place.powi(i as i32)).chain([sides[i]]).collect()).collect();
    for i in 0..n {
        let pivot = (i..n).max_by(|a, b| rows[*a][i].abs().total_cmp(&rows[*b][i].abs())).unwrap_or(i);
        rows.swap(i, pivot);
        let row = rows[i].clone();
        for (j, other) in rows.iter_mut().enumerate() {
            if j != i {
                let factor = other[i] / row[i];
                for (x, y) in other.iter_mut().zip(&row) {
                    *x -= factor * y;
                }
            }
        }
    }
    (0..n).map(|i| rows[i][n] / rows[i][i]).collect()
}
