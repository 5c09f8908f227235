//! A split network makes of chunk after chunk what the network makes of the frames that each chunk may see: all of them, or the stream's first
//! ones and a window.

use std::borrow::Cow;

use crate::common::stream::Stream;
use s2dit_ir::close::{Tolerance, compare_tensors};
use s2dit_ir::interp::{self, Bindings};
use s2dit_ir::text::parse;
use s2dit_ir::{DType, Module, Tensor, TensorType, WeightError, WeightSource};
use s2dit_passes::pipeline::Outcome;
use s2dit_passes::split::{self, StateWrite};
use s2dit_passes::states::{self, Place};
use s2dit_passes::{Pass, PassKind, PassPipeline};

/// Channels, rows and columns of a frame.
const FRAME: [usize; 3] = [4, 1, 2];
/// Frames of a chunk.
const CHUNK: usize = 2;

struct Weights;

impl WeightSource for Weights {
    fn ty(&self, _: &str) -> Option<TensorType> {
        None
    }
    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        let taps = 3 * FRAME[0];
        let values = (0..taps).flat_map(|i| ((i * 31 + name.len()) as f32 * 0.618).sin().to_le_bytes());
        Ok(values.collect::<Vec<u8>>().into())
    }
}

/// The tokens of some frames, and what is made of them.
fn network(frames: usize, body: &str, tokens_out: bool) -> Module {
    let [c, h, w] = FRAME;
    let n = frames * h * w;
    let body = body.replace("{n}", &n.to_string()).replace("{f}", &frames.to_string());
    let back = if tokens_out {
        format!(
            "%t = transpose(%z) {{perm = [0, 1, 3, 2]}} : f32[1, 1, {c}, {n}]\n%v = reshape(%t) {{shape = [1, {c}, {frames}, {h}, {w}]}} : f32[1, {c}, {frames}, {h}, {w}]\n"
        )
    } else {
        String::new()
    };
    let ir = format!(
        "module {{\ninput \"latent\" : latent\ninput \"timestep\" : time {{low = 0.0, high = 1000.0}}\ninput \"text\" : text\n\
         func @main(%latent: f32[1, {c}, {frames}, {h}, {w}], %timestep: f32[1], %text: f32[1, 3, 4]) {{\n\
         %0 = reshape(%latent) {{shape = [1, 1, {c}, {n}]}} : f32[1, 1, {c}, {n}]\n\
         %x = transpose(%0) {{perm = [0, 1, 3, 2]}} : f32[1, 1, {n}, {c}]\n{body}\n{back}\
         %1 = mul(%v, %timestep) : f32[1, {c}, {frames}, {h}, {w}]\n\
         %p = reduce_mean(%text) {{axes = [0, 1, 2], keep_dims = false}} : f32[]\n\
         %y = add(%1, %p) : f32[1, {c}, {frames}, {h}, {w}]\nreturn velocity = %y\n}}\n}}\n"
    );
    parse(&ir).unwrap_or_else(|e| panic!("{e}\n{ir}"))
}

const ATTENTION: &str = "%scale = literal {values = [0.7]} : f32[]
%s = matmul({k}, {k}) {transpose_x = false, transpose_y = true} : f32[1, 1, {n}, {n}] @ \"a\"
%m = mul(%s, %scale) : f32[1, 1, {n}, {n}] @ \"a\"
%q = softmax(%m) {axis = 3} : f32[1, 1, {n}, {n}] @ \"a\"
%z = matmul(%q, %x) {transpose_x = false, transpose_y = false} : f32[1, 1, {n}, 4] @ \"a\"";

