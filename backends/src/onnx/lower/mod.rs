//! IR function → ONNX graph.

mod elementwise;
mod names;
mod norm;
mod product;
mod shape;

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, bail};
use s2dit_ir::ops::Op;
use s2dit_ir::{DType, Function, TensorType, ValueId, weights};

use super::proto::{
    AttributeProto, Dimension, DimensionValue, GraphProto, NodeProto, TensorProto, TensorShapeProto, TensorTypeProto,
    TypeProto, ValueInfoProto, data_type,
};

/// How fp16 values are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// As typed: fp16 ops are fp16 ops of the engine.
    AsTyped,
    /// Everything in fp32; only inputs and weights are fp16 numbers.
    F32Compute,
    /// Computed in fp32, the result of every fp16 op rounded to fp16: how the Neural Engine stores values.
    F16Results,
}

/// What a lowered graph needs beside its nodes.
pub(super) struct Lowered {
    pub graph: GraphProto,
    /// Weights in order of first use: (initializer name, value of the function).
    pub constants: Vec<(String, ValueId)>,
    /// Nodes without constants.
    pub ops: usize,
}

/// Lowers a function.
///
/// With `fold` a constant subexpression becomes one initializer; without, its ops become nodes over initializers of its
/// leaves, so that nothing large has to be computed in memory.
pub(super) fn lower(f: &Function, round: Round, fold: bool, extra: &[String]) -> Result<Lowered> {
    let mut l = Lowering {
        f,
        round,
        names: names::Names::new(f),
        values: HashMap::new(),
        graph: GraphProto { name: f.name.clone(), ..GraphProto::default() },
        constants: Vec::new(),
        by_key: HashMap::new(),
        at: None,
    };
    l.run(fold, extra)?;
    let ops = l.graph.node.len();
    Ok(Lowered { graph: l.graph, constants: l.constants, ops })
}

struct Lowering<'a> {
    f: &'a Function,
    round: Round,
    names: names::Names,
    /// ONNX value of each IR value.
    values: HashMap<ValueId, String>,
    graph: GraphProto,
    constants: Vec<(String, ValueId)>,
    by_key: HashMap<String, String>,
    /// The IR value that is being lowered: provenance of the nodes.
    at: Option<ValueId>,
}

