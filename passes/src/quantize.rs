//! Stores large weights in few bits.
//!
//! ```text
//! %y = linear(%x, %w) : f16[1, 512]   %w' = compress(%w) {scheme = "palette4-group16"} : f16[512, 512]
//!                                   →  %y  = linear(%x, %w') : f16[1, 512]
//! ```
//! A weight is a constant second operand of `linear` or `conv` with at least [`LEAST_ELEMENTS`] elements, and at least
//! [`LEAST_FAN_IN`] of them an output channel: matrices and dense kernels. Depthwise kernels, norms, biases, modulation
//! tables and positions are small and feel every bit, so they stay as they are. The pass comes last: what is computed from a
//! compressed weight would have to be stored uncompressed.
//!
//! A weight of int8 may be multiplied with int8 activations ([`Choice::input_scale`]): `x` becomes
//! `dequantize(quantize(x))` before the product, once for all weights that share it. Targets with int8 products see the pair.

use std::collections::{HashMap, HashSet};

use s2dit_ir::compress::Scheme;
use s2dit_ir::ops::{Compress, Dequantize, OpError, Quantize};
use s2dit_ir::weights::ExpressionId;
use s2dit_ir::{Builder, Function, Module, Op, TensorType, ValueId};

use crate::Property;
use crate::pass::{PassKind, Run};

/// The pass for int8.
pub static INT8: PassKind = PassKind {
    name: "quantize-int8",
    doc: "large weights are int8 with a scale a channel",
    destroys: &[Property::Uncompressed],
    run: Run::Plain(|m| uniform(m, Scheme::Int8)),
    ..PassKind::PLAIN
};

/// The pass for palettes.
pub static PALETTE4: PassKind = PassKind {
    name: "quantize-palette4-group16",
    doc: "large weights are 4-bit indices into palettes of 16 channels",
    destroys: &[Property::Uncompressed],
    run: Run::Plain(|m| uniform(m, Scheme::Palette { bits: 4, group: Some(16) })),
    ..PassKind::PLAIN
};

/// Elements of the smallest weight that is compressed: smaller ones save too little.
pub const LEAST_ELEMENTS: usize = 1 << 14;
/// Fewer elements an output channel are a depthwise kernel's.
pub const LEAST_FAN_IN: usize = 32;

/// A weight that can be compressed.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// See [`name`].
    pub name: String,
    /// Type of the weight in the graph.
    pub ty: TensorType,
    /// Place of the weight in the module: function, the op that multiplies with it first, and the weight.
    pub at: (usize, ValueId, ValueId),
}

/// The storage of a weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Codes and tables.
    pub scheme: Scheme,
    /// A tensor of the weight source: the importance of the input channels.
    pub importance: Option<(String, TensorType)>,
    /// A tensor of the weight source: the factors of error feedback. Used only beside an importance.
    pub feedback: Option<(String, TensorType)>,
    /// The scale at which what it is multiplied with is int8 too.
    pub input_scale: Option<f64>,
}

impl From<Scheme> for Choice {
    fn from(scheme: Scheme) -> Self {
        Choice { scheme, importance: None, feedback: None, input_scale: None }
    }
}

/// Every weight of a module that can be compressed, in order of first use, equal ones once.
pub fn weights_of(module: &Module) -> Vec<Weight> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for (index, f) in module.functions.iter().enumerate() {
        for user in f.order() {
            let Some(v) = weight_of(f, user) else { continue };
            if seen.insert(ExpressionId::of(f, v)) {
                found.push(Weight { name: name(f, v, user), ty: f.ty(v).clone(), at: (index, user, v) });
            }
        }
    }
    found
}

/// The name of a weight, whatever was done to it: the checkpoint's tensor that it is computed from, the largest if there
/// are several; the scope of its use if there is none.
pub fn name(f: &Function, v: ValueId, user: ValueId) -> String {
    let (mut ahead, mut seen) = (vec![v], HashSet::new());
    let mut largest: Option<(usize, &str)> = None;
    while let Some(at) = ahead.pop() {
        if !seen.insert(at) {
            continue;
        }
        ahead.extend(f.operands(at).into_iter().rev());
        if let Op::Load(load) = f.op(at)
            && largest.is_none_or(|(n, _)| f.ty(at).elements() > n)
        {
            largest = Some((f.ty(at).elements(), &load.tensor));
        }
    }
    largest.map_or_else(|| f.node(user).scope.to_string(), |(_, name)| name.to_string())
}

