//! Tables of timesteps against the graph that they take the place of, in float64 and in fp16's own numbers.

use s2dit_ir::close::{Tolerance, assert_close};
use s2dit_ir::interp::{self, Bindings};
use s2dit_ir::text::parse;
use s2dit_ir::weights::NoWeights;
use s2dit_ir::{DType, Interface, Module, Tensor, TensorType};
use s2dit_passes::timesteps;

const GRAPH: &str = r#"module {
  input "timestep" : time {low = 0.0, high = 1000.0}
  func @main(%x: f32[2], %timestep: f32[1]) {
    %w = literal {values = [1.0, 0.1, 0.01, 0.001]} : f32[4]
    %angle = mul(%timestep, %w) : f32[4]
    %c = cos(%angle) : f32[4]
    %s = sin(%angle) : f32[4]
    %cs = concat(%c, %s) {axis = 0} : f32[8]
    %rows = reshape(%cs) {shape = [4, 2]} : f32[4, 2]
    %flat = reshape(%timestep) {shape = [1, 1]} : f32[1, 1]
    %weight = literal {values = [0.001, -0.002]} : f32[2, 1]
    %linear = linear(%flat, %weight) : f32[1, 2]
    %tanh = tanh(%linear) : f32[1, 2]
    %sum = add(%rows, %tanh) : f32[4, 2]
    %y = add(%sum, %x) : f32[4, 2]
    return y = %y, tanh = %tanh
  }
}
"#;

fn run(module: &Module, t: f64) -> Vec<(String, Tensor)> {
    let mut bindings = Bindings::default();
    let mut bind = |name: &str, values: Vec<f64>| {
        let ty = TensorType::new(DType::F32, [values.len()]);
        bindings.params.insert(name.into(), Tensor::from_values(&ty, values).unwrap());
    };
    bind("x", vec![0.5, -3.0]);
    bind("timestep", vec![t]);
    let [main] = &module.functions[..] else { panic!("expected one function") };
    interp::effects(main, &NoWeights, &bindings).unwrap().results
}

#[test]
fn tables_are_the_graph_at_every_listed_timestep() {
    let shifted = [1000.0, 937.5, f64::from(833.333_3_f32), 625.0];
    for listed in [&shifted[..], &[731.25], &[0.0, 0.25, 0.5]] {
        let before = parse(GRAPH).unwrap();
        let mut after = before.clone();
        assert_eq!(timesteps::run(&mut after, listed).unwrap(), 2);
        s2dit_ir::verify::verify(&after).unwrap();
        let f = &after.functions[0];
        assert!(f.order().iter().all(|&v| f.is_const(v) || !["cos", "sin", "tanh"].contains(&f.op(v).name())));
        for &t in listed {
            let expected = run(&before, t);
            for asked in [t, DType::F16.round(t), DType::F32.round(t)] {
                assert_close(format!("{t} as {asked}"), &run(&after, asked), &expected, Tolerance::EXACT);
            }
        }
    }
}

#[test]
fn timesteps_that_fp16_confuses_are_refused() {
    let refused = |listed: &[f64], parts: &[&str]| {
        let mut module = parse(GRAPH).unwrap();
        let message = timesteps::run(&mut module, listed).unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    refused(&[], &["at least one"]);
    refused(&[f64::NAN], &["NaN", "finite"]);
    refused(&[500.0, 999.3, 998.9], &["999.3", "998.9", "at least"]);
    refused(&[1.0, 1.125], &["1.125", "at least 0.25"]);
}

#[test]
fn a_module_without_a_time_is_left_alone() {
    let mut module = Module { interface: Interface::default(), ..parse(GRAPH).unwrap() };
    assert_eq!(timesteps::run(&mut module, &[1.0]).unwrap(), 0);
}
