//! IR module → MIL program.
//!
//! An IR op becomes the MIL op of the same meaning, nearly always one to one. A constant becomes a `const` op just before its
//! first use. MIL's rules that are easy to break: every parameter with a default is written out, scalar operands have the dtype
//! of the op, and an output is neither an input nor a constant.

mod activation;
mod compressed;
mod constants;
mod elementwise;
mod interface;
mod names;
mod norm;
mod peephole;
mod product;
mod shape;
#[cfg(test)]
mod tests;
mod value;

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result, bail, ensure};
use s2dit_ir::ops::Op;
use s2dit_ir::weights::ExpressionId;
use s2dit_ir::{DType, Function, Module, StateDecl, TensorType, ValueId, WeightSource, weights};

pub(super) use constants::{Blobs, Data, Piece};
pub(super) use interface::single;

use super::proto::{self, Argument, Binding, Block, DataType, NamedValueType, Operation, Program, Value, binding};
use super::{OPSET, SPECIFICATION_VERSION};

/// Core ML's limit on the rank of any value that an op computes.
const MAX_RANK: usize = 5;

/// A lowered module: the model without the bytes of its weights.
pub(super) struct Lowered {
    /// The model, without metadata.
    pub model: proto::Model,
    /// The weight file.
    pub blobs: Blobs,
    /// Ops without constants.
    pub ops: usize,
    /// Small constants with NaN or infinite elements: (name, how many).
    pub non_finite: Vec<(String, u64)>,
}

/// Lowers a module. `source` is asked for the constants that are too small for the weight file.
pub(super) fn lower(module: &Module, source: &dyn WeightSource) -> Result<Lowered> {
    ensure!(!module.functions.is_empty(), "the module has no function");
    let mut lowered = Lowered {
        model: proto::Model {
            specification_version: SPECIFICATION_VERSION,
            description: Some(interface::describe(module)?),
            ..proto::Model::default()
        },
        blobs: Blobs::default(),
        ops: 0,
        non_finite: Vec::new(),
    };
    let mut functions = BTreeMap::new();
    for (index, f) in module.functions.iter().enumerate() {
        let function = Lowering::new(module, f, index, source, &mut lowered)
            .run()
            .with_context(|| format!("cannot lower the function `{}` to Core ML", f.name))?;
        functions.insert(interface::function_name(module, f).to_string(), function);
    }
    lowered.model.ml_program = Some(Program { version: 1, functions, ..Program::default() });
    Ok(lowered)
}

struct Lowering<'a> {
    f: &'a Function,
    index: usize,
    source: &'a dyn WeightSource,
    /// The states that the function declares.
    states: Vec<&'a StateDecl>,
    out: &'a mut Lowered,
    names: names::Names,
    /// Names that values get because results have them.
    result_names: HashMap<ValueId, String>,
    constant: HashSet<ValueId>,
    together: peephole::Together,
    /// MIL value of each IR value that has one.
    values: HashMap<ValueId, String>,
    /// MIL value of each constant, by its expression.
    by_key: HashMap<String, String>,
    operations: Vec<Operation>,
}

impl<'a> Lowering<'a> {
    fn new(
        module: &'a Module,
        f: &'a Function,
        index: usize,
        source: &'a dyn WeightSource,
        out: &'a mut Lowered,
    ) -> Self {
        let states: Vec<_> = interface::states(module, f).collect();
        Lowering {
            f,
            index,
            source,
            names: names::Names::new(f, states.iter().map(|s| s.name.as_str())),
            states,
            out,
            result_names: HashMap::new(),
            constant: HashSet::new(),
            together: peephole::Together::default(),
            values: HashMap::new(),
            by_key: HashMap::new(),
            operations: Vec::new(),
        }
    }

