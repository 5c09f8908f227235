use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;

/// How far a sample may be from diffusers', of the largest element.
const BAR: f64 = 1e-6;

fn golden(name: &str) -> Value {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/schedulers");
    let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).expect("a golden");
    serde_json::from_str(&text).expect("JSON")
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

fn read(config: &Value, spacing: Spacing) -> Result<Box<dyn Sampler>, String> {
    let class = config["_class_name"].as_str().expect("a class");
    of_scheduler(class, config.as_object().expect("an object"), spacing, "x.json").map_err(|error| format!("{error:#}"))
}

/// Every step from diffusers' own sample with diffusers' own velocity, and what a multistep sampler remembers of the steps before.
fn check(name: &str) {
    let golden = golden(name);
    let cases = golden["cases"].as_array().expect("cases");
    assert!(cases.len() >= 3, "{name}");
    for case in cases {
        let steps = case["steps"].as_u64().expect("steps") as usize;
        let spacing = if case["given"] == true { Spacing::Linear } else { Spacing::Scheduler };
        let sampler = read(&golden["config"], spacing).expect("a sampler");
        let levels = sampler.levels(steps, case["tokens"].as_u64().unwrap_or(1) as usize).expect("levels");
        let place = format!("{name}, {steps} steps");
        let close = |what: &str, ours: &[f64], theirs: &[f64]| {
            assert_eq!(ours.len(), theirs.len(), "{place}: {what}");
            let largest = theirs.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
            let worst = ours.iter().zip(theirs).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()));
            assert!(worst <= BAR * largest, "{place}: {what}: {worst:e} of {largest}: {ours:?}, expected {theirs:?}");
        };
        close("sigmas", &levels.sigmas, &numbers(&case["sigmas"]));
        close("timesteps", &levels.timesteps, &numbers(&case["timesteps"]));
        let samples: Vec<Vec<f64>> = case["samples"].as_array().expect("samples").iter().map(numbers).collect();
        let mut run = sampler.begin(&levels);
        for (step, velocity) in case["velocities"].as_array().expect("velocities").iter().enumerate() {
            let mut x = samples[step].clone();
            run.step(&mut x, &numbers(velocity));
            close(&format!("sample {}", step + 1), &x, &samples[step + 1]);
        }
        assert_eq!(samples.len(), steps + 1);
    }
}

#[test]
fn euler_steps_are_those_of_diffusers() {
    ["euler_shift1", "euler_shift3", "euler_shift12", "euler_terminal"].iter().for_each(|name| check(name));
}

#[test]
fn euler_shifts_by_the_size_as_ltx_video_does() {
    ["euler_ltx", "euler_linear"].iter().for_each(|name| check(name));
}

#[test]
fn unipc_steps_are_those_of_diffusers() {
    ["unipc_wan_480", "unipc_wan_720", "unipc_shift1", "unipc_shift12", "unipc_terminal"]
        .iter()
        .for_each(|name| check(name));
}

#[test]
fn unipc_of_other_orders_and_with_steps_that_are_not_corrected() {
    ["unipc_order1", "unipc_order3", "unipc_uncorrected"].iter().for_each(|name| check(name));
}

#[test]
fn dpm_solver_steps_are_those_of_diffusers() {
    ["dpm_solver", "dpm_solver_order1", "dpm_solver_order3", "dpm_solver_heun"].iter().for_each(|name| check(name));
    // The class takes no levels of a pipeline.
    assert!(read(&golden("dpm_solver")["config"], Spacing::Linear).unwrap_err().contains("does not take"));
}

