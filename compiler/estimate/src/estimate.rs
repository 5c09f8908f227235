//! The estimate of a subject on a device.

use std::collections::BTreeMap;

use s2dit_ir::Function;
use serde::Serialize;

use crate::device::{Case, Device, Rates};
use crate::memory::{self, Stored};
use crate::range::Range;
use crate::subject::{Callable, Subject};
use crate::time::{Bound, Spent};
use crate::work::{Kind, Work, works};

/// An estimate.
#[derive(Clone, Debug, Serialize)]
pub struct Estimate {
    /// What was estimated.
    pub subject: About,
    /// The device.
    pub device: String,
    /// A denoising step.
    pub step_ms: Range,
    /// A chunk of a stream, or a whole clip: every call of the transformer, and what the caller added for text encoder and decoder.
    pub chunk_ms: Range,
    /// Frames of video a second; `None` if nobody says how many frames a chunk becomes.
    pub frames_per_second: Option<Range>,
    /// Frames of video that a chunk becomes.
    pub frames_per_chunk: Option<usize>,
    /// Milliseconds a chunk outside of the transformer, as the caller said.
    pub other_ms: f64,
    /// Bytes at the largest moment, if everything stays loaded.
    pub peak_memory_bytes: u64,
    /// Memory by what it is for, and by what stays loaded.
    pub memory: Memory,
    /// Bytes to download: of a file its size, of a model that is not compiled yet its weights and ops.
    pub package_bytes: u64,
    /// Seconds until the first call, for a package that the phone must compile.
    pub first_load_s: Range,
    /// What most of a step is spent on.
    pub bound_by: Bound,
    /// Milliseconds of a step by what they are spent on, in the likely case.
    pub spent_ms: BTreeMap<&'static str, f64>,
    /// Functions, the denoising step first.
    pub functions: Vec<FunctionEstimate>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// What was estimated.
#[derive(Clone, Debug, Serialize)]
pub struct About {
    /// A file, folder or preset.
    pub name: String,
    /// `configuration`, `checkpoint`, `package`, `pipeline` or `kernel`.
    pub what: &'static str,
    /// The model's family and its layers.
    pub model: Option<String>,
    /// Size of the latent.
    pub latent: Option<String>,
    /// Storage of the weights.
    pub weights: String,
    /// Whether chunks follow each other.
    pub streams: bool,
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// Weights of everything that is loaded, equal ones once where functions share a package.
    pub weights: u64,
    /// States that the model keeps, and what the function with most inputs is given: states that the host carries are among them.
    pub inputs: u64,
    /// Activations and results of the function that has most.
    pub activations: u64,
    /// All of these: every function stays loaded.
    pub all_loaded: u64,
    /// The most if each function is loaded for its call and then dropped, as it takes a load a call.
    pub one_at_a_time: u64,
}

/// A function.
#[derive(Clone, Debug, Serialize)]
pub struct FunctionEstimate {
    /// Name of the function.
    pub name: String,
    /// Calls a chunk; 0 for once a prompt.
    pub calls: usize,
    /// Packages that it is spread over.
    pub packages: usize,
    /// Ops that run.
    pub ops: usize,
    /// Operations of products.
    pub flops: u64,
    /// A call.
    pub ms: Range,
    /// What most of it is spent on.
    pub bound_by: Bound,
    /// Blocks and other parts, in the order in which they begin.
    pub parts: Vec<PartEstimate>,
    /// Kinds of ops, the longest first.
    pub kinds: Vec<OpKind>,
    /// The ops that take longest, one by one.
    pub slowest: Vec<SlowOp>,
}

/// An op.
#[derive(Clone, Debug, Serialize)]
pub struct SlowOp {
    /// The op.
    pub op: &'static str,
    /// Module path, or the value's name in a package of another tool.
    pub name: String,
    /// Type of its result.
    pub ty: String,
    /// Its time in a call.
    pub ms: Range,
    /// What most of it is spent on.
    pub bound_by: Bound,
}

/// So many of the slowest ops are told.
const SLOWEST: usize = 40;

/// A block, or a part of the model outside of blocks.
#[derive(Clone, Debug, Serialize)]
pub struct PartEstimate {
    /// Module path.
    pub name: String,
    /// Kind of the block, if it is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Ops that run.
    pub ops: usize,
    /// Operations of products.
    pub flops: u64,
    /// Bytes of weights and tables that its ops read.
    pub weight_bytes: u64,
    /// Time of a call.
    pub ms: Range,
    /// What most of it is spent on.
    pub bound_by: Bound,
    /// Milliseconds by what they are spent on, in the likely case.
    pub spent_ms: BTreeMap<&'static str, f64>,
}

/// Ops of one type.
#[derive(Clone, Debug, Serialize)]
pub struct OpKind {
    /// The op.
    pub op: &'static str,
    /// How many run.
    pub ops: usize,
    /// Their time in a call.
    pub ms: Range,
}

/// Bytes of an op in a package beside its weights: names, types, parameters. Packages of this compiler have 640 to 700.
const BYTES_OF_OP: u64 = 670;

/// Estimates a subject on a device. `other_ms` is what a chunk takes outside of the transformer.
#[must_use]
pub fn estimate(subject: &Subject, device: &Device, other_ms: f64) -> Estimate {
    let rates = Case::ALL.map(|case| device.figures.at(case));
    let mut functions = Vec::new();
    let mut spent = Spent::default();
    for callable in &subject.functions {
        let (made, likely) = function(callable, subject, &rates);
        if functions.is_empty() {
            spent = likely;
        }
        functions.push(made);
    }
    let chunk = functions.iter().map(|f| f.ms * f.calls as f64).sum::<Range>() + Range::exactly(other_ms);
    let memory = memory_of(subject);
    let ops: usize = functions.iter().map(|f| f.ops).sum();
    let stored = total(&all_weights(subject));
    let mut notes = subject.notes.clone();
    if other_ms == 0.0 {
        notes.push("text encoder and decoder are not counted: say what they take with --other-ms".into());
    }
    Estimate {
        subject: About {
            name: subject.name.clone(),
            what: subject.what,
            model: subject.model.clone(),
            latent: subject.latent.clone(),
            weights: subject.weights.clone(),
            streams: subject.streams,
        },
        device: device.name.clone(),
        step_ms: functions.first().map(|f| f.ms).unwrap_or_default(),
        chunk_ms: chunk,
        frames_per_second: subject.frames.map(|frames| chunk.falling(|ms| 1e3 * frames as f64 / ms.max(1e-9))),
        frames_per_chunk: subject.frames,
        other_ms,
        peak_memory_bytes: memory.all_loaded,
        memory,
        package_bytes: subject.bytes_on_disk.unwrap_or(stored + BYTES_OF_OP * ops as u64),
        first_load_s: Range {
            low: rates[0].compile_ms_per_op,
            likely: rates[1].compile_ms_per_op,
            high: rates[2].compile_ms_per_op,
        } * (1e-3 * ops as f64),
        bound_by: spent.bound(),
        spent_ms: by_name(&spent),
        functions,
        notes,
    }
}

fn by_name(spent: &Spent) -> BTreeMap<&'static str, f64> {
    Bound::ALL.into_iter().map(|bound| (bound.name(), 1e3 * spent.on(bound))).collect()
}

