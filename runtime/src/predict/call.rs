//! One call of a package.

use std::borrow::Cow;

use s2dit_backends::coreml::{Caller, Package};
use s2dit_backends::onnx::{self, MemoryOptions, WeightMode};
use s2dit_files::arrays::{Array, Arrays};
use s2dit_ir::{Function, Tensor, WeightSource};
use s2dit_passes::emulate::emulated;
use s2dit_passes::integers::widened;

use super::{Options, Plan, arithmetic, session_options};
use crate::{Error, ErrorKind, Session, SessionOptions};

/// A package and what it is called with.
pub(super) struct Call<'a> {
    pub package: &'a Package,
    pub options: &'a Options,
    pub inputs: &'a Arrays,
    pub states: &'a Arrays,
}

impl Call<'_> {
    fn value(&self, name: &str) -> Option<&Array> {
        self.inputs.get(name).or_else(|| self.states.get(name))
    }

    pub(super) fn run(&self, plan: &mut Plan) -> Result<Arrays, Error> {
        let Plan { session, given } = plan;
        session.run_arrays(|name| given.get(name).or_else(|| self.value(name)))
    }
}

impl Caller for Call<'_> {
    fn shape(&self, input: &str) -> Option<Vec<usize>> {
        self.inputs.get(input).map(|array| array.ty.shape.clone())
    }

    fn value(&self, name: &str) -> Option<Tensor> {
        Call::value(self, name).map(Array::tensor)
    }

    fn evaluate(
        &self,
        f: &Function,
        given: &[(String, Tensor)],
    ) -> Result<Vec<Tensor>, Box<dyn std::error::Error + Send + Sync>> {
        let given = given.iter().map(|(name, value)| (name.clone(), Array::of(value))).collect();
        let mut plan = Plan { session: session(f, self.package, self.options)?, given };
        let mut found = self.run(&mut plan)?;
        Ok(f.results.iter().filter_map(|(name, _)| found.remove(name).map(|array| array.tensor())).collect())
    }
}

/// Loads a function into ONNX Runtime; weights stay in their files.
pub(super) fn session(f: &Function, weights: &dyn WeightSource, options: &Options) -> Result<Session, Error> {
    let unsupported = |error: s2dit_ir::OpError| Error::new(ErrorKind::Unsupported, error.into());
    let emulated: Cow<Function> = emulated(f, arithmetic(options)).map_err(unsupported)?;
    let wide = widened(&emulated).map_err(unsupported)?;
    let memory = MemoryOptions { weights: WeightMode::Reference, outputs: Vec::new() };
    let model = onnx::model_in_memory(&wide, weights, &memory)?;
    let options = SessionOptions { keep_weights_mapped: !options.weights_in_memory, ..session_options(options) };
    Session::from_bytes(&model.bytes, model.folder.as_deref(), &options)
}
