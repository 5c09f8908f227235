//! ONNX files of opsets 13 to 23, as PyTorch's exporters, ONNX Runtime's optimiser and this compiler write them.
//!
//! The [walk] reads nodes in order. Each op is read into plain tensor ops, where its operands are not known; shapes and what
//! is made of them are, since every size is. Floats of all types become f32: a graph that was exported in fp16 is computed more exactly than it was written.

mod inputs;
mod node;
mod ops;
mod scope;
mod tidy;
mod walk;
mod weights;

use std::path::Path;

use s2dit_backends::foreign::Foreign;
use s2dit_backends::onnx::proto::dtype_of;
use s2dit_backends::onnx::read::Model;
use s2dit_files::WeightStore;
use s2dit_files::problems::Problems;
use s2dit_ir::{DType, Module, Op};

use crate::{Ask, Importer, Read};
use walk::Walk;

/// The oldest and the newest version of the standard operator set that is read.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=23;

/// ONNX files.
#[derive(Debug)]
pub(crate) struct Onnx;

impl Importer for Onnx {
    fn name(&self) -> &'static str {
        "onnx"
    }

    fn reads(&self, path: &Path, _: &[u8]) -> bool {
        path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"))
            || matches!(Foreign::of(path), Ok(Some(Foreign::Onnx)))
    }

    fn read(&self, path: &Path, ask: &Ask) -> Result<Read, Problems> {
        let place = path.display().to_string();
        let model = Model::open(path).map_err(|error| Problems::one(&place, format!("{error:#}"), "an ONNX model"))?;
        let version = model.opsets().get("").copied().unwrap_or(1);
        if !OPSETS.contains(&version) {
            let expected = format!("{} to {} (onnx.version_converter changes it)", OPSETS.start(), OPSETS.end());
            return Err(Problems::one(place, format!("opset {version}"), expected));
        }
        let mut walk = Walk::new(&model)?;
        let params = inputs::declare(&mut walk, &model, ask, &place)?;
        let results = walk.run(params)?;
        inputs::give(&mut walk, results, &place)?;
        let Walk { t, mut weights, .. } = walk;
        let mut f = t.f;
        tidy::run(&mut f).map_err(|error| Problems::one(&place, error.0, "a graph that can be tidied"))?;
        f.remove_dead();
        let loaded: std::collections::HashSet<String> = f
            .values()
            .into_iter()
            .filter_map(|v| match f.op(v) {
                Op::Load(load) => Some(load.tensor.clone()),
                _ => None,
            })
            .collect();
        weights.keep(|name| loaded.contains(name));
        let (format, beside) = (model.format(), weights.beside());
        Ok(Read { module: Module::single(f), weights: WeightStore::of(Box::new(weights)), format, beside })
    }
}

/// The type of an attribute that names one.
fn proto_dtype(code: i64) -> Option<DType> {
    dtype_of(i32::try_from(code).ok()?)
}
