//! Every order of passes of the product.
//!
//! Formulas are named first, whatever way they were written, and taken apart again into the tensor ops that the backends lower: between `fuse`
//! and `decompose` is the place of passes that work on composites. Precision comes after both: its islands are made of tensor ops.
//!
//! The Neural Engine accumulates norms wider than fp16 but stores each result in fp16, and an fp32 op leaves it: so for Core ML norms
//! stay fp16, for ONNX Runtime they do not.

use crate::channels_first::{self, Options};
use crate::lowerings::Lowerings;
use crate::pass::Pass;
use crate::pipeline::{OrderError, PassPipeline};
use crate::precision::{FP16, FP16_FORMULAS, FP16_NORMS32, FP16_ONLY};
use crate::states::{self, Place};
use crate::{
    bound, canonicalize, cse, decompose, fold_gate, fuse, half_weights, pad_tokens, phase, rope_heads, rope_tables,
    slices_of_rows, split, split_conv, square_free_norms, sums_as_products, timesteps, widen,
};

macro_rules! passes {
    ($($pass:expr),* $(,)?) => { vec![$(Pass::from($pass)),*] };
}

/// The form in which a target gets a graph.
#[derive(Clone, Debug)]
pub enum Form {
    /// fp32 for ONNX Runtime, with the ops of opset 21. Some composites stay: it runs them several times as fast as their parts.
    Onnx21,
    /// The same with the ops of opset 23.
    Onnx23,
    /// fp16 for ONNX Runtime.
    OnnxFp16,
    /// fp32 for any engine of Core ML: the graph as PyTorch has it.
    Any,
    /// The same in fp16.
    AnyFp16,
    /// fp32 in the layout of the Neural Engine.
    Ane(Engine),
    /// fp16 for the Neural Engine.
    AneFp16(Engine),
    /// fp32 for Core AI: the graph as PyTorch has it, with the formulas that devices know by name.
    CoreAi,
    /// The same in fp16.
    CoreAiFp16,
    /// fp32 for Core AI with weights of fp16 numbers.
    CoreAiHalfWeights,
}

/// How the Neural Engine gets a graph.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    /// Choices of the layout; norms and the working set are those of the lowerings.
    pub layout: Options,
    /// What a device asks for.
    pub lowerings: Lowerings,
}

impl Engine {
    fn passes(self) -> Vec<Pass> {
        let Engine { layout, lowerings } = self;
        let compressed = layout.apart;
        let layout = Options { norms: lowerings.norms, working_set: lowerings.apart_beyond, ..layout };
        let mut passes = passes![
            &rope_heads::PASS,
            &pad_tokens::PASS,
            &cse::PASS,
            channels_first::pass(layout),
            &canonicalize::PASS,
            &decompose::PASS,
            &cse::PASS
        ];
        passes.extend(lowerings.passes(compressed));
        passes
    }
}

/// The passes that put a graph into a form.
fn lowering(form: Form) -> Vec<Pass> {
    let mut passes = passes![&canonicalize::PASS, &phase::PASS, &cse::PASS, &fuse::PASS, &fold_gate::PASS];
    passes.extend(match form {
        Form::Onnx21 => passes![&bound::PASS, &split_conv::PASS, &decompose::FOR_ONNX21, &cse::PASS],
        Form::Onnx23 => passes![&bound::PASS, &split_conv::PASS, &decompose::FOR_ONNX23, &cse::PASS],
        Form::OnnxFp16 => passes![&split_conv::PASS, &decompose::PASS, &cse::PASS, &FP16_NORMS32],
        Form::Any => passes![&decompose::PASS, &cse::PASS],
        Form::AnyFp16 => passes![&decompose::PASS, &cse::PASS, &FP16],
        Form::CoreAi => passes![&decompose::FOR_COREAI, &cse::PASS],
        Form::CoreAiFp16 => passes![&decompose::FOR_COREAI, &cse::PASS, &FP16_FORMULAS],
        Form::CoreAiHalfWeights => passes![&decompose::FOR_COREAI, &cse::PASS, &half_weights::PASS],
        Form::Ane(engine) => engine.passes(),
        Form::AneFp16(engine) => {
            [engine.passes(), passes![&sums_as_products::PASS, &FP16_ONLY, &canonicalize::PASS]].concat()
        }
    });
    passes
}

/// The passes of a clip; with `listed`, of one for these timesteps.
///
/// # Errors
/// Passes in an order in which they cannot run: a defect.
pub fn clip(listed: Option<&[f64]>, form: Form) -> Result<PassPipeline, OrderError> {
    let tables = listed.map(timesteps::pass);
    PassPipeline::of_model(tables.into_iter().chain(lowering(form)).collect())
}

/// Who wrote the graph of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A frontend of ours: formulas have the one form that the split looks for, and tables of rotations are formulas.
    Frontend,
    /// Somebody else: formulas are found first, and written anew.
    Exporter,
}

/// The passes of a stream, from the graph of one chunk to the functions of a kernel.
///
/// # Errors
/// See [`clip`].
pub fn stream(
    writer: Writer,
    options: split::Options,
    listed: Option<&[f64]>,
    form: Form,
    place: Place,
) -> Result<PassPipeline, OrderError> {
    let mut passes = passes![&canonicalize::PASS, &cse::PASS];
    if writer == Writer::Exporter {
        passes.extend(passes![&phase::PASS, &fuse::PASS, &rope_tables::PASS, &decompose::PASS, &cse::PASS]);
    }
    passes.push(split::pass(options));
    passes.extend(listed.map(timesteps::pass));
    passes.extend(lowering(form));
    passes.extend(passes![states::pass(place), &canonicalize::PASS]);
    PassPipeline::of_model(passes)
}