/// Time of the three cases, and what the likely one is spent on.
#[derive(Clone, Copy, Default)]
struct Tally {
    ms: Range,
    likely: Spent,
}

impl Tally {
    fn add(&mut self, rates: &[Rates; 3], work: &Work) {
        let [best, likely, worst] = [0, 1, 2].map(|case| rates[case].spent(work));
        self.ms += Range { low: best.total(), likely: likely.total(), high: worst.total() } * 1e3;
        self.likely.add_all(&likely, 1.0);
    }
}

/// What the work of a block, or of a part outside of blocks, adds up to.
#[derive(Default)]
struct Part<'a> {
    name: &'a str,
    block: Option<usize>,
    tally: Tally,
    ops: usize,
    flops: u64,
    weight_bytes: u64,
}

fn function(callable: &Callable, subject: &Subject, rates: &[Rates; 3]) -> (FunctionEstimate, Spent) {
    let all: Vec<Work> = callable.parts.iter().flat_map(|f| works(f, &subject.interface)).collect();
    let mut whole = Tally::default();
    let mut parts: Vec<Part<'_>> = Vec::new();
    let mut kinds: BTreeMap<&'static str, (usize, Tally)> = BTreeMap::new();
    for work in all.iter().filter(|work| work.kind != Kind::View) {
        whole.add(rates, work);
        let kind = kinds.entry(work.op).or_default();
        kind.0 += 1;
        kind.1.add(rates, work);
        let at = parts.iter().position(|part| part.name == work.part).unwrap_or_else(|| {
            parts.push(Part { name: &work.part, block: work.block, ..Part::default() });
            parts.len() - 1
        });
        let part = &mut parts[at];
        part.tally.add(rates, work);
        part.ops += 1;
        part.flops += work.flops;
        part.weight_bytes += work.weights.whole + work.weights.packed;
    }
    let cuts = callable.parts.len().saturating_sub(1) as f64;
    let call = |rates: &Rates| 1e-3 * (rates.dispatch_us + cuts * rates.cut_us);
    let calls = Range { low: call(&rates[0]), likely: call(&rates[1]), high: call(&rates[2]) };
    whole.likely.add(Bound::Dispatch, 1e-3 * calls.likely);
    let mut kinds: Vec<OpKind> = kinds.into_iter().map(|(op, (ops, tally))| OpKind { op, ops, ms: tally.ms }).collect();
    kinds.sort_by(|a, b| b.ms.likely.total_cmp(&a.ms.likely));
    let parts = parts.into_iter().map(|part| PartEstimate {
        name: part.name.into(),
        kind: part.block.and_then(|block| subject.kinds.get(block)).cloned().unwrap_or_default(),
        ops: part.ops,
        flops: part.flops,
        weight_bytes: part.weight_bytes,
        ms: part.tally.ms,
        bound_by: part.tally.likely.bound(),
        spent_ms: by_name(&part.tally.likely),
    });
    let mut slowest: Vec<SlowOp> =
        all.iter().filter(|work| work.kind != Kind::View).map(|work| slow(work, rates)).collect();
    slowest.sort_by(|a, b| b.ms.likely.total_cmp(&a.ms.likely));
    slowest.truncate(SLOWEST);
    let made = FunctionEstimate {
        name: callable.name.clone(),
        calls: callable.calls,
        packages: callable.parts.len(),
        ops: all.iter().filter(|work| work.kind != Kind::View).count(),
        flops: all.iter().map(|work| work.flops).sum(),
        ms: whole.ms + calls,
        bound_by: whole.likely.bound(),
        parts: parts.collect(),
        kinds,
        slowest,
    };
    (made, whole.likely)
}

