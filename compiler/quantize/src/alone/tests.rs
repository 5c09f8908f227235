use s2dit_passes::quantize::weights_of;

use super::*;
use crate::Samples;
use s2dit_files::FloatType;
use s2dit_models::checkpoint::Checkpoint;
use s2dit_models::config::{preset, with_overrides};
use s2dit_models::init::{DEFAULT_SHARD_SIZE, InitOptions, init};
use s2dit_models::size::LatentSize;

/// The error of the whole model, run at once.
fn whole(survey: &Survey<'_>, samples: &[Inputs], choices: &BTreeMap<String, Choice>) -> f64 {
    let samples: Vec<&Inputs> = samples[..SAMPLES].iter().collect();
    let outputs = |module: &Module| {
        let mut all = Vec::new();
        run(&module.functions[0], survey.checkpoint, &samples, &[], 2, |o| {
            all.push(o);
            Ok(())
        })
        .unwrap();
        all
    };
    let reference = outputs(&survey.module);
    let mut module = survey.module.clone();
    pass::run(&mut module, |name, _| choices.get(name).cloned()).unwrap();
    let values =
        |outputs: &[Outputs]| -> Vec<f32> { outputs.iter().flat_map(|o| o["velocity"].data.clone()).collect() };
    let (x, r) = (values(&outputs(&module)), values(&reference));
    relative(x.iter().zip(&r))
}

fn ranks(x: &[f64]) -> Vec<f64> {
    x.iter().map(|a| x.iter().filter(|b| *b < a).count() as f64).collect()
}

/// Spearman's rank correlation.
fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let (x, y) = (ranks(x), ranks(y));
    let mean = (x.len() - 1) as f64 / 2.0;
    let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>();
    product(&x, &y) / (product(&x, &x) * product(&y, &y)).sqrt()
}

#[test]
fn a_block_tells_what_the_whole_model_would() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    let layout = r#"layout=["lcha","ssa","ssa","full","lcha"]"#;
    let model = with_overrides(&*preset("small").unwrap(), &[layout]).unwrap();
    let options = InitOptions {
        model,
        seed: 3,
        dtype: FloatType::Bf16,
        max_shard_size: DEFAULT_SHARD_SIZE,
        force: false,
        threads: 2,
    };
    init(&options, &path, &|_, _| {}).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let survey = Survey::new(&checkpoint, LatentSize { frames: 3, rows: 8, cols: 8 }.into()).unwrap();
    let samples = Samples::Seeded.inputs(&survey.module).unwrap();
    let scheme = Scheme::Palette { bits: 4, group: Some(16) };
    let weights = weights_of(&survey.module).into_iter().filter(|w| fits(scheme, &w.ty));
    let choices: BTreeMap<String, Choice> = weights.map(|w| (w.name, scheme.into())).collect();

    let found = alone(&survey, &samples, &choices, &checkpoint, 2, &mut |_, _, _| {}).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), choices.keys().collect::<Vec<_>>());
    let mut pairs = Vec::new();
    for (name, choice) in &choices {
        let real = whole(&survey, &samples, &BTreeMap::from([(name.clone(), choice.clone())]));
        let off = 10.0 * (found[name] / real).log10();
        println!("{name}: {:.1} dB, {off:+.2} dB off", -10.0 * real.log10());
        // What is run to the end is exact.
        let of_block = name.starts_with("blocks.") && !name.starts_with("blocks.4.");
        assert!(if of_block { off.abs() < 4.0 } else { off.abs() < 1e-3 }, "{name}: {off} dB off");
        pairs.push((found[name], real));
    }
    let (found, real): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
    let correlation = correlation(&found, &real);
    println!("rank correlation {correlation:.4} over {} weights", real.len());
    assert!(correlation > 0.95, "{correlation}");
}
