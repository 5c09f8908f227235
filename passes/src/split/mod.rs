//! Splits the graph of one chunk into a streaming kernel of three functions:
//!
//! - `prompt`: what depends on the prompt alone, computed once a prompt;
//! - `denoise`: one step on a chunk, which reads the past from states and writes none;
//! - the function that updates the states, by [`StateWrite`]: `commit`, the same network at time 0 on the finished chunk, which returns a
//!   small value that does not depend on them; or `last_step`, which is `denoise` and updates them besides.
//!
//! The chunk's graph knows no past. Where it looks along time, the past is put in, found by meaning and not by names:
//!
//! ```text
//! softmax(s·q·kᵀ)·v                     →  softmax(s·q·[K k]ᵀ + mask)·[V v]       K, V: sinks and windows of keys and values
//! (q·Σkvᵀ) / (q·Σk + ε)                 →  the same with means over the chunks so far, this one included
//! conv, padded with zeros before time   →  conv of [tail x], the last frames of the chunk before
//! ```
//! A convolution along time that has zeros behind the chunk as well sees frames that follow, which a stream does not have. It is split only
//! where [`Options::ahead`] says that the model is called so, chunk by chunk: then the zeros stay.
//!
//! Windows start empty: a mask says which of their slots are filled, oldest first, the newest last. Before them lie the sinks, the first
//! frames of the stream, which stay; the mask shows a sink once its frame has left the window. Sums are kept as means over
//! chunks of means over tokens: they stay in range however long the stream runs, and a common factor does not change the
//! ratio. Positions enter through the rotary tables, which become inputs.
//!
//! Everything that changes from call to call is an input that the host computes exactly ([`HostInput`]); offsets in the
//! graph are constants.

mod attention;
mod convolution;
mod frames;
mod linear_attention;
mod options;

use std::collections::HashMap;

use s2dit_ir::interface::InputRole;
use s2dit_ir::ops::{Literal, Reduce, ReduceKind, RopePart, State};
use s2dit_ir::{DType, Function, Interface, Module, Op, StateDecl, TensorType, ValueId, WeightSource};

pub use crate::kernel::{EMPTY, HostInput, Kernel, SplitError, StateInfo, StateKind};
pub use options::{Options, PASS, StateWrite, pass};

use frames::{Place, Places};

/// Splits the graph of one chunk. The interface says which input is the chunk (a latent `[1, C, F, H, W]`), the time, which `commit` sets to 0,
/// and the prompt (a text, and a mask of its tokens if the graph takes one).
///
/// `weights` are read for constants that lie beside tokens, since those must be the same for every frame.
///
/// # Errors
/// A parameter that is missing, or one that no host of a stream has a value for; a result in which frames are mixed by what is none of the formulas.
pub fn split(
    chunk: &Function,
    interface: &Interface,
    options: &Options,
    weights: &dyn WeightSource,
) -> Result<Kernel, SplitError> {
    let latent_name = interface.latent().ok_or(SplitError::Role("a latent"))?;
    let time_name = interface.time().ok_or(SplitError::Role("a time"))?;
    let prompt_name = interface.text().ok_or(SplitError::Role("a text"))?;
    let known = |role: &InputRole| {
        matches!(role, InputRole::Latent | InputRole::Time { .. } | InputRole::Text | InputRole::TextMask)
    };
    if let Some(other) = interface.inputs.iter().find(|input| !known(&input.role)) {
        return Err(SplitError::Input(other.name.clone()));
    }
    let param = |f: &Function, name: &str| {
        f.params()
            .iter()
            .copied()
            .find(|&p| f.node(p).name.as_deref() == Some(name))
            .ok_or(SplitError::Parameter(name.into()))
    };
    let latent = param(chunk, latent_name)?;
    let &[_, _, frames, _, _] = chunk.shape(latent) else { return Err(SplitError::Parameter(latent_name.into())) };

    let mut s = Splitter {
        f: chunk.clone(),
        frames,
        options,
        places: HashMap::new(),
        host: Vec::new(),
        states: Vec::new(),
        infos: Vec::new(),
        updates: Vec::new(),
    };
    let mut prompt_params = vec![param(chunk, prompt_name)?];
    prompt_params.extend(interface.text_mask().map(|mask| param(chunk, mask)).transpose()?);
    let (mut prompt, prompt_values) = s.hoist_prompt(&prompt_params)?;
    if prompt_values.is_empty() {
        return Err(SplitError::Prompt(prompt_name.into()));
    }
    s.rotary_tables_become_inputs()?;
    s.note_places(param(&s.f, latent_name)?, weights)?;
    for v in s.f.order() {
        attention::rewrite(&mut s, v)?;
        linear_attention::rewrite(&mut s, v)?;
        convolution::rewrite(&mut s, v)?;
    }

    let mut writer = s.f.clone();
    writer.name = options.state_write.function().into();
    writer.updates = s.updates;
    if options.state_write == StateWrite::Commit {
        let (time, finished) = (param(&writer, time_name)?, param(&writer, latent_name)?);
        at_time_zero(&mut writer, time, finished)?;
    }
    let mut denoise = s.f;
    denoise.name = "denoise".into();
    for f in [&mut prompt, &mut denoise, &mut writer] {
        f.remove_dead();
        f.remove_unused_params(&[]);
    }
    let functions = vec![denoise, writer, prompt];
    let module = Module { states: s.states, functions, ..Module::default() };
    Ok(Kernel { module, host_inputs: s.host, states: s.infos, prompt_values })
}