fn slow(work: &Work, rates: &[Rates; 3]) -> SlowOp {
    let mut tally = Tally::default();
    tally.add(rates, work);
    let (name, ty) = (work.name.clone(), work.ty.clone());
    SlowOp { op: work.op, name, ty, ms: tally.ms, bound_by: tally.likely.bound() }
}

fn weights_of(callable: &Callable) -> Stored {
    callable.parts.iter().flat_map(memory::weights).collect()
}

fn all_weights(subject: &Subject) -> Stored {
    subject.functions.iter().flat_map(weights_of).collect()
}

fn total(stored: &Stored) -> u64 {
    stored.values().sum()
}

fn memory_of(subject: &Subject) -> Memory {
    let (mut inputs, mut activations, mut alone, mut apart) = (0, 0, 0, 0);
    for f in &subject.functions {
        let most = |of: fn(&Function) -> u64| f.parts.iter().map(of).max().unwrap_or_default();
        let (weights, given, computed) = (total(&weights_of(f)), most(memory::inputs), most(memory::activations));
        (inputs, activations) = (inputs.max(given), activations.max(computed));
        alone = alone.max(weights + given + computed);
        apart += weights;
    }
    let weights = if subject.separate { apart } else { total(&all_weights(subject)) };
    let inputs = inputs + subject.state_bytes;
    Memory {
        weights,
        inputs,
        activations,
        all_loaded: weights + inputs + activations,
        one_at_a_time: alone + subject.state_bytes,
    }
}
