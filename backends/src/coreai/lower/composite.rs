//! Formulas with a name: attention, norms and rotations become graphs of their own, which say what they are and how it is computed. A device has kernels
//! for the names that it knows; everybody else runs the graph.
//!
//! ```text
//! %y = rms_norm(%x, %gain)   →   %y = invoke @main_rms_norm_0(%x, %gain)
//!                                graph private noinline @main_rms_norm_0(…) composite_decl = "rms_norm" {eps = 1e-6, …} { … }
//! ```
//! Names, parameters and versions are those that coreai-torch 0.4.3, Apple's converter of PyTorch's exports, declares. Each use has its own graph, as there.

use anyhow::{Context, Result, ensure};
use s2dit_ir::ops::{Cast, LayerNorm, Op, RmsNorm, Rope, RopePairs, Sdpa};
use s2dit_ir::{Builder, DType, Function, Module, TensorType, ValueId};

use super::super::block::{float, tensor};
use super::super::op;
use super::super::program::{Attribute, Element, Property, Value};
use super::{Lowering, Role, element_of};

/// What a graph declares of itself.
struct Declaration {
    /// Name of the formula.
    name: &'static str,
    /// Names of the operands.
    inputs: Vec<&'static str>,
    /// Parameters, sorted by name.
    parameters: Vec<(&'static str, Attribute)>,
}

/// The parameter `version` of every declaration.
const VERSION: i64 = 1;
/// θ of `rope`'s angles, where no table gives them. Ours have tables.
const BASE: f32 = 1e4;

fn whole(value: i64) -> Attribute {
    Attribute::Signed { width: 64, value }
}

fn number(value: f64) -> Attribute {
    Attribute::Float((value as f32).to_bits())
}

fn truth(value: bool) -> Attribute {
    Attribute::Signed { width: 1, value: i64::from(value) }
}

impl Declaration {
    /// Of an op that has one.
    fn of(op: &Op, operands: usize) -> Option<Declaration> {
        let (name, inputs, mut parameters): (_, &[&str], _) = match op {
            Op::Sdpa(Sdpa { scale }) => (
                "scaled_dot_product_attention",
                &["query", "key", "value", "attn_mask"],
                vec![("is_causal", truth(false)), ("scale", number(*scale)), ("window_size", whole(0))],
            ),
            Op::RmsNorm(RmsNorm { eps, .. }) => {
                ("rms_norm", &["input", "scale"], vec![("axes", whole(-1)), ("eps", number(*eps))])
            }
            Op::LayerNorm(LayerNorm { axes, eps }) => {
                let axes = axes.iter().map(|axis| whole(*axis as i64)).collect();
                (
                    "layer_norm",
                    &["input", "gamma", "beta"],
                    vec![("axes", Attribute::Array(axes)), ("eps", number(*eps))],
                )
            }
            Op::Rope(Rope { pairs, .. }) => (
                "rope",
                &["input", "cos", "sin"],
                vec![
                    ("base", Attribute::Float(BASE.to_bits())),
                    ("interleaved", truth(*pairs == RopePairs::Interleaved)),
                    ("scale", number(1.0)),
                ],
            ),
            _ => return None,
        };
        parameters.push(("version", whole(VERSION)));
        parameters.sort_by_key(|(name, _)| *name);
        Some(Declaration { name, inputs: inputs[..operands].to_vec(), parameters })
    }

