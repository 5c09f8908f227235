//! IR function → ONNX graph.

mod activation;
mod attention;
mod composite;
mod compressed;
mod elementwise;
mod index;
mod names;
mod norm;
mod product;
mod shape;
mod window;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use s2dit_ir::ops::Op;
use s2dit_ir::weights::ExpressionId;
use s2dit_ir::{DType, Function, TensorType, ValueId, weights};

use self::attention::OfTokens;
use super::OPSET;
use super::proto::{
    AttributeProto, Dimension, DimensionValue, GraphProto, NodeProto, TensorProto, TensorShapeProto, TensorTypeProto,
    TypeProto, ValueInfoProto, data_type,
};
use super::stored::{Constant, Piece};

/// Constant subexpressions of at most this many elements are computed here, if not all are.
const FOLDED: usize = 1 << 16;

/// A lowered graph, and what it needs beside its nodes.
pub(super) struct Lowered {
    pub graph: GraphProto,
    /// The operator set that the graph needs.
    pub opset: i64,
    /// Weights in order of first use.
    pub constants: Vec<Constant>,
}

/// Lowers a function.
///
/// With `fold` every constant subexpression becomes one initializer; without, only small ones do, and the ops of others become
/// nodes over initializers of their leaves, so that nothing large has to be computed in memory. States become inputs (`NAME`) and outputs (`NAME_out`).
/// `extra` names values that become outputs too.
pub(super) fn lower(f: &Function, fold: bool, extra: &[String]) -> Result<Lowered> {
    let order = f.order();
    let constant = f.constants();
    let mut folded = HashSet::new();
    for &v in order.iter().filter(|v| constant.contains(v)) {
        // A compressed weight is stored as it is, in every mode.
        let compressed = matches!(f.op(v), Op::Compress(_));
        let of_folded = || f.operands(v).iter().all(|operand| folded.contains(operand));
        let small = || f.ty(v).elements() <= FOLDED && weights::over_compressed(f, v).is_none() && of_folded();
        if fold || compressed || small() {
            folded.insert(v);
        }
    }
    let (attentions, mut absorbed) = attention::of_tokens(f, &order);
    absorbed.extend(composite::modulated_norms(f, &order));
    let mut l = Lowering {
        f,
        names: names::Names::new(f, &order, &constant)?,
        folded,
        values: HashMap::new(),
        graph: GraphProto { name: f.name.clone(), ..GraphProto::default() },
        constants: Vec::new(),
        by_key: HashMap::new(),
        scope: "".into(),
        absorbed,
        opset: OPSET,
    };
    l.run(&order, &attentions, extra)?;
    Ok(Lowered { graph: l.graph, opset: l.opset, constants: l.constants })
}

struct Lowering<'a> {
    f: &'a Function,
    names: names::Names,
    /// Constants that become initializers, or vanish into one.
    folded: HashSet<ValueId>,
    /// ONNX value of each IR value.
    values: HashMap<ValueId, String>,
    graph: GraphProto,
    constants: Vec<Constant>,
    by_key: HashMap<String, String>,
    /// Provenance of the nodes that are being emitted.
    scope: Arc<str>,
    /// Values that are emitted together with their user: norms with a modulation, heads with an attention.
    absorbed: HashSet<ValueId>,
    /// The lowest operator set that has every op so far.
    opset: i64,
}