const ROTATED: &str = "%cos = rope_table {part = \"cos\", grid = [{f}, 1, 2], axis_dims = [2, 0, 2], theta = 10000.0} : f32[{n}, 2] @ \"rope\"
%sin = rope_table {part = \"sin\", grid = [{f}, 1, 2], axis_dims = [2, 0, 2], theta = 10000.0} : f32[{n}, 2] @ \"rope\"
%x0 = slice(%x) {begin = [0, 0, 0, 0], end = [1, 1, {n}, 2], stride = [1, 1, 1, 1]} : f32[1, 1, {n}, 2]
%x1 = slice(%x) {begin = [0, 0, 0, 2], end = [1, 1, {n}, 4], stride = [1, 1, 1, 1]} : f32[1, 1, {n}, 2]
%a = mul(%x0, %cos) : f32[1, 1, {n}, 2]
%b = mul(%x1, %sin) : f32[1, 1, {n}, 2]
%c = mul(%x0, %sin) : f32[1, 1, {n}, 2]
%d = mul(%x1, %cos) : f32[1, 1, {n}, 2]
%e = sub(%a, %b) : f32[1, 1, {n}, 2]
%f = add(%c, %d) : f32[1, 1, {n}, 2]
%k = concat(%e, %f) {axis = 3} : f32[1, 1, {n}, 4]
";

const LINEAR: &str = "%k = exp(%x) : f32[1, 1, {n}, 4] @ \"a\"
%sum = matmul(%k, %x) {transpose_x = true, transpose_y = false} : f32[1, 1, 4, 4] @ \"a\"
%a = matmul(%k, %sum) {transpose_x = false, transpose_y = false} : f32[1, 1, {n}, 4] @ \"a\"
%norm = reduce_sum(%k) {axes = [2], keep_dims = true} : f32[1, 1, 1, 4] @ \"a\"
%b = matmul(%k, %norm) {transpose_x = false, transpose_y = true} : f32[1, 1, {n}, 1] @ \"a\"
%eps = literal {values = [0.5]} : f32[]
%c = add(%b, %eps) : f32[1, 1, {n}, 1] @ \"a\"
%z = div(%a, %c) : f32[1, 1, {n}, 4] @ \"a\"";

const CONVOLUTION: &str = "%w = load {tensor = \"w\"} : f32[4, 1, 3, 1, 1] @ \"conv\"
%v = conv(%latent, %w) {strides = [1, 1, 1], pad_before = [2, 0, 0], pad_after = [0, 0, 0], dilations = [1, 1, 1], groups = 4} : f32[1, 4, {f}, 1, 2] @ \"conv\"";

/// Frames by number, which look random.
fn frames(numbers: &[usize]) -> Tensor {
    let [c, h, w] = FRAME;
    let ty = TensorType::new(DType::F32, [1, c, numbers.len(), h, w]);
    let mut all = Tensor::splat(&ty, 0.0);
    for (at, value) in all.data.indexed_iter_mut() {
        let place = (numbers[at[2]] * c + at[1]) * h * w + at[3] * w + at[4];
        *value = ((place * 7919 + 13) as f64 * 0.618).sin();
    }
    all
}

fn constant(shape: &[usize], value: f64) -> Tensor {
    Tensor::splat(&TensorType::new(DType::F32, shape), value)
}

/// The last chunk of what the network makes of the frames.
fn expected(body: &str, tokens: bool, numbers: &[usize]) -> Tensor {
    let module = network(numbers.len(), body, tokens);
    let params = [
        ("latent".to_string(), frames(numbers)),
        ("timestep".to_string(), constant(&[1], 3.0)),
        ("text".to_string(), constant(&[1, 3, 4], 0.25)),
    ];
    let bindings = Bindings { params: params.into(), ..Bindings::default() };
    let all = interp::run(&module.functions[0], &Weights, &bindings).unwrap().remove(0);
    let [c, h, w] = FRAME;
    let mut last = Tensor::splat(&TensorType::new(DType::F32, [1, c, CHUNK, h, w]), 0.0);
    for (at, value) in last.data.indexed_iter_mut() {
        *value = all.data[&[0, at[1], numbers.len() - CHUNK + at[2], at[3], at[4]][..]];
    }
    last
}

/// Streams some chunks and compares each with what the network makes of the frames that the chunk may see.
fn check(body: &str, tokens: bool, options: &split::Options, bar: f64) {
    let seen = |chunk: usize| -> Vec<usize> {
        let (begin, end) = (chunk * CHUNK, (chunk + 1) * CHUNK);
        let limited = options.window_frames + options.sink_frames > 0;
        let kept = |f: &usize| !limited || *f < options.sink_frames || f + options.window_frames >= begin;
        (0..end).filter(kept).collect()
    };
    for state_write in [StateWrite::Commit, StateWrite::LastStep] {
        let options = split::Options { state_write, ..options.clone() };
        let mut module = network(CHUNK, body, tokens);
        let pipeline = PassPipeline::of_model(vec![split::pass(options)]).unwrap();
        let outcome: Outcome = pipeline.run_with(&mut module, &Weights, |_, _| {}).unwrap();
        let mut stream = Stream::new(
            &module,
            outcome.kernel.as_ref().unwrap(),
            CHUNK,
            &[("text", constant(&[1, 3, 4], 0.25))],
            &Weights,
        );
        for chunk in 0..4 {
            let own = [("latent", frames(&[chunk * CHUNK, chunk * CHUNK + 1])), ("timestep", constant(&[1], 3.0))];
            let result = stream.run("denoise", &own, &Weights);
            let written = stream.run(state_write.function(), &own, &Weights);
            let expected = expected(body, tokens, &seen(chunk));
            let bar = Tolerance::relative(bar, 1.0);
            compare_tensors(&result[0].1, &expected, bar)
                .unwrap_or_else(|e| panic!("{state_write:?} {chunk}: {e}\n{body}"));
            if state_write == StateWrite::LastStep {
                compare_tensors(&written[0].1, &expected, bar).unwrap_or_else(|e| panic!("chunk {chunk}: {e}"));
            }
            stream.chunks += 1;
        }
    }
}

fn plain(window_frames: usize, sink_frames: usize) -> split::Options {
    split::Options { window_frames, sink_frames, ..split::Options::default() }
}

const EXACT: f64 = 1e-9;

#[test]
fn attention_sees_its_window() {
    let body = ATTENTION.replace("{k}", "%x");
    for (window, sinks) in [(1, 0), (2, 0), (3, 0), (9, 0), (2, 1), (1, 3), (0, 2), (3, 4)] {
        check(&body, true, &plain(window, sinks), EXACT);
    }
}

#[test]
fn rotations_go_on_through_the_stream() {
    check(&(ROTATED.to_string() + &ATTENTION.replace("{k}", "%k")), true, &plain(4, 0), EXACT);
}

#[test]
fn linear_attention_sees_all_chunks() {
    check(LINEAR, true, &plain(0, 0), EXACT);
    // Means that are stored in two halves of fp16 keep more than one does.
    check(LINEAR, true, &split::Options { half_states: true, ..plain(0, 0) }, 1e-5);
}

#[test]
fn convolutions_see_the_frames_before() {
    check(CONVOLUTION, false, &plain(0, 0), EXACT);
}

/// A pass that puts the states where the test wants them keeps what the pipeline knew of them.
#[test]
fn the_kernel_keeps_its_states_when_they_are_placed() {
    let mut module = network(CHUNK, LINEAR, true);
    let passes = vec![split::pass(plain(0, 0)), states::pass(Place::Io)];
    let outcome = PassPipeline::of_model(passes).unwrap().run_with(&mut module, &Weights, |_, _| {}).unwrap();
    let names: Vec<String> = outcome.kernel.unwrap().module.states.into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["a_sum", "a_norm"]);
    assert!(module.states.is_empty());
    let runs: Vec<(&str, usize)> = outcome.runs.iter().map(|run| (run.pass, run.changes)).collect();
    assert_eq!(runs, [("split", 3), ("states", 2)]);
}

