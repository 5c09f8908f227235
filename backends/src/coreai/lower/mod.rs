//! IR module → program of the dialect `aicode`: each function becomes a graph.

mod activation;
mod composite;
mod compressed;
mod constants;
mod elementwise;
mod index;
mod norm;
mod product;
mod shape;
mod states;
mod window;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use s2dit_ir::ops::Op;
use s2dit_ir::{DType, Function, Module, TensorType, ValueId, WeightSource, weights};

pub(super) use self::constants::{Blob, Data, Piece};
use super::block::{Block, dense, float, tensor};
use super::op;
use super::program::{Argument, Attribute, Element, Operation, Property, Region, Type, UNKNOWN, Value};

/// A lowered module, and what it needs beside its program.
pub(super) struct Lowered {
    /// The program.
    pub root: Operation,
    /// Weights, in order of first use.
    pub blobs: Vec<Blob>,
    /// Ops of all graphs, without constants.
    pub ops: usize,
    /// Of each graph, the values that end blocks: their names and numbers.
    pub names: BTreeMap<String, BTreeMap<String, Value>>,
    /// Constants with NaN or infinite elements: (name, how many).
    pub non_finite: Vec<(String, u64)>,
}

/// Lowers a module. Nothing large is computed.
pub(super) fn lower(module: &Module, source: &dyn WeightSource) -> Result<Lowered> {
    let (mut graphs, mut ops, mut names) = (Vec::new(), 0, BTreeMap::new());
    let mut blobs = constants::Blobs::default();
    // From the last function to the first: so the bytecode numbers resources.
    for (index, f) in module.functions.iter().enumerate().rev() {
        let made = Lowering::new(module, index, source, &mut blobs)?.run(Role::Function)?;
        graphs.extend(made.calls.into_iter().rev());
        graphs.push(made.graph);
        ops += made.ops;
        if !made.names.is_empty() {
            names.insert(f.name.clone(), made.names);
        }
    }
    graphs.reverse();
    let region = Region { arguments: Vec::new(), operations: graphs };
    let root = Operation {
        name: op::ASSET.into(),
        operands: Vec::new(),
        results: Vec::new(),
        properties: vec![
            Property::Optional(None),
            Property::Optional(Some(Attribute::Integer { width: 32, value: version(&region)? })),
        ],
        regions: vec![region],
        file: UNKNOWN.into(),
    };
    let constants::Blobs { blobs, non_finite, .. } = blobs;
    Ok(Lowered { root, blobs, ops, names, non_finite })
}

/// The version of the dialect, a date, that has every op and type of a region.
fn version(region: &Region) -> Result<i64> {
    /// Elements of 3 and 6 bits.
    const ODD_BITS: i64 = 20251003;
    let odd = |ty: &Type| matches!(ty, Type::Tensor { element: Element::Ui3 | Element::Ui6, .. });
    let mut newest = op::since(op::CONSTANT).unwrap_or_default();
    for operation in &region.operations {
        let since = op::since(&operation.name);
        newest = newest.max(since.with_context(|| format!("an op `{}` of no known version", operation.name))?);
        if operation.results.iter().any(odd) {
            newest = newest.max(ODD_BITS);
        }
        for inside in &operation.regions {
            newest = newest.max(version(inside)?);
        }
    }
    Ok(newest)
}

/// A graph that was lowered.
struct Made {
    graph: Operation,
    /// Ops without constants.
    ops: usize,
    /// Values that end blocks.
    names: BTreeMap<String, Value>,
    /// Graphs that it calls.
    calls: Vec<Operation>,
}

/// What a graph is for.
enum Role {
    /// A function of the asset.
    Function,
    /// A formula that functions call, with its declaration.
    Called(Attribute),
}

struct Lowering<'a> {
    f: &'a Function,
    /// Values that end blocks, by name.
    milestones: Vec<(&'a str, ValueId)>,
    /// States that the function reads or writes.
    states: Vec<states::Handle<'a>>,
    /// Number of the function.
    index: usize,
    source: &'a dyn WeightSource,
    blobs: &'a mut constants::Blobs,
    order: Vec<ValueId>,
    /// Values that are computed when the asset is written.
    folded: HashSet<ValueId>,
    block: Block,
    /// What an IR value has become.
    values: HashMap<ValueId, Value>,
    /// Constants of the graph, by what they hold, and values in another shape, by both.
    constants: HashMap<String, Value>,
    /// What values were before they got their shape.
    sources: HashMap<Value, Value>,
    /// Whether the function is what a formula stands for: its ops are no formulas.
    is_body: bool,
    /// Graphs of formulas, and how many ops they have.
    calls: Vec<Operation>,
    called_ops: usize,
}

