//! Tokens on the last axis: the layout of the Neural Engine.
//!
//! A value `[1, N, D]` of tokens is computed as `(1, D, 1, N)`, one of heads `[1, A, N, d]` as `(1, A, d, N)`, a vector as `(1, D, 1, 1)`. Products with
//! weights become 1×1 convolutions. Most of the graph's own transposes and reshapes then only say how axes are called, and
//! vanish; what is left are reshapes that split or join channels, which move nothing.
//!
//! ```text
//! %y = linear(%x, %w, %b)                    %x' = transpose(%x), reshape   : f32[1, 8, 1, 6]     (at the graph's edge)
//!      : f32[1, 6, 16]                   →   %y  = conv(%x', %w', %b)       : f32[1, 16, 1, 6]
//! %h = transpose(reshape(%y))                %h  = reshape(%y)              : f32[1, 2, 8, 6]
//!      : f32[1, 2, 6, 8]
//! ```
//! Formulas with a name get the form that suits the layout, each in its own file: `attention`, `linear_attention`,
//! `projections` (queries, keys and values in one product, their norms and rotation together), `norms`, `convolution` (time among
//! the channels), `shuffle`, `cut` (products of more channels than the engine has). An op without a rule is computed in its old layout between two transposes, so that the pass
//! works on any graph.
//!
//! Rules and reasons: *Deploying Transformers on the Apple Neural Engine* (Apple, 2022); `s2ditc lint --rules`.

mod attention;
mod convolution;
mod cut;
mod elementwise;
mod form;
mod linear_attention;
mod norms;
mod options;
mod products;
mod projections;
mod shuffle;
mod tables;
mod views;

use std::collections::{HashMap, HashSet};

use s2dit_ir::ops::{OpError, Reshape, Transpose};
use s2dit_ir::{Builder, DType, Function, Module, Op, ValueId};

pub use options::{Norms, Options, PASS, pass};

use form::{Form, natural, same_order};
use projections::Projections;

/// Rewrites every function and state; returns how many values have another layout.
///
/// # Errors
/// None in practice: the new ops have the old ones' elements.
pub fn run(module: &mut Module, options: &Options) -> Result<usize, OpError> {
    let forms = views::state_forms(module);
    let mut changes = 0;
    for f in &mut module.functions {
        let mut rewriter = Rewriter::new(f, options, &forms);
        rewriter.run()?;
        changes += rewriter.stored.len();
        // A parameter that only the old form took, such as the past's weight where halves are moved, is none any more.
        let idle: Vec<String> = idle_params(f);
        let mut g = rewriter.g;
        g.remove_dead();
        g.remove_unused_params(&idle.iter().map(String::as_str).collect::<Vec<_>>());
        *f = g;
    }
    for state in &mut module.states {
        if let Some(form) = forms.get(&state.name) {
            state.ty.shape.clone_from(&form.shape);
        }
    }
    Ok(changes)
}

/// Parameters that nothing uses.
fn idle_params(f: &Function) -> Vec<String> {
    let mut used: HashSet<ValueId> = f.results.iter().chain(&f.updates).map(|(_, v)| *v).collect();
    for v in f.order() {
        used.extend(f.operands(v));
    }
    let idle = f.params().iter().filter(|p| !used.contains(p));
    idle.filter_map(|&p| f.node(p).name.as_deref().map(String::from)).collect()
}

/// Elements of an old value, its axes in another order.
#[derive(Clone, Debug)]
struct Stored {
    value: ValueId,
    /// Axes of the old value, slowest first.
    order: Vec<usize>,
}

/// No axis of a tensor is longer on the engine.
const LARGEST_EXTENT: usize = 16_384;
/// Tokens `[1, N, D]` as `(1, D, 1, N)`.
const TOKENS: [usize; 3] = [0, 2, 1];
/// Heads `[1, A, N, d]` as `(1, A, d, N)`.
const HEADS: [usize; 4] = [0, 1, 3, 2];

struct Rewriter<'a> {
    old: &'a Function,
    options: &'a Options,
    states: &'a HashMap<String, Form>,
    g: Function,
    constant: HashSet<ValueId>,
    projections: Projections,
    stored: HashMap<ValueId, Stored>,
    /// Values in their old layout.
    plain: HashMap<ValueId, ValueId>,
    /// Values in another form, once made.
    made: HashMap<(ValueId, Vec<usize>), ValueId>,
    /// Factors that a value was already multiplied with, so that its sums stay small.
    scaled: HashMap<ValueId, f64>,
    /// Queries that were already multiplied with the factor of their scores.
    scaled_queries: HashSet<ValueId>,
    /// Queries and keys above their negatives, `(1, A, 2d, N)`: only attention takes them.
    doubled: HashMap<ValueId, ValueId>,
    /// Scales of `modulate` whose table already has the one added.
    plus_one: HashSet<ValueId>,
}