    fn attribute(&self) -> Attribute {
        let named = |name: &str, value: Attribute| Attribute::Opaque { name: name.into(), values: vec![value] };
        let texts = |names: &[&str]| Attribute::Array(names.iter().map(|name| Attribute::string(name)).collect());
        let parameters = self.parameters.iter().map(|(name, value)| named(name, value.clone())).collect();
        let values = vec![
            named("input_names", texts(&self.inputs)),
            named("op_attrs", Attribute::Dictionary(parameters)),
            named("output_names", texts(&["output"])),
        ];
        Attribute::Opaque { name: self.name.into(), values }
    }
}

impl Lowering<'_> {
    /// A layer norm over the last axes; one without gain and shift has those that change nothing.
    pub(super) fn layer_norm(&mut self, v: ValueId, n: &LayerNorm) -> Result<Value> {
        let rank = self.f.ty(v).rank();
        if !self.is_body && n.axes.iter().rev().zip((0..rank).rev()).all(|(axis, last)| *axis == last) {
            return self.composite(v);
        }
        self.plain_layer_norm(v, n)
    }

    /// An op as a graph of its own, and its call.
    pub(super) fn composite(&mut self, v: ValueId) -> Result<Value> {
        let (f, op) = (self.f, self.f.op(v));
        let mut operands = self.operands(v)?;
        let mut types: Vec<_> = f.operands(v).iter().map(|o| f.ty(*o).clone()).collect();
        if let (Op::LayerNorm(n), 1) = (op, operands.len()) {
            let extents: Vec<usize> = n.axes.iter().map(|axis| f.shape(v)[*axis]).collect();
            for value in [1.0, 0.0] {
                operands.push(self.filled(value, &extents, element_of(f.dtype(v))));
                types.push(TensorType::new(f.dtype(v), extents.clone()));
            }
        }
        if let (Op::RmsNorm(n), 1) = (op, operands.len()) {
            let extents = [f.shape(v)[n.axis]];
            operands.push(self.filled(1.0, &extents, element_of(f.dtype(v))));
            types.push(TensorType::new(f.dtype(v), extents));
        }
        let declaration = Declaration::of(op, operands.len()).context("an op without a declaration")?;
        let name = format!("{}_{}_{}", f.name, declaration.name, self.calls.len());
        let mut body = Function::new(name.clone());
        let scope = f.node(v).scope.to_string();
        let parameters: Vec<ValueId> =
            declaration.inputs.iter().zip(types).map(|(name, ty)| body.add_param(name, ty)).collect();
        // Squares of fp16 leave its range.
        let is_wide = matches!(op, Op::RmsNorm(_) | Op::LayerNorm(_)) && f.dtype(v) == DType::F16;
        let mut given = parameters;
        if is_wide {
            for value in &mut given {
                *value = body.add(Cast { dtype: DType::F32 }.into(), &[*value], &scope)?;
            }
        }
        let mut b = Builder::new(&mut body);
        b.enter(&scope);
        let parts = op.decompose(&mut b, &given);
        let mut y = match parts {
            Some(y) => y?,
            None => body.add(op.clone(), &given, &scope)?,
        };
        if is_wide {
            y = body.add(Cast { dtype: DType::F16 }.into(), &[y], &scope)?;
        }
        ensure!(body.ty(y) == f.ty(v), "a formula of {} for {}", body.ty(y), f.ty(v));
        body.results.push(("output".into(), y));
        let module = Module::single(body);
        let mut inside = Lowering::new(&module, 0, self.source, &mut *self.blobs)?;
        inside.is_body = true;
        let made = inside.run(Role::Called(declaration.attribute()))?;
        self.calls.push(made.graph);
        self.called_ops += made.ops;
        let callee = Attribute::Callee(name.as_str().into());
        let nothing = || Property::Required(Attribute::Array(Vec::new()));
        let result = self.result(v);
        let properties = vec![nothing(), Property::Required(callee), nothing()];
        Ok(self.emit_whole(op::INVOKE, &operands, result, properties, None))
    }

    /// A tensor of one number.
    fn filled(&mut self, value: f64, shape: &[usize], element: Element) -> Value {
        let key = format!("{value} in {shape:?} {}", element.name());
        self.shared(key, |b| {
            let bytes = float(value, element);
            b.constant(tensor(shape, element), Attribute::Dense { splat: true, bytes })
        })
    }
}
