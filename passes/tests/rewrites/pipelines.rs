//! The pipelines of the product: which passes, in which order.

use s2dit_passes::channels_first::Options;
use s2dit_passes::pipelines::{self, Engine, Form, Writer};
use s2dit_passes::states::Place;
use s2dit_passes::{PASSES, PassPipeline, Property, split};

fn written(pipeline: &PassPipeline) -> String {
    pipeline.passes().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn clips() {
    const NAMED: &str = "canonicalize phase cse fuse fold-gate";
    let engine = "rope-heads pad-tokens cse channels-first(per-head) canonicalize decompose cse";
    let options = Engine { layout: Options { per_head: true, ..Options::default() }, ..Engine::default() };
    for (form, rest) in [
        (Form::Onnx21, "bound-softplus split-conv3d decompose-for-onnx21 cse".to_string()),
        (Form::Onnx23, "bound-softplus split-conv3d decompose-for-onnx23 cse".to_string()),
        (Form::OnnxFp16, "split-conv3d decompose cse precision-fp16-norms32".to_string()),
        (Form::Any, "decompose cse".to_string()),
        (Form::AnyFp16, "decompose cse precision-fp16".to_string()),
        (Form::Ane(options.clone()), engine.to_string()),
        (Form::AneFp16(options), format!("{engine} sums-as-products precision-fp16-only canonicalize")),
    ] {
        assert_eq!(written(&pipelines::clip(None, form.clone()).unwrap()), format!("{NAMED} {rest}"));
        let listed = written(&pipelines::clip(Some(&[1000.0, 750.5]), form).unwrap());
        assert_eq!(listed, format!("timesteps(1000,750.5) {NAMED} {rest}"));
    }
}

#[test]
fn streams() {
    let options = split::Options { window_frames: 3, sink_frames: 1, half_states: true, ..split::Options::default() };
    let options = split::Options { state_write: split::StateWrite::LastStep, ..options };
    let stream = pipelines::stream(Writer::Frontend, options, Some(&[1000.0]), Form::AnyFp16, Place::Native).unwrap();
    assert_eq!(
        written(&stream),
        "canonicalize cse split(window=3,sinks=1,last-step,half-states) timesteps(1000) canonicalize phase cse fuse fold-gate \
         decompose cse precision-fp16 states(native) canonicalize"
    );
    // Core ML's states are fp16 only.
    let fp32 = pipelines::stream(Writer::Frontend, split::Options::default(), None, Form::Any, Place::Native);
    assert!(fp32.unwrap_err().to_string().starts_with("pass `states` needs `fp16`"));
}

#[test]
fn a_pipeline_is_read_as_it_is_written() {
    for named in pipelines::every().unwrap() {
        let text = written(&named.pipeline);
        let passes: Vec<&str> = text.split(' ').collect();
        assert_eq!(written(&PassPipeline::new(&passes).unwrap()), text, "{}", named.name);
    }
    let text = "channels-first(per-head,apart,across-blocks,internal=a,internal=b) states(io) timesteps(0.5)";
    let passes: Vec<&str> = text.split(' ').collect();
    assert_eq!(written(&PassPipeline::new(&passes).unwrap()), text);
}

#[test]
fn names_are_unique_and_every_need_can_be_met() {
    let mut names: Vec<&str> = PASSES.iter().map(|pass| pass.name).collect();
    let mut pipelines: Vec<String> = pipelines::every().unwrap().into_iter().map(|named| named.name).collect();
    let count = names.len() + pipelines.len();
    names.extend(pipelines.iter().map(String::as_str));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    pipelines.dedup();
    for need in PASSES.iter().flat_map(|pass| pass.needs) {
        let met = Property::OF_A_MODEL.contains(need) || PASSES.iter().any(|pass| pass.establishes.contains(need));
        assert!(met, "{need}");
    }
    assert_eq!(Property::ALL.map(Property::name).len(), 10);
    assert_eq!(written(&pipelines::reference(None).unwrap()), "canonicalize phase cse fuse fold-gate decompose cse");
}
