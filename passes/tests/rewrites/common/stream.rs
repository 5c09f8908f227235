//! A host for the functions of a split network, in float64: states, inputs that count chunks, the prompt.

use std::collections::BTreeMap;

use s2dit_ir::interp::{self, Bindings, evaluate};
use s2dit_ir::weights::NoWeights;
use s2dit_ir::{DType, Function, Module, Tensor, TensorType, WeightSource};
use s2dit_passes::split::{EMPTY, HostInput, Kernel};

/// Named tensors.
pub type Values = Vec<(String, Tensor)>;

/// What a stream carries between its chunks, as the host and the states hold it.
pub struct Stream<'k> {
    pub module: &'k Module,
    pub kernel: &'k Kernel,
    pub states: BTreeMap<String, Tensor>,
    pub prompt: Values,
    pub chunks: usize,
    pub frames: usize,
}

impl<'k> Stream<'k> {
    /// A stream that begins, after its prompt, of which it takes what it knows. Chunks have `frames` frames.
    pub fn new(
        module: &'k Module,
        kernel: &'k Kernel,
        frames: usize,
        given: &[(&str, Tensor)],
        weights: &dyn WeightSource,
    ) -> Self {
        let states = module.states.iter().map(|s| (s.name.clone(), Tensor::splat(&s.ty, 0.0))).collect();
        let mut stream = Stream { module, kernel, states, prompt: Vec::new(), chunks: 0, frames };
        let prompt = module.function("prompt").unwrap();
        let taken = given.iter().filter(|(name, _)| prompt.by_name(name).is_some());
        let params = taken.map(|(name, value)| (name.to_string(), value.clone())).collect();
        let bindings = Bindings { params, ..Bindings::default() };
        stream.prompt = interp::effects(prompt, weights, &bindings).unwrap().results;
        stream
    }

    /// The results of a function on a chunk; the states are updated.
    pub fn run(&mut self, function: &str, own: &[(&str, Tensor)], weights: &dyn WeightSource) -> Values {
        let f = self.module.function(function).unwrap();
        let mut bindings = Bindings::default();
        for &p in f.params() {
            let name = f.node(p).name.as_deref().unwrap();
            let host = self.kernel.host_inputs.iter().find(|(host, _)| host == name);
            let value = match (own.iter().find(|(n, _)| *n == name), self.prompt.iter().find(|(n, _)| n == name), host)
            {
                (Some((_, value)), ..) | (_, Some((_, value)), _) => value.clone(),
                (.., Some((_, host))) => self.host(host, f.ty(p)),
                _ => panic!("parameter {name}"),
            };
            bindings.params.insert(name.into(), value);
        }
        bindings.states = self.states.clone().into_iter().collect();
        let made = interp::effects(f, weights, &bindings).unwrap();
        self.states.extend(made.updates);
        made.results
    }

    /// The value of a host input for the next chunk.
    fn host(&self, input: &HostInput, ty: &TensorType) -> Tensor {
        let (done, seen) = (self.chunks as f64, self.chunks * self.frames);
        let values = match input {
            HostInput::PastWeight => vec![done / (done + 1.0)],
            HostInput::NewWeight => vec![1.0 / (done + 1.0)],
            HostInput::WindowMask { sink_tokens, window_tokens, tokens_per_frame, own_tokens } => {
                let (sinks, window) = (sink_tokens / tokens_per_frame, window_tokens / tokens_per_frame);
                // A sink is shown once its frame has left the window; slots of the window are filled from the newest on.
                let sink = |slot: usize| slot < seen && slot + window < seen;
                let old = |slot: usize| slot + seen >= window;
                let open =
                    (0..sinks).map(sink).chain((0..window).map(old)).flat_map(|open| vec![open; *tokens_per_frame]);
                open.chain(vec![true; *own_tokens]).map(|open| if open { 0.0 } else { EMPTY }).collect()
            }
            HostInput::SinkMask { sink_tokens, tokens_per_frame } => {
                let own = |slot: usize| f64::from(u8::from((seen..seen + self.frames).contains(&slot)));
                (0..sink_tokens / tokens_per_frame).flat_map(|slot| vec![own(slot); *tokens_per_frame]).collect()
            }
            HostInput::Rope(table) => {
                let mut whole = table.clone();
                whole.grid[0] += seen;
                let mut f = Function::new("table");
                let rows: usize = whole.grid.iter().product();
                let v = f.add_leaf(whole.into(), &TensorType::new(DType::F32, [rows, ty.shape[1]]), "").unwrap();
                let all = evaluate(&f, &[v], &NoWeights, &Bindings::default()).unwrap().remove(0);
                all.data.iter().copied().skip((rows - ty.shape[0]) * ty.shape[1]).collect()
            }
        };
        Tensor::from_values(ty, values).unwrap()
    }
}
