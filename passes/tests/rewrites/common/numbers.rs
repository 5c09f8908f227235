//! Numbers of the tests in files: what a graph computes before and after its passes, in float64.

use std::borrow::Cow;
use std::collections::BTreeMap;

use s2dit_ir::interp::{self, Bindings};
use s2dit_ir::ops::Compress;
use s2dit_ir::{DType, Function, Module, Op, Tensor, TensorType, WeightError, WeightSource};
use s2dit_passes::states::{CACHE, Packed};

/// Named tensors, in the order of their names.
pub type Values = Vec<(String, Tensor)>;

/// A timestep that `timesteps(1000,750,500,250)` lists.
const TIMESTEP: f64 = 750.0;

/// Weights that look random, or are constant tensors.
pub struct Noise<'m> {
    pub module: &'m Module,
    pub constants: BTreeMap<String, f64>,
}

impl WeightSource for Noise<'_> {
    fn ty(&self, name: &str) -> Option<TensorType> {
        let loaded = |f: &Function| {
            let loads = |v: &_| matches!(f.op(*v), Op::Load(l) if l.tensor == name);
            f.order().into_iter().find(loads).map(|v| f.ty(v).clone())
        };
        self.module.functions.iter().find_map(loaded)
    }
    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        let ty = self.ty(name).ok_or(WeightError::Missing { name: name.into() })?;
        let tensor = self.constants.get(name).map_or_else(|| noise(&ty, name), |&value| Tensor::splat(&ty, value));
        Ok(tensor.to_le_bytes().into())
    }
}

/// The same values for the same name.
pub fn noise(ty: &TensorType, name: &str) -> Tensor {
    let seed = name.bytes().map(usize::from).sum::<usize>();
    let values = (0..ty.elements()).map(|i| ((i * 7919 + seed * 104_729) as f64 * 0.618).sin()).collect();
    Tensor::from_values(ty, values).unwrap()
}

fn param(name: &str, ty: &TensorType) -> Tensor {
    if name == "timestep" { Tensor::splat(ty, TIMESTEP) } else { noise(ty, name) }
}

/// Results, and updates of states as `NAME_out`, of a function of `module`; states look random.
pub fn before(f: &Function, module: &Module, weights: &Noise) -> Values {
    let mut bindings = Bindings::default();
    for &p in f.params() {
        let name = f.node(p).name.as_deref().unwrap();
        bindings.params.insert(name.into(), param(name, f.ty(p)));
    }
    bindings.states = module.states.iter().map(|s| (s.name.clone(), noise(&s.ty, &s.name))).collect();
    let made = interp::effects(f, weights, &bindings).unwrap();
    let updates = made.updates.into_iter().map(|(name, value)| (format!("{name}_out"), value));
    sorted(made.results.into_iter().chain(updates).collect())
}

/// The same of what became of `f`: its states may be parameters, or lie in one.
/// Slots may be added to a window, at its old end, where zeros lie; heads may be stored with their tokens on the last axis, frames as rows.
pub fn after(g: &Function, f: &Function, module: &Module, packing: &[Packed], weights: &Noise) -> Values {
    let mut bindings = Bindings::default();
    for &p in f.params() {
        let name = f.node(p).name.as_deref().unwrap();
        bindings.params.insert(name.into(), param(name, f.ty(p)));
    }
    for s in &module.states {
        bindings.params.insert(s.name.clone(), noise(&s.ty, &s.name));
        bindings.states.insert(s.name.clone(), noise(&s.ty, &s.name));
    }
    for v in g.order() {
        let Op::State(state) = g.op(v) else { continue };
        let own = module.states.iter().find(|s| s.name == state.state).filter(|s| s.ty.shape != g.shape(v));
        bindings.states.extend(own.map(|s| (s.name.clone(), widened(&noise(&s.ty, &s.name), g.ty(v)))));
    }
    let cache = g.order().into_iter().find(|&v| matches!(g.op(v), Op::State(s) if s.state == CACHE));
    if let Some(cache) = cache.filter(|_| !packing.is_empty()) {
        bindings.states.insert(CACHE.into(), packed(g.ty(cache), packing));
    }
    let made = interp::effects(g, weights, &bindings).unwrap();
    let mut values = made.results;
    for (name, value) in made.updates {
        if name == CACHE && !packing.is_empty() {
            // What the function does not change is not compared.
            let changed = |p: &&Packed| f.updates.iter().any(|(state, _)| *state == p.name);
            values.extend(packing.iter().filter(changed).map(|p| (format!("{}_out", p.name), unpacked(&value, p))));
            for p in packing.iter().filter(|p| !changed(p)) {
                assert_eq!(
                    unpacked(&value, p),
                    noise(&TensorType::new(DType::F16, p.shape.clone()), &p.name),
                    "{}",
                    p.name
                );
            }
        } else {
            let own = module.states.iter().find(|s| s.name == name).map(|s| &s.ty);
            let value = own.map_or(value.clone(), |own| narrowed(&value, own));
            values.push((format!("{name}_out"), value));
        }
    }
    sorted(values)
}