    fn run(mut self) -> Result<proto::Function> {
        let f = self.f;
        let order = f.order();
        self.constant = f.constants();
        self.together = peephole::Together::of(f, &order, &self.constant);
        for (name, v) in &f.results {
            let node = f.node(*v);
            let computed = !matches!(node.op, Op::Input(_)) && !self.constant.contains(v);
            if computed && node.name.is_none() {
                self.result_names.entry(*v).or_insert_with(|| name.clone());
            }
        }

        let mut inputs = Vec::new();
        for &v in f.params() {
            let name = f.node(v).name.as_deref().context("a parameter without a name")?;
            inputs.push(NamedValueType { name: name.into(), r#type: Some(self.value_type(f.ty(v))?) });
            self.values.insert(v, name.into());
        }
        for s in &self.states {
            let data_type = value::data_type(s.ty.dtype).unwrap_or_default();
            let ty = Some(value::state_type(data_type, &s.ty.shape));
            inputs.push(NamedValueType { name: s.name.clone(), r#type: ty });
        }

        for &v in &order {
            if let Op::State(s) = f.op(v) {
                self.emit(v, "read_state", vec![("input", named(&s.state))])?;
            }
        }
        for &v in &order {
            if self.constant.contains(&v) || self.together.takes(v) {
                continue;
            }
            let node = f.node(v);
            if self.together(v)? {
                continue;
            }
            self.op(v, &node.op).with_context(|| format!("`{}` of `{}`", node.op.name(), node.scope))?;
        }
        for (state, v) in &f.updates {
            let data = self.value(*v)?;
            let name = self.names.unique(&format!("{state}_write"));
            self.push("write_state", &name, vec![("input", named(state)), ("data", named(&data))], None);
        }

        let mut outputs = Vec::new();
        for (name, v) in &f.results {
            let value = self.value(*v)?;
            if value != *name {
                let ty = self.value_type(f.ty(*v))?;
                self.push("identity", name, vec![("x", named(&value))], Some(ty));
            }
            outputs.push(name.clone());
        }
        let mut seen = HashSet::new();
        for value in inputs.iter().chain(self.operations.iter().flat_map(|o| &o.outputs)) {
            // Names of the IR are kept, so the IR's own collisions show here.
            ensure!(seen.insert(&value.name), "two of its values, results and states are named `{}`", value.name);
        }
        let block = Block { outputs, operations: self.operations, ..Block::default() };
        Ok(proto::Function {
            inputs,
            opset: OPSET.into(),
            block_specializations: BTreeMap::from([(OPSET.into(), block)]),
            ..proto::Function::default()
        })
    }

    /// One match over the closed op set; each family is in its own file.
    fn op(&mut self, v: ValueId, op: &Op) -> Result<()> {
        match op {
            // The caller's values are there already; the others are constants, which come with their users.
            Op::Input(_)
            | Op::State(_)
            | Op::Load(_)
            | Op::Literal(_)
            | Op::RopeTable(_)
            | Op::FractionalRopeTable(_)
            | Op::Compress(_) => Ok(()),
            Op::Unary(kind) => self.unary(v, *kind),
            Op::Binary(kind) => self.binary(v, *kind),
            Op::Cast(c) => self.cast(v, c.dtype),
            Op::Quantize(q) => self.quantize(v, q),
            Op::Dequantize(d) => self.dequantize(v, d),
            Op::Matmul(m) => self.matmul(v, m),
            Op::Linear(_) => self.linear(v),
            Op::Conv(c) => self.conv(v, c),
            Op::LayerNorm(n) => self.layer_norm(v, n),
            Op::Softmax(s) => self.softmax(v, s),
            Op::Reduce(r) => self.reduce(v, r),
            Op::Reshape(r) => self.reshape(v, &r.shape),
            Op::Transpose(t) => self.transpose(v, &t.perm),
            Op::Concat(c) => self.concat(v, c.axis),
            Op::Slice(s) => self.slice(v, s),
            Op::Pad(p) => self.pad(v, p),
            Op::DepthToSpace(d) => self.depth_to_space(v, d.block),
            Op::Upsample(u) => self.upsample(v, u.factor),
            Op::Gather(g) => self.gather(v, g.axis),
            Op::BroadcastTo(b) => self.broadcast_to(v, &b.shape),
            Op::Compare(_)
            | Op::Select(_)
            | Op::ConvTranspose(_)
            | Op::Pool(_)
            | Op::ArgReduce(_)
            | Op::CumSum(_)
            | Op::SortIndices(_)
            | Op::GatherAlongAxis(_)
            | Op::GatherNd(_)
            | Op::ScatterAlongAxis(_)
            | Op::ScatterNd(_) => bail!("an op that is read from packages and not written to them"),
            Op::RmsNorm(_)
            | Op::Rope(_)
            | Op::Sdpa(_)
            | Op::FeatureMap(_)
            | Op::LinearAttention(_)
            | Op::LinearAttentionStep(_)
            | Op::RunningMean(_)
            | Op::Modulate(_)
            | Op::FusionGate(_) => bail!("a composite: the pass `decompose` comes before"),
        }
    }

    /// The MIL values of the operands.
    fn operands(&mut self, v: ValueId) -> Result<Vec<String>> {
        self.f.operands(v).into_iter().map(|o| self.value(o)).collect()
    }

    /// The MIL value of an IR value, which is emitted now if it is a constant that was not used before.
    fn value(&mut self, v: ValueId) -> Result<String> {
        if let Some(name) = self.values.get(&v) {
            return Ok(name.clone());
        }
        ensure!(self.constant.contains(&v), "an operand that was not lowered");
        let key = ExpressionId::of(self.f, v).to_string();
        if let Some(name) = self.by_key.get(&key).cloned() {
            self.values.insert(v, name.clone());
            return Ok(name);
        }
        let node = self.f.node(v);
        let tensor = weights::loaded_tensor(self.f, v);
        let name = match (&node.name, tensor) {
            (Some(name), _) => name.to_string(),
            (None, Some(tensor)) => self.names.unique(tensor),
            (None, None) => self.names.numbered(&join(&node.scope, "constant")),
        };
        let shown = tensor.unwrap_or(&name);
        if let Op::Compress(c) = &node.op {
            self.compressed(v, &name, shown, c.scheme)?;
        } else {
            if let Some(op) = weights::over_compressed(self.f, v) {
                bail!("the constant `{name}` is `{op}` of a compressed weight: it would be stored uncompressed");
            }
            let value = self.out.blobs.value(self.f, self.index, v, shown, self.source, &mut self.out.non_finite)?;
            self.constant_op(&name, value);
        }
        self.values.insert(v, name.clone());
        self.by_key.insert(key, name.clone());
        Ok(name)
    }

    /// Emits the op whose result is the IR value `v`.
    fn emit(&mut self, v: ValueId, op: &str, inputs: Inputs) -> Result<()> {
        let ty = self.value_type(self.f.ty(v))?;
        let name = self.name_of(v);
        self.push(op, &name, inputs, Some(ty));
        self.values.insert(v, name);
        Ok(())
    }

    /// Emits an op on the way to `v` and returns its result.
    fn step(&mut self, v: ValueId, op: &str, dtype: DType, shape: &[usize], inputs: Inputs) -> Result<String> {
        let ty = self.value_type(&TensorType::new(dtype, shape))?;
        let name = self.names.numbered(&join(&self.f.node(v).scope, op));
        self.push(op, &name, inputs, Some(ty));
        Ok(name)
    }

    /// The name that the result of `v` gets; the same one whenever it is asked for.
    fn name_of(&mut self, v: ValueId) -> String {
        let node = self.f.node(v);
        match (&node.name, self.result_names.get(&v)) {
            (Some(name), _) => name.to_string(),
            (None, Some(name)) => name.clone(),
            (None, None) => {
                let name = self.names.numbered(&join(&node.scope, node.op.name()));
                self.result_names.insert(v, name.clone());
                name
            }
        }
    }

    fn push(&mut self, op: &str, name: &str, inputs: Inputs, ty: Option<proto::ValueType>) {
        // What is done when a package is loaded runs in no call.
        self.out.ops += usize::from(!op.starts_with("constexpr_"));
        self.operations.push(operation(op, name, inputs, ty, None));
    }

    fn constant_op(&mut self, name: &str, value: Value) {
        let ty = value.r#type.clone();
        self.operations.push(operation("const", name, Vec::new(), ty, Some(value)));
    }

    /// A parameter of the op that makes `v`.
    fn param(&mut self, v: ValueId, param: &str, value: Value) -> Argument {
        let name = format!("{}_{param}", self.name_of(v));
        let name = self.names.unique(&name);
        self.constant_op(&name, value);
        named(&name)
    }

    fn int(&mut self, v: ValueId, param: &str, x: usize) -> Result<Argument> {
        let bytes = as_i32(x)?.to_le_bytes();
        Ok(self.param(v, param, value::dense(DataType::Int32, &[], &bytes)))
    }

    fn ints(&mut self, v: ValueId, param: &str, xs: &[usize]) -> Result<Argument> {
        let mut bytes = Vec::with_capacity(4 * xs.len());
        for &x in xs {
            bytes.extend(as_i32(x)?.to_le_bytes());
        }
        let value = self.out.blobs.made(DType::I32, &[xs.len()], bytes)?;
        Ok(self.param(v, param, value))
    }

    fn bool(&mut self, v: ValueId, param: &str, x: bool) -> Argument {
        self.param(v, param, value::dense(DataType::Bool, &[], &[u8::from(x)]))
    }

    fn string(&mut self, v: ValueId, param: &str, text: &str) -> Argument {
        self.param(v, param, value::string(text))
    }

    /// A scalar of the dtype of `v`.
    fn scalar(&mut self, v: ValueId, param: &str, x: f64) -> Result<Argument> {
        let dtype = self.f.dtype(v);
        let ty = TensorType::new(dtype, []);
        let bytes = s2dit_ir::Tensor::splat(&ty, x).to_le_bytes();
        let value = self.out.blobs.made(dtype, &[], bytes)?;
        Ok(self.param(v, param, value))
    }

    /// A positive number that must not vanish in the dtype of `v`.
    fn epsilon(&mut self, v: ValueId, x: f64) -> Result<Argument> {
        let vanishes = x > 0.0 && self.f.dtype(v).round(x) == 0.0;
        let least = half::f16::from_bits(1).to_f64();
        self.scalar(v, "epsilon", if vanishes { least } else { x })
    }

    /// MIL's type of a computed value.
    fn value_type(&self, ty: &TensorType) -> Result<proto::ValueType> {
        if ty.rank() > MAX_RANK {
            bail!("a value has type {ty}; Core ML allows {MAX_RANK} dimensions");
        }
        ensure!(!ty.shape.contains(&0), "a value has type {ty}; Core ML has no empty tensors");
        let data_type = value::data_type(ty.dtype)
            .with_context(|| format!("a value has type {ty}; Core ML has no values of {}", ty.dtype))?;
        Ok(value::tensor_type(data_type, &ty.shape))
    }

    /// Refuses a value that the op cannot compute in Core ML.
    fn takes(&self, v: ValueId, dtypes: &[DType]) -> Result<()> {
        let dtype = self.f.dtype(v);
        if !dtypes.contains(&dtype) {
            let names: Vec<_> = dtypes.iter().map(|d| d.name()).collect();
            bail!("Core ML computes it in {}, found {dtype}", names.join(", "));
        }
        Ok(())
    }
}

/// Parameters of an op with what they are bound to.
type Inputs = Vec<(&'static str, Argument)>;

/// Types that most ops compute in.
const FLOATS: &[DType] = &[DType::F16, DType::F32];
/// Types that arithmetic computes in.
const NUMBERS: &[DType] = &[DType::F16, DType::F32, DType::I32];
/// Types of values that are moved without being computed with.
const MOVABLE: &[DType] =
    &[DType::F16, DType::F32, DType::I32, DType::I16, DType::I8, DType::U16, DType::U8, DType::Bool];

/// An argument that is one value.
fn named(value: &str) -> Argument {
    tuple(&[value.to_string()])
}

/// An argument that is several values.
fn tuple(values: &[String]) -> Argument {
    let binding = |v: &String| Binding { binding: Some(binding::Binding::Name(v.clone())) };
    Argument { arguments: values.iter().map(binding).collect() }
}

/// An op with its `name`, and with its `val` if it is a constant.
fn operation(op: &str, name: &str, inputs: Inputs, ty: Option<proto::ValueType>, val: Option<Value>) -> Operation {
    let mut attributes = BTreeMap::from([("name".to_string(), value::string(name))]);
    attributes.extend(val.map(|v| ("val".to_string(), v)));
    Operation {
        r#type: op.into(),
        inputs: inputs.into_iter().map(|(param, argument)| (param.to_string(), argument)).collect(),
        outputs: ty.map(|ty| NamedValueType { name: name.into(), r#type: Some(ty) }).into_iter().collect(),
        attributes,
        ..Operation::default()
    }
}

fn join(scope: &str, what: &str) -> String {
    if scope.is_empty() { what.to_string() } else { format!("{scope}.{what}") }
}

fn as_i32(x: usize) -> Result<i32> {
    i32::try_from(x).with_context(|| format!("{x} does not fit MIL's int32"))
}