/// The passes of a decoder: of a whole clip, or of the functions of a stream whose states have a `place`. Its graph has the layout of the Neural Engine as the
/// model writes it, and other engines gain nothing from another.
///
/// # Errors
/// See [`clip`].
pub fn decoder(form: &Form, place: Option<Place>) -> Result<PassPipeline, OrderError> {
    let mut passes = passes![&canonicalize::PASS, &cse::PASS, &fuse::PASS];
    passes.extend(match form {
        Form::Onnx21 => passes![&decompose::FOR_ONNX21, &cse::PASS],
        Form::Onnx23 => passes![&decompose::FOR_ONNX23, &cse::PASS],
        Form::OnnxFp16 | Form::CoreAiFp16 => passes![&decompose::PASS, &cse::PASS, &FP16_NORMS32],
        Form::Any | Form::CoreAi | Form::Ane(_) => passes![&square_free_norms::PASS, &decompose::PASS, &cse::PASS],
        Form::CoreAiHalfWeights => {
            passes![&square_free_norms::PASS, &decompose::PASS, &cse::PASS, &half_weights::PASS]
        }
        Form::AnyFp16 => {
            passes![&square_free_norms::PASS, &decompose::PASS, &cse::PASS, &FP16_ONLY, &canonicalize::PASS]
        }
        Form::AneFp16(engine) => {
            let mut passes = passes![&square_free_norms::PASS, &decompose::PASS, &cse::PASS];
            if engine.lowerings.rows {
                passes.extend(passes![&slices_of_rows::PASS]);
            }
            passes.extend(passes![&sums_as_products::PASS, &FP16_ONLY, &canonicalize::PASS]);
            passes
        }
    });
    passes.extend(place.map(states::pass));
    passes.extend(passes![&canonicalize::PASS]);
    PassPipeline::of_decoder(passes, place.is_some())
}

/// The passes of the fp32 graph that compressed weights are judged by, before they are compressed.
///
/// # Errors
/// See [`clip`].
pub fn reference(listed: Option<&[f64]>) -> Result<PassPipeline, OrderError> {
    clip(listed, Form::Any)
}

/// The passes of a finished package's graph, before its formulas are recognised.
///
/// # Errors
/// See [`clip`].
pub fn recognition() -> Result<PassPipeline, OrderError> {
    PassPipeline::of_graph(passes![&widen::PASS, &canonicalize::PASS, &cse::PASS])
}

/// A pipeline by its name.
#[derive(Clone, Debug)]
pub struct Named {
    /// Name on the command line.
    pub name: String,
    /// A line that says what it makes.
    pub doc: String,
    /// The passes.
    pub pipeline: PassPipeline,
}

/// Every pipeline, for any timestep and with the default options.
///
/// # Errors
/// See [`clip`].
pub fn every() -> Result<Vec<Named>, OrderError> {
    let forms = [
        ("onnx-fp32-opset21", "ONNX in fp32, opset 21", Form::Onnx21),
        ("onnx-fp32-opset23", "ONNX in fp32, opset 23", Form::Onnx23),
        ("onnx-fp16", "ONNX in fp16", Form::OnnxFp16),
        ("coreml-any-fp32", "Core ML in fp32, any engine", Form::Any),
        ("coreml-any-fp16", "Core ML in fp16, any engine", Form::AnyFp16),
        ("coreml-ane-fp32", "Core ML in fp32, in the layout of the Neural Engine", Form::Ane(Engine::default())),
        ("coreml-ane-fp16", "Core ML in fp16, for the Neural Engine", Form::AneFp16(Engine::default())),
        ("coreai-fp32", "Core AI in fp32", Form::CoreAi),
        ("coreai-fp16", "Core AI in fp16", Form::CoreAiFp16),
        ("coreai-fp16-weights", "Core AI in fp32 with fp16 weights", Form::CoreAiHalfWeights),
    ];
    let mut every = Vec::new();
    let mut put = |name: String, doc: String, pipeline: PassPipeline| every.push(Named { name, doc, pipeline });
    for (name, doc, form) in &forms {
        put(format!("clip-{name}"), format!("a clip: {doc}"), clip(None, form.clone())?);
    }
    for (name, doc, form) in forms {
        let half_states = matches!(form, Form::OnnxFp16 | Form::AnyFp16 | Form::AneFp16(_) | Form::CoreAiFp16);
        let options = split::Options { half_states, ..split::Options::default() };
        let of = |writer| stream(writer, options.clone(), None, form.clone(), Place::Io);
        put(format!("stream-{name}"), format!("a stream: {doc}"), of(Writer::Frontend)?);
        put(format!("graph-stream-{name}"), format!("a stream of an imported graph: {doc}"), of(Writer::Exporter)?);
    }
    for (name, doc, form) in [
        ("onnx-fp32", "ONNX in fp32", Form::Onnx23),
        ("onnx-fp16", "ONNX in fp16", Form::OnnxFp16),
        ("coreml-fp32", "Core ML in fp32", Form::Any),
        ("coreml-fp16", "Core ML in fp16", Form::AnyFp16),
    ] {
        put(format!("decoder-{name}"), format!("a decoder: {doc}"), decoder(&form, None)?);
        put(format!("decoder-stream-{name}"), format!("a decoder's stream: {doc}"), decoder(&form, Some(Place::Io))?);
    }
    put("reference".into(), "a checkpoint in fp32: what compressed weights are judged by".into(), reference(None)?);
    put("recognition".into(), "a finished package: what `inspect` looks for formulas in".into(), recognition()?);
    Ok(every)
}