impl Lowering<'_> {
    fn run(&mut self, order: &[ValueId], attentions: &HashMap<ValueId, OfTokens>, extra: &[String]) -> Result<()> {
        let f = self.f;
        let outputs: Vec<(String, ValueId)> = names::outputs(f).collect();
        let live: HashSet<ValueId> = order.iter().copied().collect();
        for &v in order {
            let node = f.node(v);
            self.scope = node.scope.clone();
            if self.folded.contains(&v) {
                let used = f.users(v).iter().any(|(u, _)| live.contains(u) && !self.folded.contains(u));
                if used || outputs.iter().any(|(_, o)| *o == v) {
                    self.constant(v)?;
                }
                continue;
            }
            match &node.op {
                Op::Input(_) => self.input(v, String::new()),
                Op::State(s) => self.input(v, format!("State `{}` when the step is entered.", s.state)),
                Op::Load(_) | Op::Literal(_) | Op::RopeTable(_) | Op::FractionalRopeTable(_) => self.constant(v)?,
                _ if self.absorbed.contains(&v) => {}
                op => self
                    .op(v, op, attentions.get(&v))
                    .with_context(|| format!("cannot lower `{}` of `{}` to ONNX", op.name(), node.scope))?,
            }
        }
        for (name, v) in outputs {
            let doc = match name.strip_suffix("_out").filter(|s| f.updates.iter().any(|(u, _)| u == s)) {
                Some(state) => format!("State `{state}` when the step returns."),
                None => String::new(),
            };
            self.output(&name, v, doc)?;
        }
        for name in extra {
            if self.graph.output.iter().any(|o| o.name == *name) {
                continue;
            }
            match f.by_name(name).filter(|v| self.names.own(*v) == Some(name) && self.values.contains_key(v)) {
                Some(v) if !f.params().contains(&v) => self.output(name, v, String::new())?,
                _ => bail!("the model computes no value named `{name}`"),
            }
        }
        Ok(())
    }

    /// One match over the closed op set; each family is in its own file.
    fn op(&mut self, v: ValueId, op: &Op, attention: Option<&OfTokens>) -> Result<()> {
        if let Some(attention) = attention {
            return self.attention_of_tokens(v, attention);
        }
        match op {
            Op::Input(_)
            | Op::State(_)
            | Op::Load(_)
            | Op::Literal(_)
            | Op::RopeTable(_)
            | Op::FractionalRopeTable(_)
            | Op::Compress(_) => Ok(()),
            Op::Unary(kind) => self.unary(v, *kind),
            Op::Binary(kind) => self.binary(v, *kind),
            Op::Compare(kind) => self.compare(v, *kind),
            Op::Select(_) => self.select(v),
            Op::Cast(_) => self.cast(v),
            Op::Quantize(q) => self.quantize(v, q),
            Op::Dequantize(d) => self.dequantize(v, d),
            Op::Matmul(m) => self.matmul(v, m),
            Op::Linear(_) => self.linear(v),
            Op::Conv(c) => self.conv(v, c),
            Op::ConvTranspose(c) => self.conv_transpose(v, c),
            Op::Pool(p) => self.pool(v, p),
            Op::LayerNorm(n) => self.layer_norm(v, n),
            Op::Softmax(s) => self.softmax(v, s),
            Op::Reduce(r) => self.reduce(v, r),
            Op::ArgReduce(a) => self.arg_reduce(v, a),
            Op::CumSum(c) => self.cum_sum(v, c),
            Op::SortIndices(s) => self.sort_indices(v, s),
            Op::Reshape(r) => self.reshape(v, &r.shape),
            Op::Transpose(t) => self.transpose(v, &t.perm),
            Op::Concat(c) => self.concat(v, c),
            Op::Slice(s) => self.slice(v, s),
            Op::Pad(p) => self.pad(v, p),
            Op::DepthToSpace(d) => self.depth_to_space(v, d),
            Op::Upsample(_) => self.upsample(v),
            Op::Gather(g) => self.gather(v, g),
            Op::GatherAlongAxis(g) => self.gather_along_axis(v, g),
            Op::GatherNd(g) => self.gather_nd(v, g),
            Op::ScatterAlongAxis(s) => self.scatter_along_axis(v, s),
            Op::ScatterNd(s) => self.scatter_nd(v, s),
            Op::BroadcastTo(b) => self.broadcast_to(v, &b.shape),
            Op::RmsNorm(n) => self.rms_norm(v, n),
            Op::Rope(r) => self.rope(v, r),
            Op::Modulate(_) => self.modulate(v),
            Op::Sdpa(s) => self.sdpa(v, s),
            Op::FeatureMap(_)
            | Op::LinearAttention(_)
            | Op::LinearAttentionStep(_)
            | Op::RunningMean(_)
            | Op::FusionGate(_) => bail!("a composite: the pass `decompose` comes before"),
        }
    }

    /// The ONNX names of a value's operands.
    fn operands(&self, v: ValueId) -> Result<Vec<String>> {
        self.f.operands(v).into_iter().map(|o| self.stored(o)).collect()
    }

    fn stored(&self, v: ValueId) -> Result<String> {
        self.values.get(&v).cloned().context("an operand that was not lowered")
    }

    fn input(&mut self, v: ValueId, doc_string: String) {
        let name = self.names.own(v).unwrap_or_default().to_string();
        if !self.graph.input.iter().any(|i| i.name == name) {
            self.graph.input.push(ValueInfoProto { doc_string, ..value_info(&name, self.f.ty(v)) });
        }
        self.values.insert(v, name);
    }

    fn output(&mut self, name: &str, v: ValueId, doc_string: String) -> Result<()> {
        self.scope = self.f.node(v).scope.clone();
        let value = self.stored(v)?;
        if value != name {
            self.push("Identity", &[value], name.to_string(), Vec::new());
        }
        self.graph.output.push(ValueInfoProto { doc_string, ..value_info(name, self.f.ty(v)) });
        self.graph.value_info.retain(|i| i.name != name);
        Ok(())
    }

    /// A weight: an initializer, filled in by the writer, or several and the nodes that put them together. Equal expressions
    /// share them.
    fn constant(&mut self, v: ValueId) -> Result<()> {
        let key = ExpressionId::of(self.f, v).to_string();
        let name = match self.by_key.get(&key) {
            Some(name) => name.clone(),
            None => {
                let name = match self.names.own(v) {
                    Some(name) => name.to_string(),
                    None => {
                        let wanted = self.constant_name(v);
                        self.names.unique(&wanted)
                    }
                };
                self.by_key.insert(key, name.clone());
                match (self.f.op(v), weights::over_compressed(self.f, v)) {
                    (Op::Compress(c), _) => self.compressed(v, &name, c.scheme)?,
                    (_, Some(op)) => {
                        bail!("the constant `{name}` is `{op}` of a compressed weight: it would be stored uncompressed")
                    }
                    _ => self.constants.push(Constant { name: name.clone(), value: v, piece: Piece::Whole }),
                }
                name
            }
        };
        self.values.insert(v, name);
        Ok(())
    }

    /// A checkpoint tensor keeps its name; other constants are called by what they are and where they are used first.
    fn constant_name(&self, v: ValueId) -> String {
        if let Some(tensor) = weights::loaded_tensor(self.f, v) {
            return tensor.to_string();
        }
        match self.f.op(v) {
            Op::Literal(l) if l.values.len() == 1 => format!("const_{}", l.values[0]),
            op => self.under_scope(op.name()),
        }
    }

    /// Emits a node whose output is the IR value `v`.
    fn emit(&mut self, v: ValueId, op_type: &str, inputs: &[String], attributes: Vec<AttributeProto>) {
        let name = match self.names.own(v) {
            Some(name) => name.to_string(),
            None => self.fresh(self.f.op(v).name()),
        };
        self.graph.value_info.push(value_info(&name, self.f.ty(v)));
        self.push(op_type, inputs, name.clone(), attributes);
        self.values.insert(v, name);
    }

    /// Emits a node for an intermediate value and returns its name.
    fn step(&mut self, op_type: &str, inputs: &[String], attributes: Vec<AttributeProto>) -> String {
        let name = self.fresh(&op_type.to_lowercase());
        self.push(op_type, inputs, name.clone(), attributes);
        name
    }

    fn push(&mut self, op_type: &str, inputs: &[String], output: String, attribute: Vec<AttributeProto>) {
        let name = self.names.node(&self.scope, op_type);
        self.graph.node.push(NodeProto {
            input: inputs.to_vec(),
            output: vec![output],
            name,
            op_type: op_type.into(),
            attribute,
            ..NodeProto::default()
        });
    }

    /// A new value name under the current provenance.
    fn fresh(&mut self, what: &str) -> String {
        let wanted = self.under_scope(what);
        self.names.unique(&wanted)
    }

    fn under_scope(&self, what: &str) -> String {
        if self.scope.is_empty() { what.to_string() } else { format!("{}/{what}", self.scope) }
    }

    /// A small int64 tensor, as shapes and axes are given to ONNX ops.
    fn ints(&mut self, values: &[usize]) -> String {
        let key = format!("ints {values:?}");
        if let Some(name) = self.by_key.get(&key) {
            return name.clone();
        }
        let joined: Vec<String> = values.iter().map(ToString::to_string).collect();
        let name = self.names.unique(&format!("ints_{}", joined.join("_")));
        self.graph.initializer.push(TensorProto {
            dims: vec![values.len() as i64],
            data_type: data_type(DType::I64),
            name: name.clone(),
            raw_data: values.iter().flat_map(|v| (*v as i64).to_le_bytes()).collect(),
            ..TensorProto::default()
        });
        self.by_key.insert(key, name.clone());
        name
    }

    /// A tensor filled with one number, in a dtype of the ONNX graph.
    fn filled(&mut self, value: f64, ty: &TensorType) -> String {
        let key = format!("fill {value} {ty}");
        if let Some(name) = self.by_key.get(&key) {
            return name.clone();
        }
        let name = self.names.unique(&format!("fill_{value}"));
        self.graph.initializer.push(TensorProto {
            dims: ty.shape.iter().map(|d| *d as i64).collect(),
            data_type: data_type(ty.dtype),
            name: name.clone(),
            raw_data: s2dit_ir::Tensor::splat(ty, value).to_le_bytes().into(),
            ..TensorProto::default()
        });
        self.by_key.insert(key, name.clone());
        name
    }
}

pub(super) fn value_info(name: &str, ty: &TensorType) -> ValueInfoProto {
    let dim = |d: &usize| Dimension { value: Some(DimensionValue::Value(*d as i64)) };
    let shape = TensorShapeProto { dim: ty.shape.iter().map(dim).collect() };
    let tensor_type = TensorTypeProto { elem_type: data_type(ty.dtype), shape: Some(shape) };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto { tensor_type: Some(tensor_type) }),
        doc_string: String::new(),
    }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, r#type: 2, ..AttributeProto::default() }
}

fn float(name: &str, f: f64) -> AttributeProto {
    AttributeProto { name: name.into(), f: f as f32, r#type: 1, ..AttributeProto::default() }
}

fn string(name: &str, s: &str) -> AttributeProto {
    AttributeProto { name: name.into(), s: s.as_bytes().to_vec(), r#type: 3, ..AttributeProto::default() }
}

fn ints(name: &str, values: impl IntoIterator<Item = usize>) -> AttributeProto {
    let ints = values.into_iter().map(|v| v as i64).collect();
    AttributeProto { name: name.into(), ints, r#type: 7, ..AttributeProto::default() }
}
