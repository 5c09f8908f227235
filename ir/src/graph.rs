//! Functions as graphs of single-assignment values.

use std::collections::HashSet;
use std::sync::Arc;

use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::{EdgeRef, NodeIndexable};

use crate::interface::Interface;
use crate::ops::{self, Cost, Op, OpError};
use crate::{DType, TensorType};

/// A value: the one result of the node with this index.
pub type ValueId = NodeIndex;

/// An op, the type of its result, and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The op with its attributes.
    pub op: Op,
    /// Type of the result.
    pub ty: TensorType,
    /// Provenance: the checkpoint's module path, such as `blocks.3.attn1.to_q`; empty for glue.
    pub scope: Arc<str>,
    /// A stable value name (`latent`, `block0`), unique in the function and kept in emitted files.
    pub name: Option<Arc<str>>,
}

/// A named typed buffer that outlives calls.
#[derive(Clone, Debug, PartialEq)]
pub struct StateDecl {
    /// Name, unique in the module.
    pub name: String,
    /// Type of the buffer; it starts as zeros.
    pub ty: TensorType,
}

/// Functions that share states and a weight source.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// States that functions read and update.
    pub states: Vec<StateDecl>,
    /// The functions; the first is the default one.
    pub functions: Vec<Function>,
    /// What the functions' inputs and results are for; empty for a graph that nobody has described.
    pub interface: Interface,
}

impl Module {
    /// A module of one function and no state.
    pub fn single(function: Function) -> Self {
        Module { functions: vec![function], ..Module::default() }
    }

    /// The function called `name`.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|f| f.name == name)
    }

    /// The state called `name`.
    pub fn state(&self, name: &str) -> Option<&StateDecl> {
        self.states.iter().find(|s| s.name == name)
    }
}

/// A pure function from parameters and states to results and state updates.
///
/// Edges of the graph carry the operand's position. Nodes that no result or update needs are dead: [`Function::order`]
/// skips them and [`Function::remove_dead`] deletes them.
#[derive(Clone, Debug)]
pub struct Function {
    /// Name, unique in the module.
    pub name: String,
    graph: StableDiGraph<Node, usize>,
    params: Vec<ValueId>,
    /// Named results, in order.
    pub results: Vec<(String, ValueId)>,
    /// States written when the function returns: (state, new value).
    pub updates: Vec<(String, ValueId)>,
}

impl Function {
    /// An empty function.
    pub fn new(name: impl Into<String>) -> Self {
        Function {
            name: name.into(),
            graph: StableDiGraph::new(),
            params: Vec::new(),
            results: Vec::new(),
            updates: Vec::new(),
        }
    }

    /// Adds a parameter. Its node is an `input` op named `name`.
    pub fn add_param(&mut self, name: &str, ty: TensorType) -> ValueId {
        let node = Node { op: Op::Input(ops::Input {}), ty, scope: "".into(), name: Some(name.into()) };
        let id = self.graph.add_node(node);
        self.params.push(id);
        id
    }

    /// The parameters, in order.
    pub fn params(&self) -> &[ValueId] {
        &self.params
    }

    /// Deletes parameters that nothing uses, except those in `keep`.
    pub fn remove_unused_params(&mut self, keep: &[&str]) {
        let live: HashSet<ValueId> = {
            let mut used: HashSet<ValueId> = self.results.iter().chain(&self.updates).map(|(_, v)| *v).collect();
            for v in self.order() {
                used.extend(self.operands(v));
            }
            used
        };
        let kept = |node: &Node| node.name.as_deref().is_some_and(|n| keep.contains(&n));
        let (stay, go): (Vec<ValueId>, Vec<ValueId>) =
            self.params.iter().partition(|&&p| live.contains(&p) || kept(&self.graph[p]));
        self.params = stay;
        for p in go {
            self.graph.remove_node(p);
        }
    }