impl<'a> Lowering<'a> {
    fn new(
        module: &'a Module,
        index: usize,
        source: &'a dyn WeightSource,
        blobs: &'a mut constants::Blobs,
    ) -> Result<Self> {
        let f = &module.functions[index];
        let order = f.order();
        let folded = f.constants();
        let (mut arguments, mut values) = (Vec::new(), HashMap::new());
        for &p in f.params() {
            values.insert(p, arguments.len());
            let ty = type_of(f.ty(p)).with_context(|| {
                format!("the input `{}` of function `{}`", f.node(p).name.as_deref().unwrap_or_default(), f.name)
            })?;
            arguments.push(Argument { ty, file: UNKNOWN.into() });
        }
        let states = states::handles(f, &module.states, &mut arguments)?;
        // What comes in or goes out by its name needs no second one.
        let is_port = |name: &str, v: ValueId| {
            matches!(f.op(v), Op::Input(_)) || f.results.iter().any(|(result, _)| result == name)
        };
        let milestones = module.interface.milestones.iter();
        let milestones = milestones.filter_map(|m| Some((m.value.as_str(), f.by_name(&m.value)?)));
        let milestones = milestones.filter(|(name, v)| !is_port(name, *v)).collect();
        let block = Block::new(arguments, &UNKNOWN.into());
        Ok(Lowering {
            f,
            milestones,
            states,
            index,
            source,
            blobs,
            order,
            folded,
            block,
            values,
            constants: HashMap::new(),
            sources: HashMap::new(),
            is_body: false,
            calls: Vec::new(),
            called_ops: 0,
        })
    }

    fn run(mut self, role: Role) -> Result<Made> {
        let f = self.f;
        for v in std::mem::take(&mut self.order) {
            if self.folded.contains(&v) || matches!(f.op(v), Op::Input(_)) {
                continue;
            }
            let (node, lowered) = (f.node(v), f.op(v));
            self.block.file = if node.scope.is_empty() { UNKNOWN.into() } else { node.scope.clone() };
            let value = self
                .op(v, lowered)
                .with_context(|| format!("cannot lower `{}` of `{}` to Core AI", lowered.name(), node.scope))?;
            self.values.insert(v, value);
        }
        self.block.file = UNKNOWN.into();
        let mut outputs = Vec::new();
        for (_, v) in &f.results {
            outputs.push(self.value(*v)?);
        }
        let tokens = self.write_states()?;
        outputs.extend(&tokens);
        let named = self.milestones.iter().filter_map(|(name, v)| Some((name.to_string(), *self.values.get(v)?)));
        let (names, milestones): (Vec<String>, Vec<Value>) = named.unzip();
        // Milestones are needed: blocks are compared by them.
        let mut kept = [&outputs[..], &milestones].concat();
        self.block.prune(&mut kept);
        let milestones = kept.split_off(outputs.len());
        let outputs = kept;
        let results = outputs.iter().map(|o| self.block.ty(*o).clone()).collect();
        let inputs = self.block.arguments().map(|argument| argument.ty.clone()).collect();
        let input_names = f.params().iter().map(|p| f.node(*p).name.as_deref());
        let input_names = input_names.map(Option::unwrap_or_default).chain(self.states.iter().map(|s| s.name()));
        let output_names = f.results.iter().map(|(name, _)| name.as_str());
        let mut output_names = named_ports(output_names);
        output_names.extend(tokens.iter().map(|_| Attribute::Array(Vec::new())));
        let flag = |value: bool| Property::Required(Attribute::flag(value));
        let (declaration, is_called) = match role {
            Role::Function => (None, false),
            Role::Called(declaration) => (Some(declaration), true),
        };
        let mut input_names = named_ports(input_names);
        if is_called {
            // Its arguments are known by their places.
            input_names.clear();
            output_names.clear();
        }
        let properties = vec![
            Property::Required(Attribute::Array(input_names)),
            Property::Optional(declaration),
            // Nothing of it lies elsewhere.
            flag(false),
            Property::Required(Attribute::Type(Type::Function { inputs, results })),
            // Whether it stays apart from its caller.
            flag(is_called),
            Property::Required(Attribute::string(&f.name)),
            // Whether it is private.
            flag(is_called),
            // It has no parameters.
            Property::Required(Attribute::Array(Vec::new())),
            Property::Required(Attribute::Array(output_names)),
        ];
        let ops = self.block.ops() + self.called_ops;
        let region = self.block.end(op::OUTPUT, &outputs);
        let graph = Operation {
            name: op::GRAPH.into(),
            operands: Vec::new(),
            results: Vec::new(),
            properties,
            regions: vec![region],
            file: UNKNOWN.into(),
        };
        Ok(Made { graph, ops, names: names.into_iter().zip(milestones).collect(), calls: self.calls })
    }

