//! An imported ONNX file as its own reference: ONNX Runtime runs the file that was brought, and none of what was read from it.

use anyhow::{Context, Result};
use s2dit_backends::onnx::read::Model;
use s2dit_models::checkpoint::Checkpoint;
use s2dit_runtime::{HostTensor, RunOptions, Session, SessionOptions};

use super::inputs::Tensors;

/// Name of the importer of ONNX files.
const ONNX: &str = "onnx";

/// What ONNX Runtime makes of inputs with the file of an imported graph, its results by the names that the graph has; `None` if it is no ONNX file, or
/// one that computes in less than fp32, whose own rounding would count as the artifact's.
///
/// # Errors
/// A file that ONNX Runtime does not take.
pub(super) fn run(checkpoint: &Checkpoint, inputs: &Tensors, options: &RunOptions) -> Result<Option<Tensors>> {
    let graph = checkpoint.model().graph().filter(|graph| graph.importer() == ONNX);
    let Some(graph) = graph else { return Ok(None) };
    let path = checkpoint.path();
    let narrow = Model::open(path)?.weights_by_dtype().keys().any(|dtype| matches!(dtype.as_str(), "f16" | "bf16"));
    let (names, results) = graph.names();
    if narrow {
        return Ok(None);
    }
    let options = SessionOptions { threads: options.threads.max(1), quiet: options.quiet, ..SessionOptions::default() };
    let mut session = Session::from_file(path, &options)?;
    // Names may differ from those in the file, where Core ML does not take them; the order is the same.
    let given = session.inputs().iter().zip(&names).map(|(port, name)| (port.name.clone(), name));
    let given: Vec<(String, &HostTensor)> = given.filter_map(|(port, name)| Some((port, inputs.get(*name)?))).collect();
    let given = given.into_iter().map(|(port, tensor)| (port, tensor.clone())).collect();
    let outputs: Vec<String> = session.outputs().iter().map(|port| port.name.clone()).collect();
    let mut made = session.run(&given).with_context(|| format!("cannot run `{}`", path.display()))?;
    let named =
        outputs.iter().zip(results).filter_map(|(output, result)| Some((result.to_owned(), made.remove(output)?)));
    Ok(Some(named.collect()))
}