    /// Adds an op whose type follows from its operands.
    ///
    /// # Errors
    /// The op's own constraints on its operands.
    pub fn add(&mut self, op: Op, operands: &[ValueId], scope: &str) -> Result<ValueId, OpError> {
        let ty = {
            let types: Vec<&TensorType> = operands.iter().map(|&v| self.ty(v)).collect();
            op.infer(&types, None)?
        };
        Ok(self.push(Node { op, ty, scope: scope.into(), name: None }, operands))
    }

    /// Adds a leaf (`load`, `literal`, `state`, …) whose type is declared.
    ///
    /// # Errors
    /// The op's own constraints on the declared type.
    pub fn add_leaf(&mut self, op: Op, ty: &TensorType, scope: &str) -> Result<ValueId, OpError> {
        let ty = op.infer(&[], Some(ty))?;
        Ok(self.push(Node { op, ty, scope: scope.into(), name: None }, &[]))
    }

    /// Adds a node as it is, without type inference; the verifier checks it later.
    pub fn push(&mut self, node: Node, operands: &[ValueId]) -> ValueId {
        let id = self.graph.add_node(node);
        for (i, &v) in operands.iter().enumerate() {
            self.graph.add_edge(v, id, i);
        }
        id
    }

    /// The node of a value.
    pub fn node(&self, v: ValueId) -> &Node {
        &self.graph[v]
    }

    /// The node of a value, to change its name, scope or attributes.
    pub fn node_mut(&mut self, v: ValueId) -> &mut Node {
        &mut self.graph[v]
    }

    /// The op of a value.
    pub fn op(&self, v: ValueId) -> &Op {
        &self.graph[v].op
    }

    /// The type of a value.
    pub fn ty(&self, v: ValueId) -> &TensorType {
        &self.graph[v].ty
    }

    /// The shape of a value.
    pub fn shape(&self, v: ValueId) -> &[usize] {
        &self.graph[v].ty.shape
    }

    /// The dtype of a value.
    pub fn dtype(&self, v: ValueId) -> DType {
        self.graph[v].ty.dtype
    }

    /// Names a value.
    pub fn set_name(&mut self, v: ValueId, name: &str) {
        self.graph[v].name = Some(name.into());
    }

    /// The live or dead value that has this name.
    pub fn by_name(&self, name: &str) -> Option<ValueId> {
        self.graph.node_indices().find(|&v| self.graph[v].name.as_deref() == Some(name))
    }

    /// Operands in position order.
    pub fn operands(&self, v: ValueId) -> Vec<ValueId> {
        let edges = || self.graph.edges_directed(v, Direction::Incoming);
        // Of a sound graph every position from 0 on has one edge.
        let mut operands = vec![ValueId::end(); edges().count()];
        for e in edges() {
            if let Some(place) = operands.get_mut(*e.weight()) {
                *place = e.source();
            }
        }
        if !operands.contains(&ValueId::end()) {
            return operands;
        }
        let mut edges: Vec<(usize, ValueId)> = edges().map(|e| (*e.weight(), e.source())).collect();
        edges.sort_unstable();
        edges.into_iter().map(|(_, s)| s).collect()
    }

    /// Positions of the operands, ascending; the verifier wants `0, 1, 2, …`.
    pub(crate) fn operand_positions(&self, v: ValueId) -> Vec<usize> {
        let mut positions: Vec<usize> =
            self.graph.edges_directed(v, Direction::Incoming).map(|e| *e.weight()).collect();
        positions.sort_unstable();
        positions
    }

    /// (user, operand position) pairs of a value, in a stable order. Results and updates are not users.
    pub fn users(&self, v: ValueId) -> Vec<(ValueId, usize)> {
        let mut users: Vec<_> =
            self.graph.edges_directed(v, Direction::Outgoing).map(|e| (e.target(), *e.weight())).collect();
        users.sort_unstable();
        users
    }

