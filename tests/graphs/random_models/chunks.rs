//! What a module computes, in float64: a clip's results, or a stream's results and states, chunk after chunk.

use std::collections::HashMap;

use s2dit_emit::stream::Lowered;
use s2dit_ir::interp::{self, Bindings, Effects};
use s2dit_ir::ops::{OpDef, RopeTable, TensorOp};
use s2dit_ir::{Function, Module, Tensor, TensorType};
use s2dit_models::Model;
use s2dit_models::s2dit::config::S2ditConfig;
use s2dit_passes::split::{EMPTY, HostInput, StateInfo, StateKind};
use s2dit_passes::states::{CACHE, Packed};

use super::model::{Weights, noise};

/// Values in the order in which they were computed.
pub type Named = Vec<(String, Tensor)>;

/// A timestep that tables have a row for.
fn timestep(config: &S2ditConfig) -> f64 {
    config.sampler().expect("a sampler").timesteps()[1]
}

/// What every function of a module without states returns.
pub fn clip(module: &Module, config: &S2ditConfig, weights: &Weights) -> Named {
    let mut all = Named::new();
    for f in &module.functions {
        let value = |name: &str, ty: &TensorType| match name {
            "timestep" => Tensor::splat(ty, timestep(config)),
            _ => noise(ty, name, 1.0),
        };
        let Effects { results, updates } = call(f, module, weights, &HashMap::new(), value);
        assert!(updates.is_empty());
        all.extend(results.into_iter().map(|(name, value)| (format!("{}.{name}", f.name), value)));
    }
    all
}

fn call(
    f: &Function,
    module: &Module,
    weights: &Weights,
    states: &HashMap<String, Tensor>,
    param: impl Fn(&str, &TensorType) -> Tensor,
) -> Effects {
    let mut bindings = Bindings::default();
    for &p in f.params() {
        let name = f.node(p).name.as_deref().expect("a name");
        bindings.params.insert(name.into(), param(name, f.ty(p)));
    }
    for state in &module.states {
        let value = states.get(&state.name).cloned().unwrap_or_else(|| Tensor::splat(&state.ty, 0.0));
        bindings.states.insert(state.name.clone(), value);
    }
    interp::effects(f, weights, &bindings).expect("values")
}

/// A host: it feeds a kernel's functions and carries the states.
pub struct Streamed<'a> {
    host: &'a [(String, HostInput)],
    states: &'a [StateInfo],
    packing: &'a [Packed],
    /// Shapes of the states as the network was split.
    shapes: HashMap<String, Vec<usize>>,
    timestep: f64,
    /// Frames of a chunk.
    frames: usize,
    /// The function that writes the states.
    writer: &'static str,
    weights: &'a Weights,
}

impl<'a> Streamed<'a> {
    /// `split` is the module that the split made.
    pub fn new(split: &Module, lowered: &'a Lowered, config: &S2ditConfig, weights: &'a Weights) -> Streamed<'a> {
        let shapes = split.states.iter().map(|s| (s.name.clone(), s.ty.shape.clone())).collect();
        let kernel = lowered.kernel();
        Streamed {
            host: &kernel.host_inputs,
            states: &kernel.states,
            packing: lowered.packing(),
            shapes,
            timestep: timestep(config),
            frames: config.chunk_frames.expect("a chunk"),
            writer: config.state_write.name(),
            weights,
        }
    }

    /// Results of `denoise` and of the function that writes the states on three chunks, and the states after each: the later chunks start from states that are
    /// not zero. States are compared in the layout that the split gave them.
    pub fn run(&self, module: &Module) -> Named {
        let function = |name: &str| module.function(name).unwrap_or_else(|| panic!("no function `{name}`"));
        let prompt = call(function("prompt"), module, self.weights, &HashMap::new(), |name, ty| noise(ty, name, 1.0));
        let prompt: HashMap<String, Tensor> = prompt.results.into_iter().collect();
        let mut states: HashMap<String, Tensor> = HashMap::new();
        let (mut all, mut carried) = (Named::new(), Named::new());
        for chunk in 0..3 {
            let param = |name: &str, ty: &TensorType| {
                let known = prompt.get(name).or_else(|| states.get(name)).cloned();
                if let Some(value) = known {
                    assert_eq!(value.data.shape(), ty.shape, "`{name}` is passed on in another shape");
                    return value;
                }
                match (name, self.host.iter().find(|(host, _)| host == name)) {
                    (_, Some((_, input))) => host_value(input, ty, chunk, self.frames),
                    ("timestep", _) => Tensor::splat(ty, self.timestep),
                    // States that are inputs: empty at the start of a stream.
                    _ if self.shapes.contains_key(name) => Tensor::splat(ty, 0.0),
                    // The first chunk is the clip's.
                    _ if chunk == 0 => noise(ty, name, 1.0),
                    _ => noise(ty, &format!("{name}{chunk}"), 1.0),
                }
            };
            let denoised = call(function("denoise"), module, self.weights, &states, param);
            assert!(denoised.updates.is_empty(), "denoise writes no state");
            all.extend(denoised.results.into_iter().map(|(name, v)| (format!("denoise.{name} of chunk {chunk}"), v)));
            let written = call(function(self.writer), module, self.weights, &states, param);
            states.extend(written.updates);
            for (name, value) in written.results {
                match name.strip_suffix("_out").filter(|state| self.shapes.contains_key(*state)) {
                    Some(state) => drop(states.insert(state.into(), value)),
                    None => all.push((format!("{}.{name} of chunk {chunk}", self.writer), value)),
                }
            }
            carried.extend(self.carried(&states).into_iter().map(|(n, v)| (format!("{n} after chunk {chunk}"), v)));
        }
        all.extend(carried);
        all
    }

    /// The states as the split has them; a mean in two halves is one value.
    fn carried(&self, states: &HashMap<String, Tensor>) -> Named {
        let mut states = states.clone();
        if let Some(cache) = states.remove(CACHE) {
            for packed in self.packing {
                let ty = TensorType::new(cache.dtype, &packed.shape[..]);
                let before = packed.row * cache.data.shape()[1];
                let values = cache.data.iter().copied().skip(before).take(ty.elements()).collect();
                states.insert(packed.name.clone(), Tensor::from_values(&ty, values).expect("a state"));
            }
        }
        let mut all = Named::new();
        for (i, state) in self.states.iter().enumerate() {
            let Some(value) = states.get(&state.name) else { continue };
            let mut value = unfolded(value, &self.shapes[&state.name]);
            match (state.kind, self.states.get(i + 1)) {
                (StateKind::MeanLow, _) => continue,
                (StateKind::Mean, Some(low)) if low.kind == StateKind::MeanLow => {
                    value.data = value.data + unfolded(&states[&low.name], &self.shapes[&low.name]).data;
                }
                _ => {}
            }
            all.push((state.name.clone(), value));
        }
        all
    }
}

