//! The work of each op of a lowered function: products, weights, activations. Shapes alone decide; no weight is read.

use std::collections::{HashMap, HashSet};

use s2dit_ir::compress::Scheme;
use s2dit_ir::ops::{Op, Slice, Unary};
use s2dit_ir::{DType, Function, Interface, ValueId};
use s2dit_passes::notch::is_notched;

/// What an op does with its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A product: convolution, linear layer, matrix product.
    Product,
    /// One operation an element, or a copy.
    Elementwise,
    /// A layer norm.
    Norm,
    /// A softmax.
    Softmax,
    /// Another name for the same bytes.
    View,
}

/// Constants that an op reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Bytes that are stored whole.
    pub whole: u64,
    /// Bytes of those whose layout the DMA engine is slow with.
    pub notched: u64,
    /// Bytes of codes and palettes.
    pub packed: u64,
}

/// The work of an op.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// Name of the op in the IR.
    pub op: &'static str,
    /// Its result as a package or the graph calls it, and where it came from: `blocks.0.attn1.to_q`.
    pub name: String,
    /// Type of the result.
    pub ty: String,
    /// Part of the model: a block's module path, `stages.0`, `head`, ….
    pub part: String,
    /// The block, if it is in one.
    pub block: Option<usize>,
    /// What is done.
    pub kind: Kind,
    /// Operations of products.
    pub flops: u64,
    /// The lesser of the channels that a product sums over and those that come out.
    pub channels: usize,
    /// Whether weights and activations of the product are int8.
    pub int8: bool,
    /// Weights and tables.
    pub weights: Stream,
    /// Bytes of activations that are read and written.
    pub traffic: u64,
    /// Whether it may be done on the way out of the product before it.
    pub fusable: bool,
}

/// The values of a function that are weight expressions.
pub(crate) fn constants(f: &Function, order: &[ValueId]) -> HashSet<ValueId> {
    let mut constant = HashSet::new();
    for &v in order {
        let leaf_of_caller = matches!(f.op(v), Op::Input(_) | Op::State(_));
        if !leaf_of_caller && f.operands(v).iter().all(|o| constant.contains(o)) {
            constant.insert(v);
        }
    }
    constant
}

/// The work of every op of a function that runs, in order.
#[must_use]
pub fn works(f: &Function, interface: &Interface) -> Vec<Work> {
    let order = f.order();
    let constant = constants(f, &order);
    let places = Places::new(interface);
    let runs = |v: &&ValueId| !constant.contains(v) && !matches!(f.op(**v), Op::Input(_) | Op::State(_));
    order.iter().filter(runs).map(|&v| work(f, v, &constant, &places)).collect()
}

fn work(f: &Function, v: ValueId, constant: &HashSet<ValueId>, places: &Places<'_>) -> Work {
    let (op, operands) = (f.op(v), f.operands(v));
    let (part, block) = places.of(f, v);
    let mut weights = Stream::default();
    let mut traffic = f.ty(v).bytes() as u64;
    for &o in &operands {
        if constant.contains(&o) {
            add_constant(f, o, op, &mut weights);
        } else {
            traffic += moved(f, o);
        }
    }
    // A slice reads what it takes.
    if let Op::Slice(_) = op {
        traffic = 2 * f.ty(v).bytes() as u64;
    }
    let kind = kind(f, v);
    let product = matches!(kind, Kind::Product);
    Work {
        op: op.name(),
        name: called(f, v),
        ty: f.ty(v).to_string(),
        part,
        block,
        kind,
        flops: if product { f.cost(v).flops } else { 0 },
        channels: if product { channels(f, v) } else { 0 },
        int8: product && operands.iter().any(|&o| matches!(f.op(o), Op::Dequantize(_))),
        weights,
        traffic: if kind == Kind::View { 0 } else { traffic },
        fusable: fusable(f, v, constant),
    }
}

/// The module path of a value, or its name in a file of others.
fn called(f: &Function, v: ValueId) -> String {
    let node = f.node(v);
    if node.scope.is_empty() { node.name.as_deref().unwrap_or_default().into() } else { node.scope.to_string() }
}

/// Bytes that are read of an operand: int8 activations are turned into floats inside the product.
fn moved(f: &Function, operand: ValueId) -> u64 {
    match f.op(operand) {
        Op::Dequantize(_) => f.ty(operand).elements() as u64,
        _ => f.ty(operand).bytes() as u64,
    }
}

