//! DPM-Solver++, a multistep solver ([arXiv 2211.01095](https://arxiv.org/abs/2211.01095)), for flow matching: diffusers' `DPMSolverMultistepScheduler`. With λ = log((1 − σ)/σ) and the
//! estimates `m = x − σ·v` of the clean latent, a step follows `m` as a polynomial in λ through up to three estimates. Nothing is corrected afterwards.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::fields::Fields;
use super::shift::shifted;
use super::{NoiseLevels, Run, Sampler, Spacing};
use crate::Error;

const TRAIN_TIMESTEPS: f64 = 1000.0;
/// Estimates that a step follows at most.
const MOST_ORDER: usize = 3;
/// Below this number of steps the last ones follow fewer estimates.
const FEW_STEPS: usize = 15;

/// DPM-Solver++ on estimates of the clean latent.
#[derive(Clone, Debug, PartialEq)]
pub struct DpmSolver {
    shift: f64,
    order: usize,
    /// Whether a step that follows two estimates is Heun's, and not that of the midpoint.
    is_heun: bool,
    /// Whether the last steps of a few follow fewer estimates.
    lower_order_final: bool,
}

impl DpmSolver {
    pub(super) fn read(fields: &mut Fields<'_>, spacing: Spacing) -> DpmSolver {
        let flow = "the network predicts the velocity of flow matching";
        fields.only("num_train_timesteps", &json!(1000), &json!(1000), "the network's timesteps are 1000·σ");
        fields.only("prediction_type", &json!("epsilon"), &json!("flow_prediction"), flow);
        fields.only("use_flow_sigmas", &json!(false), &json!(true), flow);
        fields.only(
            "algorithm_type",
            &json!("dpmsolver++"),
            &json!("dpmsolver++"),
            "steps follow estimates of the clean latent, without noise",
        );
        fields.only("final_sigmas_type", &json!("zero"), &json!("zero"), "the last step ends without noise");
        fields.only("thresholding", &json!(false), &json!(false), "latents are not clipped");
        fields.only("variance_type", &Value::Null, &Value::Null, "the network predicts no variance");
        fields.only("use_dynamic_shifting", &json!(false), &json!(false), "the shift is flow_shift");
        for field in ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"] {
            fields.only(field, &json!(false), &json!(false), "other spacings are not supported");
        }
        // What the class reads for noise that is not that of flow matching; and a last step to σ = 0 follows one estimate anyway.
        fields.ignore(&["beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr"]);
        fields.ignore(&["timestep_spacing", "steps_offset", "dynamic_thresholding_ratio", "sample_max_value"]);
        fields.ignore(&["lambda_min_clipped", "time_shift_type", "euler_at_final"]);
        if spacing == Spacing::Linear {
            fields.problem(
                "_class_name",
                "\"DPMSolverMultistepScheduler\"".into(),
                "another class: the pipeline passes noise levels, which this one does not take",
            );
        }
        DpmSolver {
            shift: fields.positive("flow_shift", 1.0),
            order: fields.integer("solver_order", 2, MOST_ORDER),
            is_heun: fields.word("solver_type", "midpoint", &["midpoint", "heun"]) == "heun",
            lower_order_final: fields.flag("lower_order_final", true),
        }
    }
}

impl Sampler for DpmSolver {
    fn levels(&self, steps: usize, _places: usize) -> Result<NoiseLevels, Error> {
        let lowest = 1.0 / TRAIN_TIMESTEPS;
        let level = |i: usize| (1.0 - lowest) * (steps - i) as f64 / steps as f64;
        let sigmas: Vec<f64> = (0..steps).map(|i| shifted(level(i), self.shift)).collect();
        // The class hands out whole timesteps, and keeps levels in fp32.
        let timesteps = sigmas.iter().map(|sigma| (TRAIN_TIMESTEPS * sigma).trunc()).collect();
        let sigmas = sigmas.into_iter().map(|sigma| f64::from(sigma as f32)).chain([0.0]).collect();
        NoiseLevels { sigmas, timesteps }.checked()
    }

    fn begin(&self, levels: &NoiseLevels) -> Box<dyn Run> {
        Box::new(Steps { settings: self.clone(), sigmas: levels.sigmas.clone(), done: 0, estimates: VecDeque::new() })
    }
}

struct Steps {
    settings: DpmSolver,
    sigmas: Vec<f64>,
    done: usize,
    /// Estimates of the clean latent, the newest first.
    estimates: VecDeque<Vec<f64>>,
}

impl Steps {
    /// λ of a level.
    fn lambda(&self, level: usize) -> f64 {
        let sigma = self.sigmas[level];
        (1.0 - sigma).ln() - sigma.ln()
    }

    /// Estimates that the next step follows.
    fn order(&self) -> usize {
        let steps = self.sigmas.len() - 1;
        let left = steps - self.done;
        let few = self.settings.lower_order_final && steps < FEW_STEPS;
        let most = match left {
            // To σ = 0.
            1 => 1,
            2 if few => 2,
            _ => MOST_ORDER,
        };
        self.settings.order.min(self.estimates.len()).min(most)
    }

    /// Weights of the estimates in the next step, the newest first.
    fn weights(&self, order: usize) -> Vec<f64> {
        let at = self.done;
        let h = self.lambda(at + 1) - self.lambda(at);
        let (alpha, phi_1) = (1.0 - self.sigmas[at + 1], (-h).exp_m1());
        // The distance in λ from an older estimate to the one after it, in units of the step.
        let apart = |older: usize| (self.lambda(at + 1 - older) - self.lambda(at - older)) / h;
        let own = -alpha * phi_1;
        match order {
            2 => {
                // Of the difference of both, which the class calls D1.
                let first = alpha * if self.settings.is_heun { phi_1 / h + 1.0 } else { -0.5 * phi_1 } / apart(1);
                vec![own + first, -first]
            }
            3 => {
                let (near, far) = (apart(1), apart(2));
                // Of the first and the second difference, D1 and D2.
                let (first, second) = (alpha * (phi_1 / h + 1.0), -alpha * ((phi_1 + h) / (h * h) - 0.5));
                let bend = (first * near + second) / (near + far);
                let (newer, older) = ((first + bend) / near, -bend / far);
                vec![own + newer, older - newer, -older]
            }
            _ => vec![own],
        }
    }
}

impl Run for Steps {
    fn step(&mut self, x: &mut [f64], velocity: &[f64]) {
        let at = self.done;
        let (begin, end) = (self.sigmas[at], self.sigmas[at + 1]);
        self.estimates.push_front(x.iter().zip(velocity).map(|(x, v)| x - begin * v).collect());
        self.estimates.truncate(self.settings.order);
        let weights = self.weights(self.order());
        for (i, x) in x.iter_mut().enumerate() {
            let estimates = self.estimates.iter().zip(&weights);
            *x = end / begin * *x + estimates.map(|(m, weight)| weight * m[i]).sum::<f64>();
        }
        self.done += 1;
    }
}
