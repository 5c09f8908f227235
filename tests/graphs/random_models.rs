//! The compiler's own pass lists on random small models, clips and streams, in float64: no pass moves a result or a state.
//!
//! `S2DITC_SEED=7 cargo test -p s2ditc --test graphs random_models` draws other models.

mod chunks;
mod model;

use crate::common::property;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use s2dit_emit::{Precision, stream};
use s2dit_ir::Module;
use s2dit_ir::close::{Tolerance, compare};
use s2dit_ir::verify::verify;
use s2dit_models::Model as _;

use chunks::{Named, Streamed};
use model::{Model, Weights, models};

/// Numbers inside formulas (ε that must not vanish in fp16, the splits of a phase) are those of fp32.
const SAME: f64 = 1e-6;
/// Sums kept in two fp16 halves, of which `denoise` reads the higher.
const HALVES: f64 = 5e-3;
/// Weights, parameters and states rounded to fp16.
const FP16: f64 = 5e-2;

fn check(cases: u32, regressions: &str, property: impl Fn(Model) -> Result<(), TestCaseError>) {
    let config = property::config(cases, regressions);
    TestRunner::new(config).run(&models(), property).unwrap_or_else(|e| panic!("{e}"));
}

/// The modules that a compile goes through, each with the pass that made it.
#[derive(Default)]
struct Seen(Vec<(&'static str, Module)>);

impl Seen {
    fn watch(&mut self) -> impl FnMut(Option<&s2dit_passes::PassRun>, &Module) + '_ {
        |stage, module| self.0.push((stage.map_or("frontend", |s| s.pass), module.clone()))
    }
}

/// Compares what each module computes with what the first one computes.
fn unmoved(
    modules: &[(&'static str, Module)],
    bar: impl Fn(&str) -> f64,
    run: impl Fn(&Module) -> Named,
) -> Result<(), TestCaseError> {
    let Some(((_, first), others)) = modules.split_first() else { return Ok(()) };
    let reference = run(first);
    let mut allowed = 0.0f64;
    for (pass, module) in others {
        allowed = allowed.max(bar(pass));
        prop_assert!(verify(module).is_ok(), "{pass}");
        if let Err(mismatch) = compare(&run(module), &reference, Tolerance::relative(allowed, 1e-3)) {
            return Err(TestCaseError::fail(format!("after {pass}: {mismatch}")));
        }
    }
    Ok(())
}

/// What a pass may move; a later pass may move as much again.
fn bar(model: &Model, pass: &str) -> f64 {
    match pass {
        _ if pass.starts_with("precision") => FP16,
        "channels-first" if model.precision == Precision::Fp16 && model.streams => HALVES,
        _ => SAME,
    }
}

#[test]
fn passes_on_clips() {
    check(72, "tests/graphs/random_models/clips.proptest-regressions", |model| {
        let weights = Weights::of(&model.config);
        let mut seen = Seen::default();
        s2dit_emit::lower_graph(&model.config, &weights, &model.clip(), &mut seen.watch()).expect("a graph");
        let run = |module: &Module| chunks::clip(module, &model.config, &weights);
        unmoved(&seen.0, |pass| bar(&model, pass), run)
    });
}

#[test]
fn passes_on_streams() {
    check(40, "tests/graphs/random_models/streams.proptest-regressions", |mut model| {
        model.streams = true;
        let weights = Weights::of(&model.config);
        let mut seen = Seen::default();
        let streaming = model.config.streaming().expect("a configuration that streams");
        let lowered = stream::lower_graph(&model.config, &weights, &streaming, &model.stream(), &mut seen.watch())
            .expect("a kernel");
        let split = seen.0.iter().position(|(pass, _)| *pass == "split").expect("a split");
        let run = |module: &Module| chunks::clip(module, &model.config, &weights);
        unmoved(&seen.0[..split], |pass| bar(&model, pass), run)?;

        let streamed = Streamed::new(&seen.0[split].1, &lowered, &model.config, &weights);
        // The first chunk has no past: it is a clip.
        let (clip, stream) = (run(&seen.0[0].1), streamed.run(&seen.0[split].1));
        let first = vec![("main.velocity".to_string(), stream[0].1.clone())];
        if let Err(mismatch) = compare(&first, &clip, Tolerance::relative(SAME, 1e-3)) {
            return Err(TestCaseError::fail(format!("the first chunk: {mismatch}")));
        }
        unmoved(&seen.0[split..], |pass| bar(&model, pass), |module| streamed.run(module))
    });
}
