//! The effect of each pass on a graph: its time, its changes, and whether it kept the numbers.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use s2dit_ir::interface::{GUIDANCE, InputRole};
use s2dit_ir::{DType, Function, Interface, Module, WeightSource};
use s2dit_passes::emulate::Arithmetic;
use s2dit_passes::{PassPipeline, PassRun, states};
use s2dit_runtime::compare::compare;
use s2dit_runtime::{HostTensor, RunOptions, Timesteps, run_function};
use serde::Serialize;

/// One pass of a compile.
#[derive(Clone, Debug, Serialize)]
pub struct PassEffect {
    /// Name of the pass.
    pub pass: &'static str,
    /// Changes it reported.
    pub changes: usize,
    /// Live ops of all functions after it, constants included.
    pub ops: usize,
    /// Wall time of the pass, without the verifier.
    pub seconds: f64,
    /// The change of the graph's results, if that was asked for; see [`Watcher::new`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved: Option<Moved>,
}

/// Results of a graph after a pass, compared with those before it and with the first ones.
#[derive(Clone, Debug, Serialize)]
pub struct Moved {
    /// Results that were there before, and were compared.
    pub results: usize,
    /// The result that moved most, as `function.result`.
    pub worst: String,
    /// Relative L2 distance of the result from that of the graph before the pass.
    pub relative_l2: f64,
    /// The largest relative L2 distance of a result from where it first appeared.
    pub relative_l2_in_all: f64,
}

/// By interface of the function, and `function.result`.
type Results = BTreeMap<(String, String), HostTensor>;

/// Watches the passes of a compile.
pub struct Watcher<'a> {
    weights: Option<&'a dyn WeightSource>,
    run: RunOptions,
    timesteps: Option<Timesteps>,
    first: Results,
    last: Results,
    rows: Vec<PassEffect>,
    failure: Option<anyhow::Error>,
}

impl<'a> Watcher<'a> {
    /// With `weights`, every function is run in ONNX Runtime before the first and after each pass, on seeded inputs: standard normal
    /// latents and text, a timestep in [0, 1000], and the magnitudes of standard normal numbers for all that a stream carries (its sums
    /// divide). What a pass adds or removes is not compared.
    #[must_use]
    pub fn new(weights: Option<&'a dyn WeightSource>, threads: usize) -> Watcher<'a> {
        let run = RunOptions { threads, quiet: true, ..RunOptions::default() };
        Watcher {
            weights,
            run,
            timesteps: None,
            first: Results::new(),
            last: Results::new(),
            rows: Vec::new(),
            failure: None,
        }
    }

    /// Runs at the first timestep of this list, if there is one.
    #[must_use]
    pub fn at(self, timesteps: Option<Timesteps>) -> Watcher<'a> {
        Watcher { timesteps, ..self }
    }

    /// Sees the module after a pass; `done` is `None` before the first one.
    pub fn see(&mut self, done: Option<&PassRun>, module: &Module) {
        let moved = match (&self.failure, self.weights) {
            (None, Some(weights)) => match self.compare(module, weights) {
                Ok(moved) => moved,
                Err(error) => {
                    let place = done.map_or("before the first pass".into(), |s| format!("after pass `{}`", s.pass));
                    self.failure = Some(error.context(place));
                    None
                }
            },
            _ => None,
        };
        let Some(done) = done else { return };
        self.rows.push(PassEffect {
            pass: done.pass,
            changes: done.changes,
            ops: module.functions.iter().map(|f| f.order().len()).sum(),
            seconds: done.time.as_secs_f64(),
            moved,
        });
    }

    /// The rows of all passes seen.
    ///
    /// # Errors
    /// The first graph that could not be run.
    pub fn finish(self) -> Result<Vec<PassEffect>> {
        match self.failure {
            Some(error) => Err(error),
            None => Ok(self.rows),
        }
    }