impl<'a> Rewriter<'a> {
    fn new(old: &'a Function, options: &'a Options, states: &'a HashMap<String, Form>) -> Self {
        let constant = old.constants();
        let projections = Projections::of(old, &constant, options);
        Rewriter {
            old,
            options,
            states,
            g: Function::new(old.name.clone()),
            constant,
            projections,
            stored: HashMap::new(),
            plain: HashMap::new(),
            made: HashMap::new(),
            scaled: HashMap::new(),
            scaled_queries: HashSet::new(),
            doubled: HashMap::new(),
            plus_one: HashSet::new(),
        }
    }

    fn run(&mut self) -> Result<(), OpError> {
        let order = self.old.order();
        // What needs nothing else comes first: a rule may look ahead.
        for &v in &order {
            match self.old.op(v) {
                Op::Input(_) => self.param(v),
                Op::State(_) => self.state(v),
                _ if self.is_const(v) || views::of_caller(self.old, v) => self.unchanged(v, &self.old.operands(v))?,
                _ => {}
            }
        }
        for &v in &order {
            if self.stored.contains_key(&v) || self.plain.contains_key(&v) {
                continue;
            }
            let operands = self.old.operands(v);
            match self.rule(v, &operands)? {
                Some(stored) => self.keep(v, stored),
                // Unless the rule made it in its old layout.
                None if !self.plain.contains_key(&v) => self.unchanged(v, &operands)?,
                None => {}
            }
        }
        for (name, v) in &self.old.results {
            let value = if self.options.internal.contains(name) { self.preferred(*v)? } else { self.plain(*v)? };
            self.g.results.push((name.clone(), value));
        }
        for (name, v) in &self.old.updates {
            let value = match self.states.get(name) {
                Some(form) => self.in_form(*v, &form.order.clone())?,
                None => self.plain(*v)?,
            };
            self.g.updates.push((name.clone(), value));
        }
        Ok(())
    }

    /// One match over the ops that have a rule.
    fn rule(&mut self, v: ValueId, operands: &[ValueId]) -> Result<Option<Stored>, OpError> {
        if self.projections.starts_at(v) {
            self.project(v)?;
            return Ok(self.stored.get(&v).cloned());
        }
        match self.old.op(v).clone() {
            Op::Reshape(_) | Op::Transpose(_) => match self.shuffled(v)? {
                Some(stored) => Ok(Some(stored)),
                None => Ok(self.relabelled(v, operands[0])),
            },
            Op::Slice(slice) => self.slice(v, operands[0], &slice),
            Op::Pad(pad) => self.pad(v, operands[0], &pad),
            Op::Concat(concat) => self.concat(v, operands, concat.axis),
            Op::Unary(_) | Op::Cast(_) => self.unary(v, operands[0]),
            Op::Binary(_) => {
                if let Some(stored) = self.joined_products(v, operands)? {
                    return Ok(Some(stored));
                }
                match self.modulation(v, operands)? {
                    Some(stored) => Ok(Some(stored)),
                    None => self.binary(v, operands),
                }
            }
            Op::Modulate(_) => self.modulate(v, operands),
            Op::LayerNorm(norm) => self.layer_norm(v, operands, &norm),
            Op::RmsNorm(norm) => self.rms_norm(v, operands, &norm),
            Op::Linear(_) => self.linear(v, operands),
            Op::Matmul(matmul) => self.row(v, operands, &matmul),
            Op::Conv(conv) => self.conv(v, operands, &conv),
            Op::Rope(rope) => self.rope(v, operands, &rope),
            Op::FeatureMap(_) => self.feature_map(v, operands),
            Op::Sdpa(sdpa) => self.sdpa(v, operands, &sdpa),
            Op::LinearAttention(attention) => self.linear_attention(v, operands, &attention),
            Op::LinearAttentionStep(_) => self.linear_attention_step(v, operands),
            Op::RunningMean(_) => self.running_mean(v, operands),
            _ => Ok(None),
        }
    }

