//! The walk over a graph's nodes, the functions that they call and the branches that are taken.

use std::collections::{BTreeMap, HashMap, HashSet};

use s2dit_backends::onnx::proto::{FunctionProto, GraphProto, NodeProto, TensorProto};
use s2dit_backends::onnx::read::{Model, standard};
use s2dit_files::problems::{Problem, Problems, quoted, shown};
use s2dit_ir::interp::{Bindings, evaluate};
use s2dit_ir::{DType, Op, OpError, Tensor, ValueId};

use super::node::{Given, Node, Stop, broken, not_read};
use super::ops;
use super::scope;
use super::weights::Weights;
use crate::{Tracer, Unsupported, Value};

/// Nodes that are walked, those of functions once for each call.
const MOST_NODES: usize = 1 << 18;
/// Functions and branches inside one another.
const DEEPEST: usize = 32;
/// Elements of a constant that is evaluated because an op must know its numbers.
const MOST_NUMBERS: usize = 1 << 16;

/// What a name stands for.
#[derive(Clone)]
enum Named<'m> {
    Value(Value),
    /// A tensor of the file that nobody has asked for yet.
    Stored(&'m TensorProto),
    /// What depends on an op that is not read.
    Unread,
}

/// The names that nodes see.
struct Frame<'m> {
    /// Names of a graph, and of the branches around a node in it, the innermost last.
    layers: Vec<HashMap<&'m str, Named<'m>>>,
    /// Attributes of the call, in a function.
    given: Given<'m>,
    opsets: BTreeMap<&'m str, i64>,
    /// The module path of the call, in a function.
    path: String,
}

/// A graph that is read.
pub(super) struct Walk<'m> {
    /// What is written.
    pub t: Tracer,
    pub(super) weights: Weights,
    model: &'m Model,
    functions: HashMap<(&'m str, &'m str, &'m str), &'m FunctionProto>,
    unsupported: Unsupported,
    nodes: usize,
    depth: usize,
    place: String,
    /// Loads by the address of their tensor, so that each is in the graph once.
    loaded: HashMap<*const TensorProto, Value>,
    /// Values of the graph that are booleans in the file.
    pub(super) bools: HashSet<ValueId>,
    /// Comparisons of floats, which have no value of their own, by what stands in for them: a choice may take them away.
    pub(super) comparisons: HashMap<ValueId, ops::Comparison>,
    /// Values of the graph of which rows were written over.
    pub(super) written: HashMap<ValueId, ops::Written>,
    /// Whether a value of the graph is a weight expression, of those that were asked about.
    constants: HashMap<ValueId, bool>,
}

