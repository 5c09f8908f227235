//! A parsed package as the checks see it: functions with typed values, and ops with their operands resolved.

use std::collections::HashMap;

use anyhow::{Context, Result};

use super::value::{Value, inner, tensor};
use crate::coreai::MilFunction as AssetFunction;
use crate::coreml::Package;
use crate::coreml::proto::{
    self, Block, FeatureDescription, NamedValueType, Operation, Value as Literal, array_feature_type, binding,
    feature_type, value_type,
};

/// A value written in place, or one of the function.
#[derive(Clone, Copy)]
pub enum Operand<'p> {
    /// A name.
    Name(&'p str),
    /// A literal.
    Literal(&'p Literal),
}

impl<'p> Operand<'p> {
    /// The name, if it is one.
    pub fn name(self) -> Option<&'p str> {
        match self {
            Operand::Name(name) => Some(name),
            Operand::Literal(_) => None,
        }
    }
}

/// An op that runs: no constant and no `constexpr_*`.
pub struct Op<'p> {
    /// Name of the op: that of its first output, or of the attribute `name` where there is none.
    pub name: &'p str,
    /// Type of the op, such as `conv`.
    pub ty: &'p str,
    /// Outputs of the op.
    pub outputs: Vec<Value<'p>>,
    /// Position of the op among the ops that run.
    pub index: usize,
    source: &'p Operation,
}

impl<'p> Op<'p> {
    /// Whether an input is given.
    pub fn has(&self, input: &str) -> bool {
        !self.operands(input).is_empty()
    }

    /// Operands that an input is bound to; several for a tuple.
    pub fn operands(&self, input: &str) -> Vec<Operand<'p>> {
        self.source.inputs.get(input).into_iter().flat_map(bound).collect()
    }

    /// Inputs with what they are bound to, in the order of their names.
    pub fn inputs(&self) -> impl Iterator<Item = (&'p str, Operand<'p>)> {
        self.source.inputs.iter().flat_map(|(input, argument)| bound(argument).map(move |o| (input.as_str(), o)))
    }
}

fn bound(argument: &proto::Argument) -> impl Iterator<Item = Operand<'_>> {
    argument.arguments.iter().filter_map(bound_one)
}

/// The operand that a binding names or holds.
pub fn bound_one(binding: &proto::Binding) -> Option<Operand<'_>> {
    Some(match binding.binding.as_ref()? {
        binding::Binding::Name(name) => Operand::Name(name),
        binding::Binding::Value(literal) => Operand::Literal(literal),
    })
}

/// The definition of a value: an op, an input, or a constant.
#[derive(Clone, Copy)]
pub enum Definition<'p> {
    /// An input or a state of the function.
    Input,
    /// A constant: its value.
    Constant(&'p Literal),
    /// A `constexpr_*` op: its type and inputs.
    Constexpr(&'p Operation),
    /// An op that runs, by its index.
    Op(usize),
}

/// A function.
pub struct Function<'p> {
    /// Name of the function.
    pub name: &'p str,
    /// Inputs of the function, without states.
    pub inputs: Vec<Value<'p>>,
    /// States of the function.
    pub states: Vec<Value<'p>>,
    /// Outputs of the function.
    pub outputs: Vec<Value<'p>>,
    /// Names of inputs whose description allows several shapes.
    pub flexible: Vec<&'p str>,
    /// Ops that run, in order; those of nested blocks after the op that holds them.
    pub ops: Vec<Op<'p>>,
    values: HashMap<&'p str, (Value<'p>, Definition<'p>)>,
}

impl<'p> Function<'p> {
    /// A value and what defines it.
    pub fn value(&self, name: &str) -> Option<&(Value<'p>, Definition<'p>)> {
        self.values.get(name)
    }