    /// One match over the closed op set; each family is in its own file.
    fn op(&mut self, v: ValueId, op: &Op) -> Result<Value> {
        match op {
            Op::Input(_)
            | Op::Load(_)
            | Op::Literal(_)
            | Op::RopeTable(_)
            | Op::FractionalRopeTable(_)
            | Op::Compress(_) => bail!("a leaf in the place of an op"),
            Op::State(state) => self.read_state(&state.state),
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
            Op::ConvTranspose(_) => self.missing("transposed convolutions"),
            Op::Pool(p) => self.pool(v, p),
            Op::LayerNorm(n) => self.layer_norm(v, n),
            Op::Softmax(s) => self.softmax(v, s),
            Op::Reduce(r) => self.reduce(v, r),
            Op::ArgReduce(_) => self.missing("positions of the greatest element"),
            Op::CumSum(_) => self.missing("running sums"),
            Op::SortIndices(_) => self.missing("sorting"),
            Op::Reshape(r) => self.reshape(v, &r.shape),
            Op::Transpose(t) => self.transpose(v, &t.perm),
            Op::Concat(c) => self.concat(v, c),
            Op::Slice(s) => self.slice(v, s),
            Op::Pad(p) => self.pad(v, p),
            Op::DepthToSpace(d) => self.depth_to_space(v, d),
            Op::Upsample(u) => self.upsample(v, u),
            Op::Gather(g) => self.gather(v, g),
            Op::GatherAlongAxis(g) => self.gather_along_axis(v, g),
            Op::GatherNd(g) => self.gather_nd(v, g),
            Op::ScatterAlongAxis(_) | Op::ScatterNd(_) => self.missing("scattered updates"),
            Op::BroadcastTo(b) => self.broadcast_to(v, &b.shape),
            Op::RmsNorm(_) | Op::Rope(_) | Op::Sdpa(_) => self.composite(v),
            Op::Modulate(_)
            | Op::FeatureMap(_)
            | Op::LinearAttention(_)
            | Op::LinearAttentionStep(_)
            | Op::RunningMean(_)
            | Op::FusionGate(_) => bail!("a composite: the pass `decompose` comes before"),
        }
    }

    fn missing(&self, what: &str) -> Result<Value> {
        bail!("{what} are not written for Core AI yet; --target coreml and --target onnx have them")
    }

    /// What an IR value has become; a constant comes to be when it is first asked for.
    fn value(&mut self, v: ValueId) -> Result<Value> {
        match self.values.get(&v) {
            Some(value) => Ok(*value),
            None if self.folded.contains(&v) => {
                let value = self.constant(v, self.f.shape(v))?;
                self.values.insert(v, value);
                Ok(value)
            }
            None => bail!("an operand that was not lowered"),
        }
    }

    fn operands(&mut self, v: ValueId) -> Result<Vec<Value>> {
        self.f.operands(v).into_iter().map(|o| self.value(o)).collect()
    }

    /// Appends an op with one result and no constant parts.
    fn emit(&mut self, name: &'static str, operands: &[Value], result: Type) -> Value {
        self.block.op(name, operands, result)
    }

    /// Appends an op with one result, constant parts, and what it stands for.
    fn emit_whole(
        &mut self,
        name: &'static str,
        operands: &[Value],
        result: Type,
        properties: Vec<Property>,
        region: Option<Region>,
    ) -> Value {
        self.block.whole(name, operands, result, properties, region.into_iter().collect())
    }

    /// The static shape and the element type of a value.
    fn parts(&self, value: Value) -> (Vec<usize>, Element) {
        match self.block.ty(value) {
            Type::Tensor { shape, element } => {
                (shape.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect(), *element)
            }
            _ => (Vec::new(), Element::F32),
        }
    }

    /// Unsigned numbers in a row; equal ones once a graph.
    fn ui32s(&mut self, values: &[usize]) -> Value {
        self.shared(format!("ui32 {values:?}"), |b| b.ui32s(values))
    }