impl<'m> Walk<'m> {
    pub(super) fn new(model: &'m Model) -> Result<Walk<'m>, Problems> {
        let key = |f: &'m FunctionProto| ((standard(&f.domain), f.name.as_str(), f.overload.as_str()), f);
        Ok(Walk {
            t: Tracer::new(),
            weights: Weights::new(model)?,
            model,
            functions: model.functions().iter().map(key).collect(),
            unsupported: Unsupported::default(),
            nodes: 0,
            depth: 0,
            place: model.path().display().to_string(),
            loaded: HashMap::new(),
            bools: HashSet::new(),
            comparisons: HashMap::new(),
            written: HashMap::new(),
            constants: HashMap::new(),
        })
    }

    /// Walks the graph from its inputs to its results. What is not read is an error in the end.
    pub(super) fn run(&mut self, inputs: HashMap<&'m str, Value>) -> Result<Vec<(String, Value)>, Problems> {
        let graph = self.model.graph();
        let mut layer: HashMap<&'m str, Named<'m>> =
            inputs.into_iter().map(|(name, value)| (name, Named::Value(value))).collect();
        self.stored(graph, &mut layer)?;
        let mut frame =
            Frame { layers: vec![layer], given: Given::new(), opsets: self.model.opsets(), path: String::new() };
        self.walk(&graph.node, &mut frame)?;
        let mut results = Vec::new();
        for output in &graph.output {
            match self.named(&output.name, &mut frame)? {
                Some(Some(Value::Graph(v))) if self.comparisons.contains_key(&v) => {
                    self.unsupported.add("output", &output.name, ops::COMPARED);
                }
                Some(Some(value)) => results.push((output.name.clone(), value)),
                Some(None) => {}
                None => {
                    let place = format!("{}: output {}", self.place, quoted(&output.name));
                    return Err(Problems::one(place, "no node that gives it", "an output of a node"));
                }
            }
        }
        std::mem::take(&mut self.unsupported).into_result(&self.place, ops::REWRITES, "ops of docs/import.md")?;
        Ok(results)
    }

    /// Puts a graph's initializers among the names.
    fn stored(&mut self, graph: &'m GraphProto, layer: &mut HashMap<&'m str, Named<'m>>) -> Result<(), Problems> {
        if let Some(sparse) = graph.sparse_initializer.first() {
            let name = sparse.values.as_ref().map_or("", |values| values.name.as_str());
            let place = format!("{}: tensor {}", self.place, quoted(name));
            return Err(Problems::one(place, "a sparse tensor", "a dense one (onnx.helper converts it)"));
        }
        layer.extend(graph.initializer.iter().map(|t| (t.name.as_str(), Named::Stored(t))));
        Ok(())
    }

    /// The value of a name; `Some(None)` if it depends on an op that is not read, `None` if nothing has the name.
    fn named(&mut self, name: &str, frame: &mut Frame<'m>) -> Result<Option<Option<Value>>, Problems> {
        let Some(named) = frame.layers.iter().rev().find_map(|layer| layer.get(name)) else { return Ok(None) };
        match named {
            Named::Value(value) => Ok(Some(Some(value.clone()))),
            Named::Unread => Ok(Some(None)),
            Named::Stored(tensor) => {
                let tensor = *tensor;
                self.load(tensor, &tensor.name).map(|value| Some(Some(value)))
            }
        }
    }

    /// A tensor of the file: numbers where they say shapes or positions, else a weight of this name.
    fn load(&mut self, tensor: &TensorProto, name: &str) -> Result<Value, Problems> {
        let key = std::ptr::from_ref(tensor);
        if let Some(value) = self.loaded.get(&key) {
            return Ok(value.clone());
        }
        let numbers = self.weights.numbers(self.model, tensor, MOST_NUMBERS)?;
        // Masks become literals, whose elements are finite; other lists of floats are weights.
        let kept = numbers.filter(|t| {
            let weights = t.dtype.is_float() || matches!(t.dtype, DType::I8 | DType::U8);
            !weights || t.data.len() <= 1 || t.data.iter().any(|x| *x < ops::NEVER)
        });
        let value = match kept {
            Some(numbers) => Value::Known(numbers),
            None => {
                let (name, ty) = self.weights.add(self.model, name, tensor)?;
                self.weight(&name, &ty).map_err(|error| {
                    Problems::one(
                        format!("{}: tensor {}", self.place, quoted(&name)),
                        error.0,
                        "a tensor with elements",
                    )
                })?
            }
        };
        self.loaded.insert(key, value.clone());
        Ok(value)
    }

    /// The tensor of a `Constant`, whose output has this name.
    pub(super) fn constant(&mut self, tensor: &TensorProto, name: &str) -> Result<Value, Stop> {
        self.load(tensor, name).map_err(Stop::Tensor)
    }

    /// The number in a tensor of one.
    pub(super) fn small(&mut self, tensor: &TensorProto) -> Result<Option<Tensor>, Stop> {
        self.weights.numbers(self.model, tensor, 1).map_err(Stop::Tensor)
    }

    /// A weight as a value: small integers stay what they are, since they are scaled later.
    fn weight(&mut self, name: &str, ty: &s2dit_ir::TensorType) -> Result<Value, OpError> {
        if !matches!(ty.dtype, DType::I8 | DType::U8) {
            return self.t.load(name, ty);
        }
        crate::trace::check_size(&ty.shape)?;
        let path = name.rsplit_once('.').map_or("", |(path, _)| path);
        let load = s2dit_ir::ops::Load { tensor: name.into() };
        self.t.f.add_leaf(load.into(), ty, path).map(Value::Graph)
    }

    fn walk(&mut self, nodes: &'m [NodeProto], frame: &mut Frame<'m>) -> Result<(), Problems> {
        for node in nodes {
            self.nodes += 1;
            if self.nodes > MOST_NODES {
                let found = format!("more than {MOST_NODES} nodes, with those of functions at each call");
                return Err(Problems::one(&self.place, found, "a graph of at most as many"));
            }
            self.node(node, frame)?;
        }
        Ok(())
    }

    fn node(&mut self, proto: &'m NodeProto, frame: &mut Frame<'m>) -> Result<(), Problems> {
        let mut inputs = Vec::with_capacity(proto.input.len());
        let mut unread = false;
        for name in &proto.input {
            if name.is_empty() {
                inputs.push(None);
                continue;
            }
            match self.named(name, frame)? {
                Some(Some(value)) => inputs.push(Some(self.written_out(value))),
                Some(None) => unread = true,
                None => {
                    let found = format!("input {}, which nothing above gives", quoted(name));
                    return Err(self.problem(proto, &found, "a graph in topological order").into());
                }
            }
        }
        let path = scope::of(proto, &frame.path).unwrap_or_else(|| self.path_of(&inputs));
        let domain = standard(&proto.domain);
        let version = frame.opsets.get(domain).copied().unwrap_or(1);
        let handler = ops::handler(domain, &proto.op_type);
        let function = self.functions.get(&(domain, proto.op_type.as_str(), proto.overload.as_str())).copied();
        let shown_op = if domain.is_empty() { proto.op_type.clone() } else { format!("{domain}.{}", proto.op_type) };
        let made = match (unread, handler, function) {
            (_, None, None) if proto.op_type != "If" || !domain.is_empty() => {
                self.unsupported.add(&shown_op, &path, "");
                None
            }
            (true, ..) => None,
            (false, Some(handler), _) => {
                self.t.at(&path);
                let node = Node::new(proto, version, inputs, &frame.given);
                self.settle(proto, &shown_op, &path, |walk| match walk.compared(&node) {
                    true => not_read!("{}", ops::COMPARED),
                    false => handler(walk, &node),
                })?
            }
            (false, None, Some(function)) => {
                let node = Node::new(proto, version, inputs, &frame.given);
                self.call(function, &node, path.clone())?
            }
            (false, None, None) => {
                let node = Node::new(proto, version, inputs, &frame.given);
                match self.branch(&node) {
                    Ok(graph) => Some(self.enter(graph, proto, frame)?),
                    Err(stop) => self.settle(proto, &shown_op, &path, |_| Err(stop))?,
                }
            }
        };
        let named: Vec<Named<'m>> = match made {
            Some(values) => values,
            None => vec![Named::Unread; proto.output.len()],
        };
        if let Some(missing) = proto.output.iter().skip(named.len()).find(|name| !name.is_empty()) {
            let found = format!("output {}, beyond what the op gives here", quoted(missing));
            return Err(self.problem(proto, &found, &format!("{} outputs", named.len())).into());
        }
        let layer = frame.layers.last_mut();
        if let Some(layer) = layer {
            for (name, value) in proto.output.iter().zip(named).filter(|(name, _)| !name.is_empty()) {
                if layer.insert(name, value).is_some() {
                    return Err(self
                        .problem(proto, &format!("output {}, a name in use", quoted(name)), "each name once")
                        .into());
                }
            }
        }
        Ok(())
    }