    /// Makes every user, result and update of `old` use `new`; `new` takes over `old`'s name if it has none.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        if old == new {
            return;
        }
        let edges: Vec<_> =
            self.graph.edges_directed(old, Direction::Outgoing).map(|e| (e.id(), e.target(), *e.weight())).collect();
        for (edge, user, position) in edges {
            if user != new {
                self.graph.remove_edge(edge);
                self.graph.add_edge(new, user, position);
            }
        }
        for (_, v) in self.results.iter_mut().chain(&mut self.updates) {
            if *v == old {
                *v = new;
            }
        }
        if self.graph[new].name.is_none() && !matches!(self.graph[old].op, Op::Input(_)) {
            self.graph[new].name = self.graph[old].name.take();
        }
    }

    /// Makes `user` take `value` as its operand number `position`.
    pub fn set_operand(&mut self, user: ValueId, position: usize, value: ValueId) {
        let edge =
            self.graph.edges_directed(user, Direction::Incoming).find(|e| *e.weight() == position).map(|e| e.id());
        if let Some(edge) = edge {
            self.graph.remove_edge(edge);
        }
        self.graph.add_edge(value, user, position);
    }

    /// Live values in a deterministic topological order: parameters, then each update's and result's operands in
    /// depth-first post-order.
    pub fn order(&self) -> Vec<ValueId> {
        let mut order = self.params.clone();
        let mut done = vec![false; self.graph.node_bound()];
        order.iter().for_each(|v| done[v.index()] = true);
        // A value, its operands, and how many of these are done: they are emitted in position order.
        let mut stack: Vec<(ValueId, Vec<ValueId>, usize)> = Vec::new();
        for &(_, root) in self.updates.iter().chain(&self.results) {
            if !done[root.index()] {
                stack.push((root, self.operands(root), 0));
            }
            while let Some((v, operands, next)) = stack.last_mut() {
                match operands.get(*next) {
                    Some(&operand) => {
                        *next += 1;
                        if !done[operand.index()] {
                            let operands = self.operands(operand);
                            stack.push((operand, operands, 0));
                        }
                    }
                    None => {
                        let v = *v;
                        stack.pop();
                        if !done[v.index()] {
                            done[v.index()] = true;
                            order.push(v);
                        }
                    }
                }
            }
        }
        order
    }

    /// All values, dead ones included, in index order.
    pub fn values(&self) -> Vec<ValueId> {
        self.graph.node_indices().collect()
    }

    /// Deletes nodes that no result, update or parameter needs; returns how many.
    pub fn remove_dead(&mut self) -> usize {
        let live: HashSet<ValueId> = self.order().into_iter().collect();
        let before = self.graph.node_count();
        self.graph.retain_nodes(|_, v| live.contains(&v));
        before - self.graph.node_count()
    }

    /// `true` if the graph has a cycle, which only [`Function::set_operand`] and [`Function::replace_uses`] can make.
    pub fn is_cyclic(&self) -> bool {
        petgraph::algo::is_cyclic_directed(&self.graph)
    }

    /// Every live value that depends on no parameter and no state: the weight expressions.
    pub fn constants(&self) -> HashSet<ValueId> {
        let mut constants = HashSet::new();
        for v in self.order() {
            let is_given = matches!(self.op(v), Op::Input(_) | Op::State(_));
            if !is_given && self.operands(v).iter().all(|operand| constants.contains(operand)) {
                constants.insert(v);
            }
        }
        constants
    }

    /// `true` if the value depends on no parameter and no state: it is a weight expression.
    pub fn is_const(&self, v: ValueId) -> bool {
        let mut seen = vec![false; self.graph.node_bound()];
        let mut stack = vec![v];
        while let Some(v) = stack.pop() {
            if matches!(self.graph[v].op, Op::Input(_) | Op::State(_)) {
                return false;
            }
            for operand in self.graph.neighbors_directed(v, Direction::Incoming) {
                if !std::mem::replace(&mut seen[operand.index()], true) {
                    stack.push(operand);
                }
            }
        }
        true
    }

    /// Cost of one op.
    pub fn cost(&self, v: ValueId) -> Cost {
        let operands = self.operands(v);
        let types: Vec<&TensorType> = operands.iter().map(|&o| self.ty(o)).collect();
        self.op(v).cost(&types, self.ty(v))
    }
}