/// Compresses every weight as `choose` says. Returns how many different ones were compressed.
///
/// # Errors
/// A scheme or statistics that a weight does not fit; the error names the weight.
pub fn run(module: &mut Module, mut choose: impl FnMut(&str, &TensorType) -> Option<Choice>) -> Result<usize, OpError> {
    let mut count = HashSet::new();
    for f in &mut module.functions {
        let mut made: HashMap<ValueId, Option<Stored>> = HashMap::new();
        let mut integers: HashMap<(ValueId, u64), ValueId> = HashMap::new();
        for user in f.order() {
            let Some(v) = weight_of(f, user) else { continue };
            let stored = match made.get(&v) {
                Some(stored) => *stored,
                None => {
                    let name = name(f, v, user);
                    let stored = choose(&name, f.ty(v))
                        .map(|choice| {
                            let weight = compress(f, v, &choice)?;
                            Ok(Stored { weight, input_scale: choice.input_scale })
                        })
                        .transpose()
                        .map_err(|e: OpError| OpError::new(format!("weight `{name}`: {e}")))?;
                    if stored.is_some() {
                        count.insert(ExpressionId::of(f, v));
                    }
                    made.insert(v, stored);
                    stored
                }
            };
            if let Some(stored) = stored {
                f.set_operand(user, 1, stored.weight);
                if let Some(scale) = stored.input_scale {
                    let x = f.operands(user)[0];
                    let known = integers.get(&(x, scale.to_bits())).copied();
                    let made = |f: &mut Function| {
                        through_int8(f, x, user, scale).map_err(|e| {
                            OpError::new(format!(
                                "what weight `{}` is multiplied with: {e}",
                                name(f, stored.weight, user)
                            ))
                        })
                    };
                    let rounded = match known {
                        Some(v) => v,
                        None => made(f)?,
                    };
                    integers.insert((x, scale.to_bits()), rounded);
                    f.set_operand(user, 0, rounded);
                }
            }
        }
    }
    Ok(count.len())
}

/// A compressed weight, and the scale of what it is multiplied with.
#[derive(Clone, Copy)]
struct Stored {
    weight: ValueId,
    input_scale: Option<f64>,
}

/// The value in steps of int8, for a product.
fn through_int8(f: &mut Function, x: ValueId, user: ValueId, scale: f64) -> Result<ValueId, OpError> {
    let (scope, dtype) = (f.node(user).scope.clone(), f.dtype(x));
    let mut b = Builder::new(f);
    b.enter(&scope);
    let integers = b.op(Quantize { scale }, &[x])?;
    b.op(Dequantize { scale, dtype }, &[integers])
}

fn compress(f: &mut Function, v: ValueId, choice: &Choice) -> Result<ValueId, OpError> {
    let scope = f.node(v).scope.clone();
    let mut operands = vec![v];
    let mut b = Builder::new(f);
    b.enter(&scope);
    for (tensor, ty) in choice.importance.iter().chain(&choice.feedback) {
        operands.push(b.load(tensor, ty)?);
    }
    b.op(Compress { scheme: choice.scheme }, &operands)
}

/// Compresses every weight with one scheme; returns how many are compressed. A weight with fewer input channels than a block
/// has is left alone: a patch embedding has no blocks.
///
/// # Errors
/// See [`run`].
pub fn uniform(module: &mut Module, scheme: Scheme) -> Result<usize, OpError> {
    run(module, |_, ty| has_blocks(scheme, ty).then(|| scheme.into()))
}

/// Whether a weight has as many input channels as a block of the scheme.
pub fn has_blocks(scheme: Scheme, ty: &TensorType) -> bool {
    !matches!(scheme, Scheme::Block { block, .. } if ty.shape[1] < block)
}

/// The weight that an op multiplies with, if it is worth compressing.
fn weight_of(f: &Function, user: ValueId) -> Option<ValueId> {
    // A constant product, such as a modulation at a known timestep, is computed here, from the exact weight.
    let dense = match f.op(user) {
        Op::Linear(_) => true,
        Op::Conv(conv) => conv.groups == 1,
        _ => false,
    };
    if !dense || f.is_const(user) {
        return None;
    }
    let v = *f.operands(user).get(1)?;
    let shape = f.shape(v);
    let elements: usize = shape.iter().product();
    let large = elements >= LEAST_ELEMENTS && elements / shape[0].max(1) >= LEAST_FAN_IN;
    (large && f.is_const(v) && !matches!(f.op(v), Op::Compress(_)) && !is_table(f, v)).then_some(v)
}

/// Whether a constant is what layers make of constants, such as the rows of a list of timesteps: it is no weight, has the weights of its layers in it,
/// and as many rows as somebody asked for.
fn is_table(f: &Function, v: ValueId) -> bool {
    let (mut ahead, mut seen) = (vec![v], HashSet::new());
    while let Some(at) = ahead.pop() {
        if matches!(f.op(at), Op::Linear(_) | Op::Conv(_)) {
            return true;
        }
        if seen.insert(at) {
            ahead.extend(f.operands(at));
        }
    }
    false
}
