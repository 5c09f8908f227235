//! tract: an ONNX engine written independently in Rust, for a second opinion.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use tract_onnx::prelude::*;

use crate::error::refuse;
use crate::{Error, HostTensor};

/// Runs an ONNX file whose inputs are f32, and returns its outputs and `probes`.
///
/// # Errors
/// An op or dtype that tract lacks; inputs that do not fit.
pub fn run(
    path: &Path,
    inputs: &BTreeMap<String, HostTensor>,
    probes: &[String],
) -> Result<BTreeMap<String, HostTensor>, Error> {
    run_once(path, inputs, probes).map_err(Error::engine)
}

fn run_once(
    path: &Path,
    inputs: &BTreeMap<String, HostTensor>,
    probes: &[String],
) -> Result<BTreeMap<String, HostTensor>> {
    let shown = path.display();
    let mut model = onnx().model_for_path(path).with_context(|| format!("tract cannot load `{shown}`"))?;
    let names = |model: &InferenceModel, outlets: &[OutletId]| -> Vec<String> {
        outlets.iter().map(|o| model.outlet_label(*o).unwrap_or(&model.node(o.node).name).to_string()).collect()
    };
    let mut outputs = names(&model, model.output_outlets()?);
    if !probes.is_empty() {
        outputs.extend(probes.iter().filter(|p| !outputs.contains(p)).cloned().collect::<Vec<_>>());
        model.select_outputs_by_name(&outputs).with_context(|| format!("tract finds no such values in `{shown}`"))?;
    }
    let mut values: TVec<TValue> = tvec!();
    for name in names(&model, model.input_outlets()?) {
        let Some(t) = inputs.get(&name) else { refuse!(Input, "input `{name}`: missing") };
        let tensor = Tensor::from_shape(&t.shape, &t.data).map_err(|e| Error::input(anyhow!("input `{name}`: {e}")))?;
        values.push(tensor.into());
    }
    let model = model.into_optimized().with_context(|| format!("tract cannot prepare `{shown}`"))?.into_runnable()?;
    let results = model.run(values).with_context(|| format!("tract cannot run `{shown}`"))?;
    let mut out = BTreeMap::new();
    for (name, value) in outputs.into_iter().zip(results) {
        let value = value.cast_to::<f32>().with_context(|| format!("output `{name}`"))?;
        let view = value.to_plain_array_view::<f32>().map_err(|e| anyhow!("output `{name}`: {e}"))?;
        let data = view.iter().copied().collect();
        out.insert(name, HostTensor { shape: value.shape().to_vec(), data });
    }
    Ok(out)
}