/// The axis of a window's slots.
const SLOTS: usize = 2;

/// A window with zeros in the slots that it gets at its old end.
fn widened(window: &Tensor, ty: &TensorType) -> Tensor {
    if window.data.len() == ty.elements() {
        return relaid(window, ty);
    }
    let mut all = Tensor::splat(ty, 0.0);
    let first = ty.shape[SLOTS] - window.data.shape()[SLOTS];
    for (at, value) in window.data.indexed_iter() {
        let mut at: Vec<usize> = (0..ty.rank()).map(|axis| at[axis]).collect();
        at[SLOTS] += first;
        all.data[&at[..]] = *value;
    }
    all
}

/// The elements in another layout: heads with their last two axes swapped, other states in the same order.
fn relaid(state: &Tensor, ty: &TensorType) -> Tensor {
    let swap = state.data.ndim() == 4 && ty.rank() == 4 && state.data.shape() != ty.shape;
    let mut data = state.data.clone();
    if swap {
        data.swap_axes(2, 3);
    }
    Tensor::from_values(ty, data.iter().copied().collect()).unwrap()
}

/// The slots that a window had before, in their order.
fn narrowed(window: &Tensor, own: &TensorType) -> Tensor {
    let shape = window.data.shape();
    if window.data.len() == own.elements() {
        return relaid(window, own);
    }
    if own.rank() <= SLOTS || shape.len() != own.rank() || shape[SLOTS] <= own.shape[SLOTS] {
        return window.clone();
    }
    let mut all = Tensor::splat(own, 0.0);
    let first = shape[SLOTS] - own.shape[SLOTS];
    for (at, value) in all.data.indexed_iter_mut() {
        let mut from: Vec<usize> = (0..own.rank()).map(|axis| at[axis]).collect();
        from[SLOTS] += first;
        *value = window.data[&from[..]];
    }
    all
}

fn sorted(mut values: Values) -> Values {
    values.sort_by(|a, b| a.0.cmp(&b.0));
    values
}

/// The state that all others lie in, with zeros where none lies.
fn packed(ty: &TensorType, packing: &[Packed]) -> Tensor {
    let mut values = vec![0.0; ty.elements()];
    for p in packing {
        let own = noise(&TensorType::new(DType::F16, p.shape.clone()), &p.name);
        let first = p.row * ty.shape[1];
        values.iter_mut().skip(first).zip(&own.data).for_each(|(to, from)| *to = *from);
    }
    Tensor::from_values(ty, values).unwrap()
}

fn unpacked(cache: &Tensor, p: &Packed) -> Tensor {
    let width = cache.data.shape()[1];
    let ty = TensorType::new(DType::F16, p.shape.clone());
    let values = cache.data.iter().copied().skip(p.row * width).take(ty.elements()).collect();
    Tensor::from_values(&ty, values).unwrap()
}

/// The results of parts that run one after the other, each on what those before it returned.
pub fn chain(parts: &[Function], weights: &Noise) -> Values {
    let mut values: BTreeMap<String, Tensor> = BTreeMap::new();
    for part in parts {
        let mut bindings = Bindings::default();
        for &p in part.params() {
            let name = part.node(p).name.clone().unwrap();
            let value = values.get(&*name).cloned().unwrap_or_else(|| param(&name, part.ty(p)));
            bindings.params.insert(name.to_string(), value);
        }
        values.extend(interp::effects(part, weights, &bindings).unwrap().results);
    }
    values.into_iter().collect()
}

/// Whether a module stores weights in few bits: what that costs is measured where plans are made.
pub fn compresses(module: &Module) -> bool {
    let compress = |f: &Function| f.order().into_iter().any(|v| matches!(f.op(v), Op::Compress(Compress { .. })));
    module.functions.iter().any(compress)
}
