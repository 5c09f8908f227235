//! Lowered graphs to bytes: weights inline, as external data, or as references into files that exist.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail};
use prost::Message;
use s2dit_ir::weights::{Remembering, Written, sources};
use s2dit_ir::{Function, ValueId, WeightError, WeightSource};

use super::IR_VERSION;
use super::identity::Identity;
use super::lower::lower;
use super::proto::{GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, entries};
use super::stored::{Filler, Piece};
use crate::fill::{Place, fill, write_at};
use crate::held;
use crate::output::OutputError;

/// Up to this many bytes of weights the model is one file.
pub const INLINE_LIMIT: u64 = 32 << 20;
/// Tensors smaller than this stay in the model even if the others do not: ONNX Runtime wants shapes there.
pub(super) const SMALL: u64 = 1024;
/// Large tensors start at a page, so that a runtime can map them.
const PAGE: u64 = 4096;
/// The others at a cache line.
const LINE: u64 = 64;

/// The figures of a finished write.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Nodes of the graph.
    pub ops: usize,
    /// Weight tensors.
    pub weights: usize,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// Weights with NaN or infinite elements: (name, how many).
    pub non_finite: Vec<(String, u64)>,
    /// The file beside the models that has the weights, if they are not inside.
    pub location: Option<String>,
}