    /// Signed numbers in a row.
    fn si32s(&mut self, values: &[usize]) -> Value {
        self.shared(format!("si32 {values:?}"), |b| b.si32s(values))
    }

    /// A signed number.
    fn si32(&mut self, value: usize) -> Value {
        let bytes = (value as i32).to_le_bytes().to_vec();
        self.shared(format!("one si32 {value}"), |b| b.constant(tensor(&[], Element::Si32), dense(bytes, 4)))
    }

    /// An unsigned number.
    fn ui32(&mut self, value: usize) -> Value {
        let bytes = (value as u32).to_le_bytes().to_vec();
        self.shared(format!("one ui32 {value}"), |b| b.constant(tensor(&[], Element::Ui32), dense(bytes, 4)))
    }

    /// A number that broadcasts.
    fn number(&mut self, value: f64, element: Element) -> Value {
        let key = format!("number {value} {}", element.name());
        self.shared(key, |b| {
            b.constant(tensor(&[], element), Attribute::Dense { splat: true, bytes: float(value, element) })
        })
    }

    fn shared(&mut self, key: String, make: impl FnOnce(&mut Block) -> Value) -> Value {
        if let Some(value) = self.constants.get(&key) {
            return *value;
        }
        let value = make(&mut self.block);
        self.constants.insert(key, value);
        value
    }

    /// An op on one operand of the same type.
    fn same(&mut self, name: &'static str, x: Value) -> Value {
        let ty = self.block.ty(x).clone();
        self.emit(name, &[x], ty)
    }

    /// `value` in another shape, if it has not that already.
    fn reshaped(&mut self, value: Value, shape: &[usize]) -> Value {
        let (own, element) = self.parts(value);
        if own == shape {
            return value;
        }
        // A shape after another is the last one alone.
        if let Some(&source) = self.sources.get(&value) {
            return self.reshaped(source, shape);
        }
        let key = format!("{value} as {shape:?}");
        if let Some(value) = self.constants.get(&key) {
            return *value;
        }
        let wanted = self.ui32s(shape);
        let reshaped = self.emit(op::RESHAPE, &[value, wanted], tensor(shape, element));
        self.constants.insert(key, reshaped);
        self.sources.insert(reshaped, value);
        reshaped
    }

    /// `value` with its axes in another order.
    fn transposed(&mut self, value: Value, perm: &[usize]) -> Value {
        let (own, element) = self.parts(value);
        let shape: Vec<usize> = perm.iter().map(|&i| own[i]).collect();
        let perm = self.ui32s(perm);
        self.emit(op::TRANSPOSE, &[value, perm], tensor(&shape, element))
    }
}

/// Names of arguments or results, each a list of attributes.
fn named_ports<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Attribute> {
    let named = |name: &str| {
        let name = Attribute::Opaque { name: "aicode.name".into(), values: vec![Attribute::string(name)] };
        Attribute::Array(vec![name])
    };
    names.map(named).collect()
}

/// The element type that an IR type has in Core AI.
pub(super) fn element_of(dtype: DType) -> Element {
    match dtype {
        DType::F64 => Element::F64,
        DType::F32 => Element::F32,
        DType::F16 => Element::F16,
        DType::BF16 => Element::BF16,
        DType::I64 => Element::Si64,
        DType::I32 => Element::Si32,
        DType::I16 => Element::Si16,
        DType::I8 => Element::Si8,
        DType::U32 => Element::Ui32,
        DType::U16 => Element::Ui16,
        DType::U8 => Element::Ui8,
        DType::Bool => Element::Bool,
    }
}

/// The type of a value of the IR.
fn type_of(ty: &TensorType) -> Result<Type> {
    for extent in &ty.shape {
        ensure!(u32::try_from(*extent).is_ok(), "an extent of {extent}, and Core AI counts in 32 bits");
    }
    Ok(tensor(&ty.shape, element_of(ty.dtype)))
}

/// The readable name of a constant: the stored tensor that it is made of, or what it is and where it is used.
fn name_of(f: &Function, v: ValueId) -> String {
    if let Some(tensor) = weights::loaded_tensor(f, v) {
        return tensor.to_string();
    }
    let (scope, op): (&Arc<str>, _) = (&f.node(v).scope, f.op(v).name());
    if scope.is_empty() { op.to_string() } else { format!("{scope}/{op}") }
}