/// A pass that breaks what held before it is named, and so is one that does not do what it says.
#[test]
fn a_pass_that_breaks_a_property_is_named() {
    use s2dit_ir::ops::{OpError, RmsNorm};
    use s2dit_passes::Property;
    use s2dit_passes::pass::Run;

    fn composite(module: &mut Module) -> Result<usize, OpError> {
        let f = &mut module.functions[0];
        let norm = f.add(RmsNorm { axis: 1, eps: 1e-6 }.into(), &[f.params()[0]], "")?;
        f.results[0].1 = norm;
        Ok(1)
    }
    static CARELESS: PassKind = PassKind { name: "careless", run: Run::Plain(composite), ..PassKind::PLAIN };
    static IDLE: PassKind = PassKind { name: "idle", establishes: &[Property::NoStates], ..PassKind::PLAIN };
    let error = |passes: Vec<Pass>, text: &str| {
        let mut module = parse(text).unwrap();
        PassPipeline::of_graph(passes).unwrap().run(&mut module, |_, _| {}).unwrap_err().to_string()
    };
    let graph = "module { func @main(%x: f32[2, 4]) { %y = exp(%x) : f32[2, 4]\n return y = %y } }";
    let passes = vec![Pass::read("decompose").unwrap(), (&CARELESS).into()];
    assert_eq!(
        error(passes, graph),
        "after pass `careless` `tensor-ops` (no op is a composite) does not hold: `rms_norm` in @main is a composite"
    );
    let stateful = "module { state \"s\" : f32[4]\n func @main(%x: f32[4]) { %s = state {state = \"s\"} : f32[4]\n %y = add(%x, %s) : f32[4]\n return y = %y } }";
    assert!(error(vec![(&IDLE).into()], stateful).contains("after pass `idle` `no-states`"));
    // A property that was destroyed need not hold.
    static HONEST: PassKind =
        PassKind { name: "honest", run: Run::Plain(composite), destroys: &[Property::TensorOps], ..PassKind::PLAIN };
    let mut module = parse(graph).unwrap();
    let passes = vec![Pass::read("decompose").unwrap(), (&HONEST).into()];
    PassPipeline::of_graph(passes).unwrap().run(&mut module, |_, _| {}).unwrap();
}