/// Writes functions as ONNX models, each to its path.
///
/// The weights of several functions, or more than [`INLINE_LIMIT`] of one, go to the file that `data` stages on demand, equal ones
/// once; the models refer to it by the name that `location` makes of the first digits of its [identity](super::identity).
/// `metadata` is asked for when the weights have been written, and goes into every model. `progress` gets bytes written and
/// bytes in all. Weights pass through in pieces: memory does not grow with their size.
///
/// # Errors
/// An op that ONNX cannot express, a weight that cannot be read or that its dtype cannot hold, a full disk.
pub fn write_models(
    models: &[(&Function, &Path)],
    source: &dyn WeightSource,
    metadata: impl FnOnce() -> BTreeMap<String, String>,
    data: impl FnOnce() -> Result<PathBuf, OutputError>,
    location: impl FnOnce(&str) -> String,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary, crate::Error> {
    write(models, source, metadata, data, location, progress).map_err(crate::Error::writing)
}

fn write(
    models: &[(&Function, &Path)],
    source: &dyn WeightSource,
    metadata: impl FnOnce() -> BTreeMap<String, String>,
    data: impl FnOnce() -> Result<PathBuf, OutputError>,
    location: impl FnOnce(&str) -> String,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    let source = &Remembering::new(source);
    let mut lowered = Vec::new();
    let mut sizes: HashMap<String, u64> = HashMap::new();
    for (f, _) in models {
        let l = lower(f, true, &[])?;
        sizes.extend(l.constants.iter().map(|c| (c.key(f), c.bytes(f))));
        lowered.push(l);
    }
    let total: u64 = sizes.values().sum();
    let mut summary = Summary {
        ops: lowered.iter().map(|l| l.graph.node.len()).sum(),
        weights: sizes.len(),
        weight_bytes: total,
        ..Summary::default()
    };
    let unwritten = || "cannot write the weights";
    let mut external = match models.len() > 1 || total > INLINE_LIMIT {
        true => Some(External::create(&data()?).with_context(unwritten)?),
        false => None,
    };
    let mut done = 0;
    let mut stored: HashMap<String, u64> = HashMap::new();
    let mut filler = Filler::default();
    // Constants that are written at the end, on every thread.
    let (mut places, mut names) = (Vec::new(), Vec::new());
    for ((f, _), l) in models.iter().zip(&mut lowered) {
        let function: &Function = f;
        for constant in &l.constants {
            let (name, v) = (&constant.name, constant.value);
            let mut tensor = constant.tensor(f);
            let bytes = constant.bytes(f);
            let key = constant.key(f);
            let written = match &mut external {
                Some(_) if stored.contains_key(&key) => {
                    refer(&mut tensor, "", stored[&key], bytes);
                    l.graph.initializer.push(tensor);
                    continue;
                }
                Some(out) if bytes >= SMALL => {
                    let offset = out.reserve(bytes);
                    // Where the data is, is known when all of it is.
                    refer(&mut tensor, "", offset, bytes);
                    stored.insert(key, offset);
                    if let Piece::Whole = constant.piece {
                        places.push(Place { function, value: v, at: offset });
                        names.push(name);
                        l.graph.initializer.push(tensor);
                        continue;
                    }
                    let mut buffer = Vec::with_capacity(bytes as usize);
                    let written = filler.write(f, constant, source, &mut buffer)?;
                    write_at(&out.file, &buffer, offset).with_context(unwritten)?;
                    written
                }
                _ => {
                    let mut buffer = Vec::with_capacity(bytes as usize);
                    let written = filler.write(f, constant, source, &mut buffer)?;
                    tensor.raw_data = buffer.into();
                    written
                }
            };
            note(f, name, v, bytes, &written, &mut summary)?;
            l.graph.initializer.push(tensor);
            done += bytes;
            progress(done.min(total), total);
        }
    }
    if let Some(out) = &external {
        // What is not written is zeros.
        out.file.set_len(out.end).with_context(unwritten)?;
        let written =
            fill(&out.file, &places, source, &|_, _| {}, &mut |bytes| progress((done + bytes).min(total), total));
        let written = written.map_err(|(_, error)| match error {
            WeightError::Io(e) => Error::new(e).context(unwritten()),
            e => Error::new(e),
        })?;
        for ((Place { function, value, .. }, name), written) in places.iter().zip(&names).zip(&written) {
            note(function, name, *value, function.ty(*value).bytes() as u64, written, &mut summary)?;
        }
    }
    let metadata = entries(&metadata());
    let mut protos: Vec<ModelProto> = lowered.into_iter().map(|l| model(l.graph, l.opset, metadata.clone())).collect();
    if let Some(out) = external {
        let identity = Identity::of(&protos);
        let location = location(&identity.short());
        for proto in &mut protos {
            relocate(proto, &location);
            proto.metadata_props.push(identity.entry(out.end));
            proto.metadata_props.sort_by(|a, b| a.key.cmp(&b.key));
        }
        write_at(&out.file, &identity.trailer(), out.end).with_context(unwritten)?;
        summary.location = Some(location);
    }
    for ((_, path), proto) in models.iter().zip(protos) {
        std::fs::write(path, proto.encode_to_vec()).context("cannot write the model")?;
    }
    summary.non_finite.sort();
    summary.non_finite.dedup();
    Ok(summary)
}

/// Checks what was written of an initializer, and notes what is not finite.
fn note(f: &Function, name: &str, v: ValueId, bytes: u64, written: &Written, summary: &mut Summary) -> Result<()> {
    if written.bytes != bytes && written.overflowed == 0 {
        bail!("tensor `{name}`: expected {bytes} bytes, found {}", written.bytes);
    }
    let shown = sources(f, v).unwrap_or_else(|| name.into());
    held::check(&shown, f.dtype(v), written, &mut summary.non_finite)
}

/// Names the file of a model's external data.
fn relocate(model: &mut ModelProto, location: &str) {
    for tensor in model.graph.iter_mut().flat_map(|g| &mut g.initializer) {
        for entry in tensor.external_data.iter_mut().filter(|e| e.key == LOCATION) {
            entry.value = location.into();
        }
    }
}

/// The key of the file's name among a tensor's external data.
const LOCATION: &str = "location";

/// Makes a tensor a reference to external data.
pub(super) fn refer(tensor: &mut TensorProto, location: &str, offset: u64, length: u64) {
    let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
    tensor.data_location = 1;
    tensor.external_data = vec![
        entry(LOCATION, location.into()),
        entry("offset", offset.to_string()),
        entry("length", length.to_string()),
    ];
}

pub(super) fn model(graph: GraphProto, opset: i64, metadata_props: Vec<StringStringEntryProto>) -> ModelProto {
    ModelProto {
        ir_version: IR_VERSION,
        producer_name: "s2ditc".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: opset }],
        metadata_props,
        graph: Some(graph),
        ..ModelProto::default()
    }
}

/// The external data file.
struct External {
    file: File,
    /// Where the next tensor may begin.
    end: u64,
}

impl External {
    /// Opens the file at `path`, which is new. It is not truncated: ext4 takes a truncated file for one that is being replaced, and puts it on
    /// the disk when it is closed (0.8 s for 3.6 GB).
    fn create(path: &Path) -> io::Result<External> {
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        Ok(External { file, end: 0 })
    }

    /// Sets aside room for a tensor; returns where it begins.
    fn reserve(&mut self, bytes: u64) -> u64 {
        let begin = self.end.next_multiple_of(if bytes >= PAGE { PAGE } else { LINE });
        self.end = begin + bytes;
        begin
    }
}