    fn compare(&mut self, module: &Module, weights: &dyn WeightSource) -> Result<Option<Moved>> {
        let results = run(module, weights, self.timesteps.as_ref(), &self.run)?;
        if let Some(((_, name), x)) = results.iter().find(|(_, x)| x.data.iter().any(|x| !x.is_finite())) {
            let count = x.data.iter().filter(|x| !x.is_finite()).count();
            bail!("result `{name}`: found {count} elements that are NaN or infinite, expected finite numbers");
        }
        let distance = |from: &Results, name: &(String, String), x: &HostTensor| {
            from.get(name).filter(|r| r.shape == x.shape).map(|r| compare(&x.data, &r.data).relative_l2)
        };
        let mut moved: Option<Moved> = None;
        for (name, x) in &results {
            let Some(relative_l2) = distance(&self.last, name, x) else { continue };
            let in_all = distance(&self.first, name, x).unwrap_or(0.0);
            let so_far = moved.get_or_insert(Moved {
                results: 0,
                worst: name.1.clone(),
                relative_l2: 0.0,
                relative_l2_in_all: 0.0,
            });
            so_far.results += 1;
            so_far.relative_l2_in_all = so_far.relative_l2_in_all.max(in_all);
            if relative_l2 > so_far.relative_l2 {
                (so_far.worst, so_far.relative_l2) = (name.1.clone(), relative_l2);
            }
        }
        for (name, x) in &results {
            // A result of another shape is another result: what functions of a stream pass on is turned on the way.
            if self.first.get(name).is_none_or(|r| r.shape != x.shape) {
                self.first.insert(name.clone(), x.clone());
            }
        }
        self.last = results;
        Ok(moved)
    }
}

/// The results of every function on its seeded inputs, as `function.result`.
fn run(
    module: &Module,
    weights: &dyn WeightSource,
    timesteps: Option<&Timesteps>,
    options: &RunOptions,
) -> Result<Results> {
    let mut module = module.clone();
    states::to_io(&mut module)?;
    PassPipeline::new(&["decompose"])?.run(&mut module, |_, _| {})?;
    let mut results = Results::new();
    for f in &module.functions {
        let made = run_function(f, weights, Arithmetic::AsTyped, &inputs(f, &module.interface, timesteps), options)
            .with_context(|| format!("cannot run function `{}`", f.name))?;
        // A function of other inputs, such as packed states, is another function. The low part of a sum is rounding errors.
        let made = made.into_iter().filter(|(name, _)| !name.ends_with("_low_out"));
        results.extend(made.map(|(name, tensor)| ((signature(f), format!("{}.{name}", f.name)), tensor)));
    }
    Ok(results)
}

fn signature(f: &Function) -> String {
    f.params().iter().map(|&v| format!("{:?} {:?} ", f.node(v).name, f.shape(v))).collect()
}

/// Inputs that depend on nothing but their names and shapes, and that fp16 holds.
fn inputs(f: &Function, of: &Interface, timesteps: Option<&Timesteps>) -> BTreeMap<String, HostTensor> {
    let input = |&v: &s2dit_ir::ValueId| {
        let name = f.node(v).name.as_deref().unwrap_or_default().to_owned();
        let mut rng = ChaCha8Rng::from_seed(*blake3::hash(name.as_bytes()).as_bytes());
        let shape = f.shape(v).to_vec();
        let count: usize = shape.iter().product();
        let normal = |rng: &mut ChaCha8Rng| rng.sample::<f64, _>(StandardNormal);
        let draw = |rng: &mut ChaCha8Rng| match (of.role(&name), timesteps.and_then(|listed| listed.list().first())) {
            (Some(InputRole::Time { .. }), Some(first)) => *first,
            (Some(InputRole::Time { low, high }), None) => rng.random_range(*low..*high),
            (Some(InputRole::Guidance), _) => rng.random_range(GUIDANCE).into(),
            (Some(_), _) => normal(rng),
            // What a stream carries.
            (None, _) => normal(rng).abs(),
        };
        let data = (0..count).map(|_| DType::F16.round(draw(&mut rng)) as f32).collect();
        (name, HostTensor { shape, data })
    };
    f.params().iter().map(input).collect()
}

#[cfg(test)]
mod tests {
    use s2dit_ir::text;
    use s2dit_ir::weights::NoWeights;

    use super::*;

    #[test]
    fn a_result_that_is_not_finite_fails() {
        let ratio = |below: &str| {
            let text = format!(
                "module {{ func @main(%x: f32[4]) {{ %z = sub(%x, %x) : f32[4] %y = div(%x, {below}) : f32[4] return y = %y }} }}"
            );
            let module = text::parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
            let mut watcher = Watcher::new(Some(&NoWeights), 1);
            watcher.see(None, &module);
            watcher.finish()
        };
        assert!(ratio("%x").is_ok_and(|rows| rows.is_empty()));
        let error = format!("{:#}", ratio("%z").unwrap_err());
        assert!(error.contains("before the first pass") && error.contains("main.y") && error.contains('4'), "{error}");
    }
}