    /// The module path of what a node reads: exporters' optimisers leave nodes without one of their own.
    fn path_of(&self, inputs: &[Option<Value>]) -> String {
        let scopes = inputs.iter().flatten().filter_map(|value| match value {
            Value::Graph(v) => Some(&self.t.f.node(*v).scope),
            _ => None,
        });
        scopes.into_iter().find(|scope| !scope.is_empty()).map(ToString::to_string).unwrap_or_default()
    }

    /// What a handler gives, its refusals among those that are told in the end.
    fn settle(
        &mut self,
        proto: &NodeProto,
        op: &str,
        path: &str,
        handler: impl FnOnce(&mut Self) -> super::node::Made,
    ) -> Result<Option<Vec<Named<'m>>>, Problems> {
        match handler(self) {
            Ok(values) => Ok(Some(values.into_iter().map(Named::Value).collect())),
            Err(Stop::NotRead(why)) => {
                self.unsupported.add(op, path, &plain(&why));
                Ok(None)
            }
            Err(Stop::Tensor(problems)) => Err(problems),
            Err(Stop::Broken(found)) => Err(self.problem(proto, &found, "a node as onnx's checker wants it").into()),
        }
    }

    fn problem(&self, node: &NodeProto, found: &str, expected: &str) -> Problem {
        let name = node.output.iter().find(|name| !name.is_empty()).unwrap_or(&node.name);
        let place = format!("{}: {} of {}", self.place, shown(&node.op_type), quoted(name));
        Problem { place, found: plain(found), expected: expected.into() }
    }

    /// The values that a call of a function gives: its nodes are walked with the call's inputs in their place.
    fn call(
        &mut self,
        function: &'m FunctionProto,
        node: &Node<'m>,
        path: String,
    ) -> Result<Option<Vec<Named<'m>>>, Problems> {
        let given = function.attribute_proto.iter().map(|a| (a.name.as_str(), a)).chain(node.given()).collect();
        let mut layer: HashMap<&'m str, Named<'m>> = HashMap::new();
        for (i, name) in function.input.iter().enumerate() {
            if let Some(value) = node.optional(i) {
                layer.insert(name, Named::Value(value.clone()));
            }
        }
        let mut opsets = self.model.opsets();
        opsets.extend(function.opset_import.iter().map(|o| (standard(&o.domain), o.version)));
        let mut frame = Frame { layers: vec![layer], given, opsets, path };
        self.deeper(node.proto)?;
        self.walk(&function.node, &mut frame)?;
        self.depth -= 1;
        let mut outputs = Vec::new();
        for name in &function.output {
            outputs.push(self.output(name, &mut frame, node.proto)?);
        }
        Ok(Some(outputs))
    }

    fn deeper(&mut self, proto: &NodeProto) -> Result<(), Problems> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self
                .problem(proto, &format!("{DEEPEST} functions or branches inside one another"), "fewer")
                .into());
        }
        Ok(())
    }

    /// An output of a function or branch.
    fn output(&mut self, name: &str, frame: &mut Frame<'m>, proto: &NodeProto) -> Result<Named<'m>, Problems> {
        match self.named(name, frame)? {
            Some(value) => Ok(value.map_or(Named::Unread, Named::Value)),
            None => Err(self
                .problem(proto, &format!("output {} that no node gives", quoted(name)), "an output of a node")
                .into()),
        }
    }

    /// The branch that an `If` takes.
    fn branch(&mut self, node: &Node<'m>) -> Result<&'m GraphProto, Stop> {
        let condition = self.numbers(node.input(0)?)?;
        let Some(condition) = condition.and_then(|c| c.data.first().copied()) else {
            not_read!("the condition is computed by the model: only branches that are settled before are read");
        };
        let name = if condition == 0.0 { "else_branch" } else { "then_branch" };
        match node.graph(name)? {
            Some(graph) => Ok(graph),
            None => broken!("attribute `{name}` is missing"),
        }
    }

    /// Walks a branch, which sees the names around it.
    fn enter(
        &mut self,
        graph: &'m GraphProto,
        proto: &NodeProto,
        frame: &mut Frame<'m>,
    ) -> Result<Vec<Named<'m>>, Problems> {
        let mut layer = HashMap::new();
        self.stored(graph, &mut layer)?;
        frame.layers.push(layer);
        self.deeper(proto)?;
        self.walk(&graph.node, frame)?;
        self.depth -= 1;
        let outputs = graph.output.iter().map(|o| self.output(&o.name, frame, proto)).collect();
        frame.layers.pop();
        outputs
    }

    /// A known value of one number throughout as a tensor, unless it is large: readers of ops then have one case less.
    fn written_out(&self, value: Value) -> Value {
        match value {
            Value::Filled(ty, x) if ty.elements() <= MOST_NUMBERS => Value::Known(Tensor::splat(&ty, x)),
            value => value,
        }
    }

    /// Whether a node other than a choice reads a comparison of floats.
    fn compared(&self, node: &Node) -> bool {
        let stands_in = |v: &Value| matches!(v, Value::Graph(v) if self.comparisons.contains_key(v));
        node.op() != "Where" && node.inputs.iter().flatten().any(stands_in)
    }

    /// The numbers of a value, unless the model computes them or they are too many.
    pub(super) fn numbers(&mut self, value: &Value) -> Result<Option<Tensor>, OpError> {
        let v = match value {
            Value::Graph(v) => *v,
            Value::Filled(ty, _) if ty.elements() > MOST_NUMBERS => return Ok(None),
            known => return self.t.tensor(known),
        };
        if self.t.f.ty(v).elements() > MOST_NUMBERS || !self.is_constant(v) || self.computes_much(v) {
            return Ok(None);
        }
        let evaluated = evaluate(&self.t.f, &[v], &self.weights, &Bindings::default());
        evaluated.map(|mut values| values.pop()).map_err(|error| OpError::new(error.to_string()))
    }

    /// Whether a value of the graph depends on no input.
    pub(super) fn is_constant(&mut self, v: ValueId) -> bool {
        let mut stack = vec![v];
        while let Some(&at) = stack.last() {
            let operands = self.t.f.operands(at);
            if let Some(next) = operands.iter().find(|o| !self.constants.contains_key(o)) {
                stack.push(*next);
                continue;
            }
            let input = matches!(self.t.f.op(at), Op::Input(_));
            let constant = !input && operands.iter().all(|o| self.constants[o]);
            self.constants.insert(at, constant);
            stack.pop();
        }
        self.constants[&v]
    }

    /// Whether a constant is computed from anything large.
    fn computes_much(&self, v: ValueId) -> bool {
        let mut ahead = vec![v];
        let mut seen = HashSet::new();
        while let Some(v) = ahead.pop() {
            if self.t.f.ty(v).elements() > MOST_NUMBERS {
                return true;
            }
            ahead.extend(self.t.f.operands(v).into_iter().filter(|o| seen.insert(*o)));
        }
        false
    }

    /// Integers that an op must know.
    pub(super) fn integers(&mut self, value: &Value, what: &str) -> Result<Vec<i64>, Stop> {
        match self.numbers(value)? {
            Some(tensor) => Ok(tensor.data.iter().map(|x| *x as i64).collect()),
            None => not_read!("{what} must be known before the model runs"),
        }
    }

    /// Numbers that an op must know.
    pub(super) fn floats(&mut self, value: &Value, what: &str) -> Result<Vec<f64>, Stop> {
        match self.numbers(value)? {
            Some(tensor) => Ok(tensor.data.iter().copied().collect()),
            None => not_read!("{what} must be known before the model runs"),
        }
    }
}

/// Text that quotes what a file says, on one line and not too long.
fn plain(text: &str) -> String {
    const LONGEST: usize = 300;
    text.chars().take(LONGEST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
