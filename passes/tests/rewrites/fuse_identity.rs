//! Fusing and decomposing keep every number: random graphs of composites, taken apart and written in other ways, in float64.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use s2dit_ir::close::{Tolerance, compare};
use s2dit_ir::interp::{self, Bindings};
use s2dit_ir::ops::{
    Binary, FeatureMap, FusionGate, LinearAttention, LinearAttentionStep, Modulate, RmsNorm, Rope, RopePairs,
    RunningMean, Sdpa, Unary,
};
use s2dit_ir::verify::verify;
use s2dit_ir::weights::NoWeights;
use s2dit_ir::{Builder, DType, Function, Module, Op, Tensor, TensorType, ValueId};
use s2dit_passes::PassPipeline;

/// Heads, tokens, width.
const SHAPE: [usize; 4] = [1, 2, 4, 6];

fn ty(shape: &[usize]) -> TensorType {
    TensorType::new(DType::F64, shape)
}

/// Values that look random.
fn noise(n: usize, seed: usize) -> Vec<f64> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) as f64 * 0.618).sin()).collect()
}

/// Parameters that the composites take beside the values.
struct Operands {
    cos: ValueId,
    sin: ValueId,
    scale: ValueId,
    sum: ValueId,
    norm: ValueId,
    number: ValueId,
}

/// Adds the composite number `which` over some of the values.
fn composite(b: &mut Builder, o: &Operands, which: usize, x: ValueId, y: ValueId, z: ValueId, seed: usize) -> ValueId {
    let weight = |b: &mut Builder, shape: &[usize]| {
        b.literal(&ty(shape), noise(shape.iter().product(), seed)).expect("a literal")
    };
    let positive = |b: &mut Builder, v| b.unary(Unary::Exp, v).expect("exp");
    let made = match which {
        0 => {
            let gain = weight(b, &[6]);
            b.op(RmsNorm { axis: 3, eps: 1e-5 }, &[x, gain])
        }
        1 => b.op(RmsNorm { axis: 2, eps: 1e-5 }, &[x]),
        2 => b.op(Rope { axis: 3, pairs: RopePairs::Interleaved }, &[x, o.cos, o.sin]),
        3 => b.op(Sdpa { scale: 0.4 }, &[x, y, z]),
        4 => b.op(Sdpa { scale: 0.4 }, &[x, y, z, o.number]),
        5 => {
            let (w, bias) = (weight(b, &[1, 2, 6, 6]), weight(b, &[1, 2, 1, 6]));
            b.op(FeatureMap {}, &[x, w, bias])
        }
        6 => {
            let (x, y) = (positive(b, x), positive(b, y));
            b.op(LinearAttention { eps: 1e-6, least: 0.0 }, &[x, y, z])
        }
        7 => {
            let (x, y) = (positive(b, x), positive(b, y));
            b.op(LinearAttention { eps: 1e-6, least: 0.0 }, &[x, y, z, y, x])
        }
        8 => {
            let (x, y) = (positive(b, x), positive(b, y));
            let sum = b.op(RunningMean {}, &[x, z, o.sum, o.number, o.number]).expect("a mean");
            let norm = b.op(RunningMean {}, &[y, o.norm, o.number, o.number]).expect("a mean");
            b.op(LinearAttentionStep {}, &[x, sum, norm, o.number, y])
        }
        9 => b.op(Modulate {}, &[x, o.scale, y]),
        10 => {
            let gate = weight(b, &[6]);
            b.op(FusionGate {}, &[gate, x, y])
        }
        11 => b.unary(Unary::Sin, x),
        12 => b.sub(x, y),
        _ => b.binary(Binary::Maximum, x, y),
    };
    made.expect("a composite")
}

fn counts(module: &Module) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for f in &module.functions {
        for v in f.order() {
            if f.op(v).is_composite() {
                *counts.entry(f.op(v).name()).or_default() += 1;
            }
        }
    }
    counts
}

fn run(module: &mut Module, pass: &str) {
    PassPipeline::new(&[pass]).expect("a pass").run(module, |_, _| {}).expect("a pipeline");
    verify(module).expect("a valid module");
}

proptest! {
    #![proptest_config(crate::common::property::config(200, "passes/tests/rewrites/fuse_identity.proptest-regressions"))]
    #[test]
    fn fuse_and_decompose_keep_numbers(
        steps in prop::collection::vec((0usize..14, any::<[prop::sample::Index; 3]>(), 0usize..1000), 1..9),
        swaps in prop::collection::vec(any::<bool>(), 64),
    ) {
        let mut f = Function::new("main");
        let mut bindings = Bindings { params: HashMap::new(), states: HashMap::new() };
        let mut param = |f: &mut Function, name: &str, shape: &[usize], seed: usize| {
            let values = noise(shape.iter().product(), seed);
            bindings.params.insert(name.into(), Tensor::from_values(&ty(shape), values).expect("values"));
            f.add_param(name, ty(shape))
        };
        let mut values = vec![param(&mut f, "a", &SHAPE, 1), param(&mut f, "b", &SHAPE, 2), param(&mut f, "c", &SHAPE, 3)];
        let o = Operands {
            cos: param(&mut f, "cos", &[4, 3], 4),
            sin: param(&mut f, "sin", &[4, 3], 5),
            scale: param(&mut f, "scale", &[1, 1, 1, 6], 6),
            sum: param(&mut f, "sum", &[1, 2, 6, 6], 7),
            norm: param(&mut f, "norm", &[1, 2, 1, 6], 8),
            number: param(&mut f, "number", &[1], 9),
        };
        let mut b = Builder::new(&mut f);
        for (which, picks, seed) in steps {
            let [x, y, z] = picks.map(|p| *p.get(&values));
            values.push(composite(&mut b, &o, which, x, y, z, seed));
        }
        f.results.push(("y".into(), values[values.len() - 1]));
        f.remove_dead();
        let mut module = Module::single(f);
        run(&mut module, "cse");
        let evaluate = |m: &Module| interp::effects(&m.functions[0], &NoWeights, &bindings).expect("values").results;
        let (wanted, composites) = (evaluate(&module), counts(&module));

        run(&mut module, "decompose");
        prop_assert!(counts(&module).is_empty());
        run(&mut module, "cse");
        // Another way to write the same.
        let f = &mut module.functions[0];
        for (v, swap) in f.order().into_iter().zip(swaps.iter().cycle()) {
            match *f.op(v) {
                Op::Binary(Binary::Add | Binary::Mul) if *swap => {
                    let operands = f.operands(v);
                    f.set_operand(v, 0, operands[1]);
                    f.set_operand(v, 1, operands[0]);
                }
                Op::Unary(Unary::Square) if *swap => {
                    let x = f.operands(v)[0];
                    let y = f.add(Binary::Mul.into(), &[x, x], "").expect("a product");
                    f.replace_uses(v, y);
                }
                _ => {}
            }
        }
        f.remove_dead();
        let plain = evaluate(&module);
        run(&mut module, "fuse");
        let fused = evaluate(&module);
        prop_assert_eq!(counts(&module), composites);
        run(&mut module, "decompose");
        let back = evaluate(&module);
        for other in [&plain, &fused, &back] {
            if let Err(mismatch) = compare(other, &wanted, Tolerance::relative(1e-9, 1.0)) {
                return Err(TestCaseError::fail(mismatch.to_string()));
            }
        }
    }
}