#[test]
fn what_is_not_supported_is_named_with_its_field() {
    let refused = |name: &str, field: &str, value: Value, parts: &[&str]| {
        let mut config = golden(name)["config"].clone();
        config[field] = value;
        let message = read(&config, Spacing::Scheduler).expect_err(field);
        for part in parts {
            assert!(message.contains(&format!("x.json: {field}")) && message.contains(part), "{message}");
        }
    };
    refused("euler_shift3", "use_karras_sigmas", json!(true), &["found true, expected false"]);
    refused("euler_shift3", "stochastic_sampling", json!(true), &["found true"]);
    refused("euler_shift3", "shift", json!("3"), &["found \"3\", expected a number above 0"]);
    refused("euler_shift3", "shift_terminal", json!(1.5), &["found 1.5", "between 0 and 1"]);
    refused("euler_shift3", "time_shift_type", json!("cubic"), &["\"exponential\" or \"linear\""]);
    refused("euler_shift3", "flow_shift", json!(3), &["unknown"]);
    refused("euler_ltx", "max_image_seq_len", json!(1024), &["more than base_image_seq_len"]);
    refused("unipc_wan_480", "prediction_type", json!("epsilon"), &["expected \"flow_prediction\""]);
    refused("unipc_wan_480", "solver_order", json!(4), &["from 1 to 3"]);
    refused("unipc_wan_480", "solver_type", json!("bh1"), &["expected \"bh2\""]);
    refused("unipc_wan_480", "disable_corrector", json!([-1]), &["a list of steps"]);
    refused("unipc_wan_480", "num_train_timesteps", json!(500), &["expected 1000"]);
    refused("dpm_solver", "algorithm_type", json!("sde-dpmsolver++"), &["expected \"dpmsolver++\""]);
    refused("dpm_solver", "solver_type", json!("bh2"), &["\"midpoint\" or \"heun\""]);
    refused("dpm_solver", "use_lu_lambdas", json!(true), &["found true"]);
    // Defaults of a class that are not what flow matching needs count as found.
    let bare = json!({"_class_name": "UniPCMultistepScheduler", "flow_shift": 5.0});
    let message = read(&bare, Spacing::Scheduler).unwrap_err();
    assert!(message.contains("found \"epsilon\"") && message.contains("use_flow_sigmas"), "{message}");
    let other = json!({"_class_name": "PNDMScheduler"});
    assert!(read(&other, Spacing::Scheduler).unwrap_err().contains("UniPCMultistepScheduler"));
}

#[test]
fn steps_without_levels_are_refused() {
    let ltx = read(&golden("euler_ltx")["config"], Spacing::Linear).unwrap();
    let message = ltx.levels(1, 1024).unwrap_err().to_string();
    assert!(message.contains("steps: found 1, expected at least 2") && message.contains("shift_terminal"), "{message}");
    assert!(!message.contains("[NaN"), "{message}");
    assert_eq!(ltx.levels(2, 1024).unwrap().steps(), 2);
    let wan = read(&golden("euler_ltx")["config"], Spacing::Scheduler).unwrap();
    assert!(wan.levels(8, 1024).unwrap_err().to_string().contains("use_dynamic_shifting"));
}

fn tensor(data: &[f32]) -> HostTensor {
    HostTensor { shape: vec![data.len()], data: data.to_vec() }
}

#[test]
fn an_exact_velocity_gives_the_data_back() {
    let data = [0.25f32, -1.5];
    let of_golden = |name: &str| read(&golden(name)["config"], Spacing::Scheduler).unwrap();
    let samplers: [Box<dyn Sampler>; 3] =
        [Box::new(Euler::shifted(3.0)), of_golden("unipc_wan_720"), of_golden("dpm_solver_order3")];
    for sampler in samplers {
        let levels = sampler.levels(8, 2).unwrap();
        let x = clip(&*sampler, &levels, &tensor(&[1.0, 2.0]), |x, _, step| {
            let velocity = |i: usize| (f64::from(x.data[i]) - f64::from(data[i])) / levels.sigmas[step];
            Ok::<_, Error>(vec![velocity(0), velocity(1)])
        });
        let x = x.unwrap();
        assert!(x.data.iter().zip(data).all(|(a, b)| (a - b).abs() < 1e-5), "{sampler:?}: {:?}", x.data);
    }
}

#[test]
fn a_checkpoints_own_steps_are_shifted_evenly() {
    let levels = Euler::shifted(5.0).levels(4, 1).unwrap();
    assert_eq!(levels.sigmas, euler_sigmas(4, 5.0));
    assert_eq!(levels.timesteps[0], 1000.0);
}

#[test]
fn guidance_extrapolates() {
    assert_eq!(guided(&tensor(&[2.0]), Some(&tensor(&[1.0])), 3.0), [4.0]);
    assert_eq!(guided(&tensor(&[2.0]), None, 3.0), [2.0]);
}