    /// The op as it was, on operands in their old layout.
    fn unchanged(&mut self, v: ValueId, operands: &[ValueId]) -> Result<(), OpError> {
        let operands = operands.iter().map(|&o| self.plain(o)).collect::<Result<Vec<_>, _>>()?;
        let mut node = self.old.node(v).clone();
        // A result that leaves in another layout is another value: the name is that one's.
        let leaves =
            |name: &str| self.options.internal.contains(name) && self.old.results.iter().any(|(r, _)| r == name);
        let moves = views::internal_order(&node.ty.shape).is_some();
        if moves && !matches!(node.op, Op::Input(_)) && node.name.as_deref().is_some_and(leaves) {
            node.name = None;
        }
        let made = self.g.push(node, &operands);
        self.plain.insert(v, made);
        Ok(())
    }

    fn keep(&mut self, v: ValueId, stored: Stored) {
        if let Some(name) = &self.old.node(v).name
            && self.g.node(stored.value).name.is_none()
            && !matches!(self.g.op(stored.value), Op::Input(_))
            && self.old.results.iter().all(|(result, _)| result.as_str() != &**name)
        {
            self.g.set_name(stored.value, name);
        }
        self.stored.insert(v, stored);
    }

    /// Builds under the scope of an old value.
    fn at<T>(&mut self, v: ValueId, build: impl FnOnce(&mut Builder) -> Result<T, OpError>) -> Result<T, OpError> {
        let scope = self.old.node(v).scope.clone();
        let mut b = Builder::new(&mut self.g);
        if !scope.is_empty() {
            b.enter(&scope);
        }
        build(&mut b)
    }

    fn dims(&self, v: ValueId) -> &'a [usize] {
        self.old.shape(v)
    }

    fn is_const(&self, v: ValueId) -> bool {
        self.constant.contains(&v)
    }

    /// Whether a value is already in a new layout.
    fn is_stored(&self, v: ValueId) -> bool {
        self.stored.contains_key(&v)
    }

    /// The value with its axes in `order`, in the shape of that order's form.
    fn in_form(&mut self, v: ValueId, order: &[usize]) -> Result<ValueId, OpError> {
        let shape = Form::of(self.dims(v), order).shape;
        self.ordered(v, order, &shape)
    }

    /// The value in its old layout.
    fn plain(&mut self, v: ValueId) -> Result<ValueId, OpError> {
        if let Some(&value) = self.plain.get(&v) {
            return Ok(value);
        }
        let dims = self.dims(v);
        let value = self.ordered(v, &natural(dims.len()), dims)?;
        self.plain.insert(v, value);
        Ok(value)
    }

    /// The value in the layout that it would be stored in.
    fn preferred(&mut self, v: ValueId) -> Result<ValueId, OpError> {
        match views::internal_order(self.dims(v)) {
            Some(order) => self.in_form(v, &order),
            None => self.plain(v),
        }
    }

    /// The value's elements with the axes in `order`, as `shape`.
    fn ordered(&mut self, v: ValueId, order: &[usize], shape: &[usize]) -> Result<ValueId, OpError> {
        let dims = self.dims(v);
        let source = match (self.stored.get(&v), self.plain.get(&v)) {
            (Some(stored), plain) if plain.is_none() || same_order(dims, &stored.order, order) => stored.clone(),
            (_, Some(&value)) => Stored { value, order: natural(dims.len()) },
            _ => return Err(OpError::new("an operand that was not rewritten")),
        };
        let in_order = |order: &[usize]| order.iter().map(|&axis| dims[axis]).collect::<Vec<_>>();
        let key = (v, order.iter().chain(shape).copied().collect());
        if let Some(&value) = self.made.get(&key) {
            return Ok(value);
        }
        let value = self.at(v, |b| {
            let reshaped = |b: &mut Builder, x: ValueId, shape: &[usize]| {
                if b.shape(x) == shape { Ok(x) } else { b.op(Reshape { shape: shape.to_vec() }, &[x]) }
            };
            let mut value = source.value;
            if !same_order(dims, &source.order, order) {
                value = reshaped(b, value, &in_order(&source.order))?;
                let place = |axis: &usize| source.order.iter().position(|a| a == axis).unwrap_or_default();
                value = b.op(Transpose { perm: order.iter().map(place).collect() }, &[value])?;
            }
            reshaped(b, value, shape)
        })?;
        self.made.insert(key, value);
        Ok(value)
    }

    /// A constant of the graph's dtype, in the new function.
    fn literal(&mut self, v: ValueId, shape: &[usize], values: Vec<f64>) -> Result<ValueId, OpError> {
        let ty = s2dit_ir::TensorType::new(DType::F32, shape);
        self.at(v, |b| b.literal(&ty, values))
    }
}