fn add_constant(f: &Function, v: ValueId, user: &Op, to: &mut Stream) {
    match stored(f, v) {
        (bytes, Some(Scheme::Palette { .. })) => to.packed += bytes,
        (bytes, _) => {
            let notched =
                matches!(user, Op::Conv(_) | Op::Linear(_)) && f.dtype(v) == DType::F16 && is_notched(f.shape(v));
            to.whole += bytes;
            to.notched += if notched { bytes } else { 0 };
        }
    }
}

/// Bytes that a constant takes in a file, and the scheme that it is stored in.
pub(crate) fn stored(f: &Function, v: ValueId) -> (u64, Option<Scheme>) {
    let Op::Compress(c) = f.op(v) else { return (f.ty(v).bytes() as u64, None) };
    // A scheme that does not fit is refused before an estimate.
    (c.scheme.bytes(f.shape(v)).unwrap_or_default() as u64, Some(c.scheme))
}

fn kind(f: &Function, v: ValueId) -> Kind {
    match f.op(v) {
        Op::Conv(_) | Op::Linear(_) | Op::Matmul(_) => Kind::Product,
        Op::LayerNorm(_) => Kind::Norm,
        Op::Softmax(_) => Kind::Softmax,
        // Inside a product with int8 weights.
        Op::Dequantize(_) | Op::Unary(Unary::Identity) => Kind::View,
        // What keeps the last axis keeps the layout.
        Op::Reshape(_) if f.shape(v).last() == f.shape(f.operands(v)[0]).last() => Kind::View,
        Op::Slice(slice) if is_run(slice, f.shape(f.operands(v)[0])) => Kind::View,
        _ => Kind::Elementwise,
    }
}

/// A slice whose elements lie one after the other: only one axis is cut, and those before it have one entry.
fn is_run(slice: &Slice, shape: &[usize]) -> bool {
    let whole = |axis: &usize| (slice.begin[*axis], slice.end[*axis], slice.stride[*axis]) == (0, shape[*axis], 1);
    let cut: Vec<usize> = (0..shape.len()).filter(|axis| !whole(axis)).collect();
    let [axis] = cut[..] else { return cut.is_empty() };
    slice.stride[axis] == 1 && shape[..axis].iter().all(|n| *n == 1)
}

fn channels(f: &Function, v: ValueId) -> usize {
    let operands = f.operands(v);
    let shape = |i: usize| operands.get(i).map(|&o| f.shape(o)).unwrap_or_default();
    let narrow = |a: Option<&usize>, b: Option<&usize>| a.copied().unwrap_or(1).min(b.copied().unwrap_or(1)).max(1);
    match f.op(v) {
        Op::Conv(conv) => narrow(shape(1).get(1), Some(&(shape(1)[0] / conv.groups))),
        Op::Linear(_) => narrow(shape(1).first(), shape(1).get(1)),
        Op::Matmul(matmul) => {
            let x = shape(0);
            let (rows, inner) = (x.len() - 2, x.len() - 1);
            let inner = if matmul.transpose_x { rows } else { inner };
            // Tokens lie on the last axis of the result.
            narrow(f.shape(v).get(f.shape(v).len() - 2), x.get(inner))
        }
        _ => 1,
    }
}

/// An element-wise op that works on what a product, a norm or another element-wise op made for it alone.
fn fusable(f: &Function, v: ValueId, constant: &HashSet<ValueId>) -> bool {
    if !matches!(f.op(v), Op::Unary(_) | Op::Binary(_) | Op::Quantize(_)) {
        return false;
    }
    f.operands(v).into_iter().filter(|o| !constant.contains(o)).any(|o| made_for_it(f, o))
}

/// Whether a value comes from a product, a norm or another element-wise op and has one user, views apart.
fn made_for_it(f: &Function, mut at: ValueId) -> bool {
    while f.users(at).len() == 1 {
        match kind(f, at) {
            Kind::Product | Kind::Norm => return true,
            Kind::Elementwise => return matches!(f.op(at), Op::Unary(_) | Op::Binary(_)),
            Kind::View => at = f.operands(at)[0],
            Kind::Softmax => return false,
        }
    }
    false
}