    /// The type of an operand, `None` for a name that nothing defines.
    pub fn operand(&self, operand: Operand<'p>) -> Option<Value<'p>> {
        match operand {
            Operand::Name(name) => self.values.get(name).map(|(value, _)| value.clone()),
            Operand::Literal(literal) => Some(tensor("", literal.r#type.as_ref())),
        }
    }

    /// The one operand of an input.
    pub fn input(&self, op: &Op<'p>, input: &str) -> Option<Value<'p>> {
        match op.operands(input)[..] {
            [one] => self.operand(one),
            _ => None,
        }
    }

    /// The constant that an operand is.
    pub fn constant(&self, operand: Operand<'p>) -> Option<&'p Literal> {
        match operand {
            Operand::Literal(literal) => Some(literal),
            Operand::Name(name) => match self.values.get(name)?.1 {
                Definition::Constant(literal) => Some(literal),
                _ => None,
            },
        }
    }

    /// The `constexpr_*` op that an operand comes from.
    pub fn constexpr(&self, operand: Operand<'p>) -> Option<&'p Operation> {
        match operand {
            Operand::Name(name) => match self.values.get(name)?.1 {
                Definition::Constexpr(op) => Some(op),
                _ => None,
            },
            Operand::Literal(_) => None,
        }
    }

    /// The op that runs and defines an operand.
    pub fn producer(&self, operand: Operand<'p>) -> Option<&Op<'p>> {
        match operand {
            Operand::Name(name) => match self.values.get(name)?.1 {
                Definition::Op(index) => self.ops.get(index),
                _ => None,
            },
            Operand::Literal(_) => None,
        }
    }

    fn read(
        name: &'p str,
        source: &'p proto::Function,
        block: &'p Block,
        described: &'p [FeatureDescription],
    ) -> Function<'p> {
        let is_state = |v: &&NamedValueType| matches!(inner(v.r#type.as_ref()), Some(value_type::Type::StateType(_)));
        let states: Vec<Value> = source.inputs.iter().filter(is_state).map(named).collect();
        let inputs: Vec<Value> = source.inputs.iter().filter(|v| !is_state(v)).map(named).collect();
        let values = inputs.iter().chain(&states).map(|v| (v.name, (v.clone(), Definition::Input))).collect();
        let flexible = described.iter().filter(|f| is_flexible(f)).map(|f| f.name.as_str()).collect();
        let mut function = Function { name, inputs, states, outputs: Vec::new(), flexible, ops: Vec::new(), values };
        function.walk(block);
        function.outputs =
            block.outputs.iter().filter_map(|n| function.values.get(n.as_str())).map(|(v, _)| v.clone()).collect();
        function
    }

    fn walk(&mut self, block: &'p Block) {
        // Nested blocks are walked with a stack of their own: a file may nest them deeper than a thread's stack.
        let mut open = vec![block.operations.iter()];
        while let Some(top) = open.last_mut() {
            let Some(op) = top.next() else {
                open.pop();
                continue;
            };
            self.add(op);
            for inner in op.blocks.iter().rev() {
                for value in &inner.inputs {
                    self.values.insert(&value.name, (named(value), Definition::Input));
                }
                open.push(inner.operations.iter());
            }
        }
    }

    fn add(&mut self, op: &'p Operation) {
        let outputs: Vec<Value> = op.outputs.iter().map(named).collect();
        let runs = op.r#type != "const" && !op.r#type.starts_with("constexpr_");
        let definition = match (op.r#type.as_str(), op.attributes.get("val")) {
            ("const", Some(literal)) => Definition::Constant(literal),
            _ if runs => Definition::Op(self.ops.len()),
            _ => Definition::Constexpr(op),
        };
        for value in &outputs {
            self.values.insert(value.name, (value.clone(), definition));
        }
        if runs {
            let name = outputs.first().map_or_else(|| attribute_name(op), |v| v.name);
            self.ops.push(Op { name, ty: &op.r#type, outputs, index: self.ops.len(), source: op });
        }
    }
}

fn attribute_name(op: &Operation) -> &str {
    op.attributes.get("name").and_then(super::literal::text).unwrap_or_default()
}

fn is_flexible(feature: &FeatureDescription) -> bool {
    let Some(feature_type::Type::MultiArrayType(array)) = feature.r#type.as_ref().and_then(|t| t.r#type.as_ref())
    else {
        return false;
    };
    matches!(
        array.shape_flexibility,
        Some(array_feature_type::ShapeFlexibility::EnumeratedShapes(_))
            | Some(array_feature_type::ShapeFlexibility::ShapeRange(_))
    )
}

fn named(value: &NamedValueType) -> Value<'_> {
    tensor(&value.name, value.r#type.as_ref())
}

/// A package.
pub struct Program<'p> {
    /// Functions of the program, the default one first.
    pub functions: Vec<Function<'p>>,
    /// Bytes of its weight file.
    pub weight_bytes: u64,
    /// The package, if it is one.
    pub package: Option<&'p Package>,
}

impl<'p> Program<'p> {
    /// Reads the functions of a package.
    ///
    /// # Errors
    /// A function without a block for its opset; a weight file that cannot be read.
    pub(super) fn read(package: &'p Package) -> Result<Program<'p>> {
        let program = package.program()?;
        let mut functions = Vec::new();
        for name in package.functions() {
            let (key, source) = program
                .functions
                .get_key_value(&name)
                .with_context(|| format!("`{}`: no function `{name}`", package.path().display()))?;
            let block = package.block(key, source).with_context(|| format!("`{}`", package.path().display()))?;
            functions.push(Function::read(key, source, block, package.described_inputs(key)));
        }
        let records = package.weights().map(|w| w.records()).transpose()?.unwrap_or_default();
        let weight_bytes = records.iter().map(|r| r.size).sum();
        Ok(Program { functions, weight_bytes, package: Some(package) })
    }

    /// The functions of an asset.
    pub(super) fn of_asset(functions: &'p [AssetFunction], weight_bytes: u64) -> Program<'p> {
        let functions = functions.iter().map(|f| Function::read(&f.name, &f.source, &f.block, &[])).collect();
        Program { functions, weight_bytes, package: None }
    }
}
