//! Depthwise convolutions over time on the Neural Engine's layout: long clips are computed in runs of frames.

use std::borrow::Cow;
use std::collections::BTreeMap;

use s2dit_ir::interp::{self, Bindings};
use s2dit_ir::text::parse;
use s2dit_ir::verify::verify;
use s2dit_ir::weights::ExpressionId;
use s2dit_ir::{Module, Op, Tensor, TensorType, WeightError, WeightSource};
use s2dit_passes::PassPipeline;

/// A causal convolution of `frames` frames of 2×3, with a kernel of 3 frames and `side`² elements in space.
fn clip(width: usize, frames: usize, side: usize) -> Module {
    let pad = side / 2;
    let ir = format!(
        "module {{\n func @main(%x: f32[1, {width}, {frames}, 2, 3]) {{\n %w = load {{tensor = \"w\"}} : f32[{width}, 1, 3, {side}, {side}]\n \
         %b = load {{tensor = \"b\"}} : f32[{width}]\n %y = conv(%x, %w, %b) {{strides = [1, 1, 1], pad_before = [2, {pad}, {pad}], \
         pad_after = [0, {pad}, {pad}], dilations = [1, 1, 1], groups = {width}}} : f32[1, {width}, {frames}, 2, 3]\n return y = %y\n }}\n}}\n"
    );
    parse(&ir).unwrap_or_else(|e| panic!("{e}\n{ir}"))
}

fn on_the_engine(mut module: Module) -> Module {
    PassPipeline::new(&["channels-first", "canonicalize", "cse"]).unwrap().run(&mut module, |_, _| {}).unwrap();
    verify(&module).unwrap();
    module
}

/// The kernels of the plane convolutions, equal ones once, with their elements.
fn kernels(module: &Module) -> (usize, BTreeMap<ExpressionId, usize>) {
    let f = &module.functions[0];
    let convs: Vec<_> = f.order().into_iter().filter(|&v| matches!(f.op(v), Op::Conv(_))).collect();
    let kernel = |v| f.operands(v)[1];
    let sizes = convs.iter().map(|&v| (ExpressionId::of(f, kernel(v)), f.ty(kernel(v)).elements()));
    (convs.len(), sizes.collect())
}

struct Noise;

impl WeightSource for Noise {
    fn ty(&self, _: &str) -> Option<TensorType> {
        None
    }
    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        let elements = if name == "w" { 2 * 3 * 63 * 63 } else { 2 };
        let values = (0..elements).flat_map(|i| ((i * 7919 + name.len()) as f32 * 0.618).sin().to_le_bytes());
        Ok(values.collect::<Vec<u8>>().into())
    }
}

#[test]
fn runs_of_frames_make_the_same_numbers() {
    let run = |module: &Module| {
        let f = &module.functions[0];
        let ty = f.ty(f.params()[0]);
        let x = Tensor::from_values(ty, (0..ty.elements()).map(|i| (i as f64 * 1.3).cos()).collect()).unwrap();
        let bindings = Bindings { params: [("x".to_string(), x)].into(), ..Bindings::default() };
        interp::run(f, &Noise, &bindings).unwrap().remove(0)
    };
    // A wide kernel makes short runs.
    let module = clip(2, 50, 63);
    let want = run(&module);
    let engine = on_the_engine(module);
    assert_eq!(kernels(&engine).0, 3, "runs");
    let got = run(&engine);
    assert_eq!(got.data.shape(), want.data.shape());
    for (i, (a, b)) in got.data.iter().zip(&want.data).enumerate() {
        assert!((a - b).abs() <= 1e-6 * 50.0, "element {i}: {a}, expected {b}");
    }
}

#[test]
fn weights_do_not_grow_with_the_clip() {
    let sizes = [256, 2048, 16_384].map(|frames| {
        let (runs, kernels) = kernels(&on_the_engine(clip(6, frames, 3)));
        assert!(runs <= frames.div_ceil(200), "{runs} runs for {frames} frames");
        kernels.values().sum::<usize>()
    });
    assert!(sizes.iter().all(|elements| *elements <= 3 << 22), "{sizes:?}");
    // A clip that is not long takes one op.
    assert_eq!(kernels(&on_the_engine(clip(48, 81, 3))).0, 1);
}