/// Where in the model an op is.
struct Places<'a> {
    interface: &'a Interface,
    /// Names of values in files of others have `_` for `.`.
    names: HashMap<String, usize>,
}

impl<'a> Places<'a> {
    fn new(interface: &'a Interface) -> Places<'a> {
        let name = |(i, m): (usize, &s2dit_ir::interface::Milestone)| (m.scope.replace('.', "_"), i);
        Places { interface, names: interface.milestones.iter().enumerate().map(name).collect() }
    }

    fn of(&self, f: &Function, v: ValueId) -> (String, Option<usize>) {
        let node = f.node(v);
        let block = self.interface.block_of(&node.scope).or_else(|| self.by_name(node.name.as_deref()?));
        match block {
            Some(block) => (self.interface.milestones[block].scope.clone(), Some(block)),
            None => (part_of(&node.scope, node.name.as_deref().unwrap_or_default()), None),
        }
    }

    /// `blocks_12_attn1_conv` is in `blocks.12`.
    fn by_name(&self, name: &str) -> Option<usize> {
        let ends = name.match_indices('_').map(|(at, _)| at).chain([name.len()]);
        ends.filter_map(|end| self.names.get(&name[..end]).copied()).next_back()
    }
}

/// The part of the model outside of blocks: `stages.0.down` → `stages.0`.
fn part_of(scope: &str, name: &str) -> String {
    let text = if scope.is_empty() { name.replace('_', ".") } else { scope.to_owned() };
    let mut path = text.split('.');
    match (path.next(), path.next()) {
        (Some(p), Some(n)) if !p.is_empty() && n.parse::<usize>().is_ok() => format!("{p}.{n}"),
        (Some(p), _) if p.starts_with("condition") => "conditions".into(),
        (Some(p), _) if p.starts_with("patch") => "patches".into(),
        _ => "head".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(body: &str) -> Function {
        let text = format!(
            "module {{ milestone \"h\" @ \"blocks.0\" func @main(%x: f16[1, 64, 1, 32], %h: f16[1]) {{ {body} return y = %y, h = %h }} }}"
        );
        s2dit_ir::text::parse(&text).unwrap_or_else(|e| panic!("{text}: {e}")).functions.remove(0)
    }

    #[test]
    fn a_product_its_activation_and_a_view() {
        let f = function(
            r#"%w = load {tensor = "w"} : f16[128, 64, 1, 1]
            %c = conv(%x, %w) {strides = [1, 1], pad_before = [0, 0], pad_after = [0, 0], dilations = [1, 1], groups = 1} : f16[1, 128, 1, 32] @ "blocks.0.up"
            %v = reshape(%c) {shape = [1, 2, 64, 32]} : f16[1, 2, 64, 32] @ "blocks.0.up"
            %g = gelu(%v) : f16[1, 2, 64, 32] @ "blocks.0"
            %r = reshape(%g) {shape = [1, 128, 4, 8]} : f16[1, 128, 4, 8]
            %y = softmax(%r) {axis = 1} : f16[1, 128, 4, 8]"#,
        );
        let interface = Interface {
            milestones: vec![s2dit_ir::interface::Milestone { value: "h".into(), scope: "blocks.0".into() }],
            ..Interface::default()
        };
        let found = works(&f, &interface);
        let kinds: Vec<Kind> = found.iter().map(|w| w.kind).collect();
        assert_eq!(kinds, [Kind::Product, Kind::View, Kind::Elementwise, Kind::Elementwise, Kind::Softmax]);
        assert_eq!((found[0].flops, found[0].channels), (2 * 128 * 64 * 32, 64));
        assert_eq!(found[0].weights, Stream { whole: 2 * 128 * 64, notched: 0, packed: 0 });
        assert_eq!(found[0].traffic, 2 * 32 * (64 + 128));
        assert!(found[2].fusable && !found[3].fusable);
        let f = function(
            "%y = slice(%x) {begin = [0, 0, 0, 8], end = [1, 64, 1, 16], stride = [1, 1, 1, 1]} : f16[1, 64, 1, 8]",
        );
        assert_eq!(works(&f, &interface)[0].traffic, 2 * 2 * 64 * 8);
        assert_eq!((found[0].block, found[2].part.as_str()), (Some(0), "blocks.0"));
    }
}
