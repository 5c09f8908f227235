//! Lowered graphs to bytes: weights inline, as external data, or as references into files that exist.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail};
use prost::Message;
use s2dit_ir::weights::{Written, loaded_tensor, write_constant};
use s2dit_ir::{Function, ValueId, WeightError, WeightSource};

use super::lower::{Lowered, Round, lower};
use super::proto::{
    GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, data_type, entries,
};
use super::{IR_VERSION, OPSET};

/// Up to this many bytes of weights the model is one file.
pub const INLINE_LIMIT: u64 = 32 << 20;
/// Tensors smaller than this stay in the model even if the others do not: ONNX Runtime wants shapes there.
pub(super) const SMALL: u64 = 1024;
/// Large tensors start at a page, so that a runtime can map them.
const PAGE: u64 = 4096;
/// The others at a cache line.
const LINE: u64 = 64;

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Nodes of the graph.
    pub ops: usize,
    /// Weight tensors.
    pub weights: usize,
    /// Their bytes.
    pub weight_bytes: u64,
    /// Weights with NaN or infinite elements: (name, how many).
    pub non_finite: Vec<(String, u64)>,
}

/// Writes a function as an ONNX model to `model`.
///
/// If the weights are more than [`INLINE_LIMIT`], they go to the file that `data` stages on demand, and the model refers to
/// it as `location`. `metadata` is asked for when the weights have been written. `progress` gets bytes written and bytes in
/// all. Weights pass through in pieces: memory does not grow with their size.
///
/// # Errors
/// An op that ONNX cannot express, a weight that cannot be read or that its dtype cannot hold, a full disk.
pub fn write_model(
    f: &Function,
    source: &dyn WeightSource,
    metadata: impl FnOnce() -> BTreeMap<String, String>,
    model: &Path,
    data: impl FnOnce() -> Result<PathBuf>,
    location: &str,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    let Lowered { mut graph, constants } = lower(f, Round::AsTyped, true, &[])?;
    let total: u64 = constants.iter().map(|(_, v)| f.ty(*v).bytes() as u64).sum();
    let mut summary =
        Summary { ops: graph.node.len(), weights: constants.len(), weight_bytes: total, non_finite: Vec::new() };
    let unwritten = || format!("cannot write the weights to `{location}`");
    let mut external = match total > INLINE_LIMIT {
        true => Some(External::create(&data()?).with_context(unwritten)?),
        false => None,
    };
    let mut done = 0;
    for (name, v) in &constants {
        let mut tensor = tensor(f, name, *v);
        let bytes = f.ty(*v).bytes() as u64;
        let written = match &mut external {
            Some(out) if bytes >= SMALL => {
                let offset = out.align(if bytes >= PAGE { PAGE } else { LINE }).with_context(unwritten)?;
                refer(&mut tensor, location, offset, bytes);
                let written = write_constant(f, *v, source, out);
                written.map_err(|e| match e {
                    WeightError::Io(e) => Error::new(e).context(unwritten()),
                    e => Error::new(e),
                })?
            }
            _ => write_constant(f, *v, source, &mut tensor.raw_data)?,
        };
        if written.bytes != bytes {
            bail!("tensor `{name}`: expected {bytes} bytes, found {}", written.bytes);
        }
        note_non_finite(f, name, *v, &written, &mut summary)?;
        graph.initializer.push(tensor);
        done += bytes;
        progress(done, total);
    }
    if let Some(mut out) = external {
        out.flush().with_context(unwritten)?;
    }
    let bytes = encode(graph, entries(&metadata()));
    std::fs::write(model, bytes).context("cannot write the model")?;
    Ok(summary)
}

fn note_non_finite(f: &Function, name: &str, v: ValueId, written: &Written, summary: &mut Summary) -> Result<()> {
    let shown = loaded_tensor(f, v).unwrap_or(name);
    if written.overflowed > 0 {
        bail!(
            "tensor `{shown}`: found {} finite element(s) that {} cannot hold; expected all in its range, or --precision fp32",
            written.overflowed,
            f.dtype(v)
        );
    }
    if written.non_finite > 0 {
        summary.non_finite.push((shown.to_string(), written.non_finite));
    }
    Ok(())
}

pub(super) fn tensor(f: &Function, name: &str, v: ValueId) -> TensorProto {
    let ty = f.ty(v);
    TensorProto {
        dims: ty.shape.iter().map(|d| *d as i64).collect(),
        data_type: data_type(ty.dtype),
        name: name.into(),
        ..TensorProto::default()
    }
}

/// Makes a tensor a reference to external data.
pub(super) fn refer(tensor: &mut TensorProto, location: &str, offset: u64, length: u64) {
    let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
    tensor.data_location = 1;
    tensor.external_data = vec![
        entry("location", location.into()),
        entry("offset", offset.to_string()),
        entry("length", length.to_string()),
    ];
}

pub(super) fn encode(graph: GraphProto, metadata_props: Vec<StringStringEntryProto>) -> Vec<u8> {
    ModelProto {
        ir_version: IR_VERSION,
        producer_name: "s2ditc".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        metadata_props,
        graph: Some(graph),
        ..ModelProto::default()
    }
    .encode_to_vec()
}

/// The external data file.
struct External {
    out: BufWriter<File>,
    at: u64,
}

impl External {
    fn create(path: &Path) -> io::Result<External> {
        Ok(External { out: BufWriter::with_capacity(1 << 20, File::create(path)?), at: 0 })
    }

    /// Zeros up to the next multiple of `to`; returns where that is.
    fn align(&mut self, to: u64) -> io::Result<u64> {
        let gap = self.at.next_multiple_of(to) - self.at;
        self.write_all(&vec![0; gap as usize])?;
        Ok(self.at)
    }
}

impl Write for External {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.at += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