/// A state of any layout in its first one: a window keeps its newest tokens, which lie before the channels; other states are only
/// reshaped.
fn unfolded(value: &Tensor, shape: &[usize]) -> Tensor {
    let ty = TensorType::new(value.dtype, shape);
    if value.data.len() == ty.elements() && (shape.len() != 4 || value.data.shape() == shape) {
        return Tensor::from_values(&ty, value.data.iter().copied().collect()).expect("as many elements");
    }
    let &[1, heads, tokens, width] = shape else { panic!("{:?} for a state {shape:?}", value.data.shape()) };
    let turned = value.data.shape()[3] != width;
    let slots = value.data.shape()[if turned { 3 } else { 2 }];
    let mut values = Vec::with_capacity(ty.elements());
    for (head, token, channel) in
        (0..heads).flat_map(|h| (slots - tokens..slots).flat_map(move |t| (0..width).map(move |d| (h, t, d))))
    {
        values.push(if turned { value.data[[0, head, channel, token]] } else { value.data[[0, head, token, channel]] });
    }
    Tensor::from_values(&ty, values).expect("a window")
}

/// A host input for chunk number `chunk` of `frames` frames, by its definition.
fn host_value(input: &HostInput, ty: &TensorType, chunk: usize, frames: usize) -> Tensor {
    let n = chunk as f64;
    let values = match input {
        HostInput::Rope(table) => {
            // The rows of the chunk in a table of all frames so far.
            let [own, rows, cols] = table.grid;
            let all = RopeTable { grid: [(chunk + 1) * own, rows, cols], ..table.clone() };
            let ty_of_all = all.infer(&[], None).expect("a table");
            let all: Vec<f64> = all.eval(&[], &ty_of_all).expect("a table").data.iter().copied().collect();
            all[all.len() - ty.elements()..].to_vec()
        }
        HostInput::WindowMask { sink_tokens, window_tokens, own_tokens, .. } => {
            let past = chunk * own_tokens;
            // A sink is seen once the window has left it.
            let sink = |i| if i + window_tokens < past { 0.0 } else { EMPTY };
            let slot = |i| if i + past.min(*window_tokens) < *window_tokens { EMPTY } else { 0.0 };
            (0..*sink_tokens).map(sink).chain((0..window_tokens + own_tokens).map(slot)).collect()
        }
        HostInput::SinkMask { sink_tokens, tokens_per_frame } => {
            let own = frames * tokens_per_frame;
            let begin = chunk * own;
            (0..*sink_tokens).map(|i| f64::from(u8::from((begin..begin + own).contains(&i)))).collect()
        }
        HostInput::PastWeight => vec![n / (n + 1.0)],
        HostInput::NewWeight => vec![1.0 / (n + 1.0)],
    };
    Tensor::from_values(ty, values).expect("a host input")
}