/// Sets the time to 0; the function then returns the mean of the finished chunk, since it must return something.
fn at_time_zero(f: &mut Function, time: ValueId, chunk: ValueId) -> Result<(), SplitError> {
    let ty = f.ty(time).clone();
    let zero = f.add_leaf(Literal { values: vec![0.0] }.into(), &ty, "")?;
    f.replace_uses(time, zero);
    let axes = (1..5).collect();
    let mean = f.add(Reduce { kind: ReduceKind::Mean, axes, keep_dims: false }.into(), &[chunk], "")?;
    f.set_name(mean, "committed");
    f.results = vec![("committed".into(), mean)];
    Ok(())
}

/// The graph on its way from a chunk to a step of a stream.
struct Splitter<'o> {
    f: Function,
    frames: usize,
    options: &'o Options,
    /// Where the frames of the chunk lie in each value.
    places: HashMap<ValueId, Place>,
    host: Vec<(String, HostInput)>,
    states: Vec<StateDecl>,
    infos: Vec<StateInfo>,
    updates: Vec<(String, ValueId)>,
}

impl Splitter<'_> {
    /// Moves what depends on the prompt alone into a function of its own; its results become parameters.
    fn hoist_prompt(&mut self, prompt: &[ValueId]) -> Result<(Function, Vec<(String, String)>), SplitError> {
        let f = &mut self.f;
        let mut only: HashMap<ValueId, bool> = HashMap::new();
        for v in f.order() {
            let operands = f.operands(v);
            let is = match f.op(v) {
                Op::Input(_) => prompt.contains(&v),
                _ if f.is_const(v) => false,
                _ => operands.iter().all(|o| only[o] || f.is_const(*o)),
            };
            only.insert(v, is);
        }
        let frontier: Vec<ValueId> = f
            .order()
            .into_iter()
            .filter(|v| only[v] && !prompt.contains(v))
            .filter(|v| f.users(*v).iter().any(|(u, _)| !only.get(u).copied().unwrap_or(true)))
            .collect();
        let mut function = f.clone();
        function.name = "prompt".into();
        function.results.clear();
        let mut values = Vec::new();
        for (i, &v) in frontier.iter().enumerate() {
            let name = format!("prompt_{i}");
            let scope = f.node(v).scope.to_string();
            function.set_name(v, &name);
            function.results.push((name.clone(), v));
            let ty = f.ty(v).clone();
            let p = f.add_param(&name, ty);
            f.replace_uses(v, p);
            values.push((name, scope));
        }
        Ok((function, values))
    }

    fn rotary_tables_become_inputs(&mut self) -> Result<(), SplitError> {
        let mut grids: Vec<[usize; 3]> = Vec::new();
        for v in self.f.order() {
            let Op::RopeTable(table) = self.f.op(v).clone() else { continue };
            let grid = grids.iter().position(|g| *g == table.grid).unwrap_or_else(|| {
                grids.push(table.grid);
                grids.len() - 1
            });
            let part = match table.part {
                RopePart::Cos => "cos",
                RopePart::Sin => "sin",
            };
            let name = format!("rope_{part}_{grid}");
            let ty = self.f.ty(v).clone();
            let p = self.host_input(&name, HostInput::Rope(table), &ty);
            self.f.replace_uses(v, p);
        }
        Ok(())
    }

    /// The parameter of a host input, made on first need.
    fn host_input(&mut self, name: &str, input: HostInput, ty: &TensorType) -> ValueId {
        let param =
            |name: &str| self.f.params().iter().copied().find(|&p| self.f.node(p).name.as_deref() == Some(name));
        let same = self.host.iter().find(|(_, made)| *made == input);
        if let Some(v) = same.and_then(|(name, _)| param(name)) {
            return v;
        }
        // Two tables of one grid, for heads of two widths, say.
        let mut unique = name.to_owned();
        for n in 2.. {
            if param(&unique).is_none() {
                break;
            }
            unique = format!("{name}_{n}");
        }
        self.host.push((unique.clone(), input));
        self.f.add_param(&unique, ty.clone())
    }

    /// Finds where the frames lie in each value.
    ///
    /// # Errors
    /// A result in which frames are mixed, or lie elsewhere than in the latent.
    fn note_places(&mut self, chunk: ValueId, weights: &dyn WeightSource) -> Result<(), SplitError> {
        let f = &self.f;
        let is_table = |p: &&ValueId| {
            let name = f.node(**p).name.as_deref();
            self.host.iter().any(|(host, _)| Some(host.as_str()) == name)
        };
        let tables: Vec<ValueId> = f.params().iter().filter(is_table).copied().collect();
        let formula = |v| {
            let softmax = attention::find(f, v).map(|a| vec![a.query, a.key, a.value]);
            softmax.or_else(|| linear_attention::find(f, v).map(|a| vec![a.query, a.query_n, a.key, a.key_n, a.value]))
        };
        let places = Places::of(f, chunk, self.frames, self.options.ahead, &tables, weights, formula);
        for (name, v) in &f.results {
            let is_like = f.shape(*v) == f.shape(chunk);
            match places.at(*v) {
                Place::On(run) if !is_like || self.frames == 1 || (run.axis, run.outer, run.inner) == (2, 1, 1) => {}
                Place::Outside if !is_like => {}
                Place::Mixed(mix) => return Err(mix.refused()),
                _ => return Err(SplitError::Result { name: name.clone() }),
            }
        }
        self.places = f.order().into_iter().map(|v| (v, places.at(v).clone())).collect();
        Ok(())
    }

    /// Whether the frames of the chunk lie on this axis of a value.
    fn has_frames(&self, v: ValueId, axis: usize) -> bool {
        matches!(self.places.get(&v), Some(Place::On(run)) if self.frames == 1 || run.axis == axis && run.outer == 1)
    }

    /// Puts a value in the place of another, whose frames lie where those of the other lay.
    fn replace(&mut self, old: ValueId, new: ValueId) {
        if let Some(place) = self.places.get(&old).cloned() {
            self.places.insert(new, place);
        }
        self.f.replace_uses(old, new);
    }

    /// Declares a state and reads it.
    fn state(
        &mut self,
        scope: &str,
        what: &str,
        kind: StateKind,
        ty: &TensorType,
    ) -> Result<(String, ValueId), SplitError> {
        let base: String = scope.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let base = format!("{base}_{what}");
        let taken = |name: &str| self.states.iter().any(|s| s.name == name);
        let mut name = base.clone();
        let mut n = 1;
        while taken(&name) {
            name = format!("{base}_{n}");
            n += 1;
        }
        self.states.push(StateDecl { name: name.clone(), ty: ty.clone() });
        self.infos.push(StateInfo { name: name.clone(), kind, scope: scope.into() });
        let v = self.f.add_leaf(State { state: name.clone() }.into(), ty, scope)?;
        Ok((name, v))
    }

    fn literal(&mut self, value: f64, scope: &str) -> Result<ValueId, SplitError> {
        Ok(self.f.add_leaf(Literal { values: vec![value] }.into(), &TensorType::new(DType::F32, []), scope)?)
    }
}
