//! What passes need of a graph, establish and destroy.

use std::collections::HashSet;
use std::fmt;

use s2dit_ir::ops::Unary;
use s2dit_ir::{DType, Function, Module, Op, ValueId};

/// Something that holds of a module, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// No op is a composite.
    TensorOps,
    /// Formulas with a name are one op.
    Fused,
    /// No parameter or result is a float narrower than fp32.
    Fp32,
    /// Every state is fp16, and so is what no island keeps.
    Fp16,
    /// Only what leads to a sinusoid is computed in fp32.
    Fp16ButPhases,
    /// Tokens come before channels, as the model has them.
    TokensFirst,
    /// Tokens or pixels lie behind channels, on the last axes.
    ChannelsFirst,
    /// No function has a state: what a stream carries is not there, or goes in and out of each function.
    NoStates,
    /// Each buffer of a stream is a state of its own.
    OwnStates,
    /// No weight is compressed.
    Uncompressed,
}

impl Property {
    /// Every property.
    pub const ALL: [Property; 10] = [
        Property::TensorOps,
        Property::Fused,
        Property::Fp32,
        Property::Fp16,
        Property::Fp16ButPhases,
        Property::TokensFirst,
        Property::ChannelsFirst,
        Property::NoStates,
        Property::OwnStates,
        Property::Uncompressed,
    ];

    /// What holds of the graph that a model's frontend writes.
    pub const OF_A_MODEL: &[Property] =
        &[Property::TensorOps, Property::Fp32, Property::TokensFirst, Property::NoStates, Property::Uncompressed];

    /// What holds of the graph of a decoder, which is written on frames of channels; of one that streams, `OwnStates` in the place of `NoStates`.
    pub const OF_A_DECODER: &[Property] =
        &[Property::TensorOps, Property::Fp32, Property::ChannelsFirst, Property::NoStates, Property::Uncompressed];

    /// See [`Property::OF_A_DECODER`].
    pub const OF_A_STREAMING_DECODER: &[Property] =
        &[Property::TensorOps, Property::Fp32, Property::ChannelsFirst, Property::OwnStates, Property::Uncompressed];

    /// Name in lists and errors.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Property::TensorOps => "tensor-ops",
            Property::Fused => "fused",
            Property::Fp32 => "fp32",
            Property::Fp16 => "fp16",
            Property::Fp16ButPhases => "fp16-but-phases",
            Property::TokensFirst => "tokens-first",
            Property::ChannelsFirst => "channels-first",
            Property::NoStates => "no-states",
            Property::OwnStates => "own-states",
            Property::Uncompressed => "uncompressed",
        }
    }

    /// A line that says what holds.
    #[must_use]
    pub const fn doc(self) -> &'static str {
        match self {
            Property::TensorOps => "no op is a composite",
            Property::Fused => "formulas with a name are one op",
            Property::Fp32 => "no parameter or result is narrower than fp32",
            Property::Fp16 => "every state is fp16, and so is what no island keeps",
            Property::Fp16ButPhases => "only what leads to a sinusoid is computed in fp32",
            Property::TokensFirst => "tokens come before channels, as the model has them",
            Property::ChannelsFirst => "tokens or pixels lie on the last axes",
            Property::NoStates => "no function has a state",
            Property::OwnStates => "each buffer of a stream is a state of its own",
            Property::Uncompressed => "no weight is compressed",
        }
    }

    /// What contradicts the property in a module; `None` if nothing does, or if it cannot be seen.
    #[must_use]
    pub fn contradiction(self, module: &Module) -> Option<String> {
        let in_functions = |of: &dyn Fn(&Function) -> Option<String>| module.functions.iter().find_map(of);
        match self {
            Property::TensorOps => in_functions(&|f| {
                let composite = f.order().into_iter().find(|&v| f.op(v).is_composite());
                composite.map(|v| format!("{} is a composite", described(f, v)))
            }),
            Property::Fp32 => in_functions(&|f| {
                let results = f.results.iter().map(|(_, v)| v);
                let is_narrow = |v: &&ValueId| matches!(f.dtype(**v), DType::F16 | DType::BF16);
                let narrow = f.params().iter().chain(results).find(is_narrow);
                narrow.map(|&v| format!("{} is {}", described(f, v), f.ty(v)))
            }),
            Property::Fp16 => {
                let wide = module.states.iter().find(|s| s.ty.dtype != DType::F16);
                wide.map(|s| format!("state `{}` is {}", s.name, s.ty))
            }
            Property::Fp16ButPhases => in_functions(&|f| {
                let phases = phases(f);
                let wide = |v: &ValueId| f.dtype(*v) == DType::F32 && !f.is_const(*v) && !phases.contains(v);
                f.order().into_iter().find(wide).map(|v| format!("{} is {}", described(f, v), f.ty(v)))
            }),
            Property::NoStates => module.states.first().map(|s| format!("`{}` is a state", s.name)),
            Property::Uncompressed => in_functions(&|f| {
                let compressed = f.order().into_iter().find(|&v| matches!(f.op(v), Op::Compress(_)));
                compressed.map(|v| format!("{} is compressed", described(f, v)))
            }),
            Property::Fused | Property::TokensFirst | Property::ChannelsFirst | Property::OwnStates => None,
        }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Sinusoids, and all that leads to one.
fn phases(f: &Function) -> HashSet<ValueId> {
    let sinusoid = |v: &ValueId| matches!(f.op(*v), Op::Unary(Unary::Sin | Unary::Cos));
    let mut ahead: Vec<ValueId> = f.order().into_iter().filter(sinusoid).collect();
    let mut found = HashSet::new();
    while let Some(v) = ahead.pop() {
        if found.insert(v) {
            ahead.extend(f.operands(v));
        }
    }
    found
}

/// A value in a message: its op, its name and where it came from.
fn described(f: &Function, v: ValueId) -> String {
    let (node, op) = (f.node(v), f.op(v).name());
    let name = node.name.as_deref().map_or(String::new(), |name| format!(" %{name}"));
    let scope = if node.scope.is_empty() { String::new() } else { format!(" of `{}`", node.scope) };
    format!("`{op}`{name}{scope} in @{}", f.name)
}