impl Lowering<'_> {
    fn run(&mut self, fold: bool, extra: &[String]) -> Result<()> {
        let f = self.f;
        let results: HashSet<ValueId> = f.results.iter().chain(&f.updates).map(|(_, v)| *v).collect();
        for v in f.order() {
            self.at = Some(v);
            let node = f.node(v);
            let constant = f.is_const(v);
            if constant && fold {
                let needed = results.contains(&v) || f.users(v).iter().any(|(u, _)| !f.is_const(*u));
                if needed {
                    self.constant(v);
                }
                continue;
            }
            match &node.op {
                Op::Input(_) => {
                    let name = node.name.as_deref().context("a parameter without a name")?.to_string();
                    self.input(v, &name);
                }
                Op::State(s) => self.input(v, &s.state),
                Op::Load(_) | Op::Literal(_) | Op::RopeTable(_) => self.constant(v),
                op => {
                    self.op(v, op)
                        .with_context(|| format!("cannot lower `{}` of `{}` to ONNX", op.name(), node.scope))?;
                    if self.round == Round::F16Results && node.ty.dtype == DType::F16 && !constant && computes(op) {
                        self.round_result(v);
                    }
                }
            }
        }
        self.at = None;
        let outputs: Vec<(String, ValueId)> =
            f.results.iter().cloned().chain(f.updates.iter().map(|(s, v)| (format!("{s}_out"), *v))).collect();
        for (name, v) in outputs {
            self.output(&name, v)?;
        }
        for name in extra {
            let Some(v) = f.by_name(name).filter(|v| self.values.contains_key(v)) else {
                bail!("the model has no value named `{name}`");
            };
            if !self.graph.output.iter().any(|o| o.name == *name) {
                self.output(name, v)?;
            }
        }
        Ok(())
    }

    /// One match over the closed op set; each family is in its own file.
    fn op(&mut self, v: ValueId, op: &Op) -> Result<()> {
        match op {
            Op::Input(_) | Op::State(_) | Op::Load(_) | Op::Literal(_) | Op::RopeTable(_) => Ok(()),
            Op::Unary(kind) => self.unary(v, *kind),
            Op::Binary(kind) => self.binary(v, *kind),
            Op::Cast(_) => self.cast(v),
            Op::Matmul(m) => self.matmul(v, m),
            Op::Linear(_) => self.linear(v),
            Op::Conv(c) => self.conv(v, c),
            Op::LayerNorm(n) => self.layer_norm(v, n),
            Op::Softmax(s) => self.softmax(v, s),
            Op::Reduce(r) => self.reduce(v, r),
            Op::Reshape(r) => self.reshape(v, &r.shape),
            Op::Transpose(t) => self.transpose(v, &t.perm),
            Op::Concat(c) => self.concat(v, c),
            Op::Slice(s) => self.slice(v, s),
            Op::Pad(p) => self.pad(v, p),
            Op::Gather(g) => self.gather(v, g),
            Op::BroadcastTo(b) => self.broadcast_to(v, &b.shape),
        }
    }

    /// The dtype that a value has in the ONNX graph.
    fn dtype(&self, v: ValueId) -> DType {
        self.as_computed(self.f.dtype(v))
    }

    fn as_computed(&self, dtype: DType) -> DType {
        if self.round != Round::AsTyped && dtype == DType::F16 { DType::F32 } else { dtype }
    }

    fn ty(&self, v: ValueId) -> TensorType {
        self.f.ty(v).with_dtype(self.dtype(v))
    }

    /// The ONNX names of a value's operands.
    fn operands(&self, v: ValueId) -> Result<Vec<String>> {
        let name = |o| self.values.get(o).cloned().context("an operand that was not lowered");
        self.f.operands(v).iter().map(name).collect()
    }

    fn input(&mut self, v: ValueId, name: &str) {
        let ty = self.ty(v);
        self.graph.input.push(value_info(name, &ty));
        self.values.insert(v, name.to_string());
        if self.round != Round::AsTyped && self.f.dtype(v) == DType::F16 {
            // The interface is fp16: so are the numbers that come in.
            self.round_result(v);
        }
    }

    fn output(&mut self, name: &str, v: ValueId) -> Result<()> {
        let ty = self.ty(v);
        let source = self.values.get(&v).cloned().context("a result that was not lowered")?;
        if source != name {
            self.push("Identity", &[source], name.to_string(), Vec::new());
        }
        self.graph.output.push(value_info(name, &ty));
        self.graph.value_info.retain(|i| i.name != name);
        Ok(())
    }

    /// A weight: an initializer, filled in by the writer.
    fn constant(&mut self, v: ValueId) {
        let key = weights::constant_key(self.f, v);
        let name = match self.by_key.get(&key) {
            Some(name) => name.clone(),
            None => {
                let wanted = match (weights::loaded_tensor(self.f, v), &self.f.node(v).name) {
                    (_, Some(name)) => name.to_string(),
                    (Some(tensor), None) => tensor.to_string(),
                    (None, None) => format!("{}.constant", self.f.node(v).scope).trim_start_matches('.').to_string(),
                };
                let name = self.names.unique(&wanted);
                self.by_key.insert(key, name.clone());
                self.constants.push((name.clone(), v));
                name
            }
        };
        let stored = self.f.dtype(v);
        if self.dtype(v) == stored {
            self.values.insert(v, name);
        } else {
            // An fp16 weight that is computed with in fp32.
            let wide = self.fresh("cast");
            self.push("Cast", &[name], wide.clone(), vec![int("to", i64::from(data_type(DType::F32)))]);
            self.values.insert(v, wide);
        }
    }

    /// Replaces a value by itself rounded to fp16.
    fn round_result(&mut self, v: ValueId) {
        let Some(x) = self.values.get(&v).cloned() else { return };
        let half = self.fresh("fp16");
        let back = match &self.f.node(v).name {
            Some(name) if *name.as_ref() != *x => name.to_string(),
            _ => self.fresh("rounded"),
        };
        self.push("Cast", &[x], half.clone(), vec![int("to", i64::from(data_type(DType::F16)))]);
        self.push("Cast", &[half], back.clone(), vec![int("to", i64::from(data_type(DType::F32)))]);
        self.values.insert(v, back);
    }

    /// Emits a node whose output is the IR value `v`.
    fn emit(&mut self, v: ValueId, op_type: &str, inputs: &[String], attributes: Vec<AttributeProto>) {
        let rounds = self.round == Round::F16Results && self.f.dtype(v) == DType::F16 && computes(self.f.op(v));
        let name = match &self.f.node(v).name {
            // The rounded value is the one that bears the name.
            Some(name) if !rounds => name.to_string(),
            _ => self.fresh(self.f.op(v).name()),
        };
        let ty = self.ty(v);
        self.graph.value_info.push(value_info(&name, &ty));
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
        let scope = self.at.map(|v| self.f.node(v).scope.to_string()).unwrap_or_default();
        let name = self.names.node(&scope, op_type);
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
        let scope = self.at.map(|v| self.f.node(v).scope.to_string()).unwrap_or_default();
        let base = if scope.is_empty() { what.to_string() } else { format!("{scope}/{what}") };
        self.names.unique(&base)
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
            raw_data: s2dit_ir::Tensor::splat(ty, value).to_le_bytes(),
            ..TensorProto::default()
        });
        self.by_key.insert(key, name.clone());
        name
    }
}

/// `false` for ops that only move numbers: rounding their result again changes nothing.
fn computes(op: &Op) -> bool {
    !matches!(
        op,
        Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Concat(_)
            | Op::Slice(_)
            | Op::Gather(_)
            | Op::BroadcastTo(_)
            | Op::Input(_)
            | Op::State(_)
    )
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
