//! The model's description: inputs, outputs and states, in agreement with the program's functions.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result, bail, ensure};
use s2dit_ir::ops::Op;
use s2dit_ir::{DType, Function, Module, StateDecl, TensorType};

use super::super::proto::{
    ArrayDataType, ArrayFeatureType, FeatureDescription, FeatureType, FunctionDescription, Model, ModelDescription,
    StateFeatureType, feature_type,
};
use super::MAX_RANK;
use super::names::check_identifier;

/// The name of a function in the program: a single function is `main`, whatever the IR calls it.
pub(super) fn function_name<'a>(module: &Module, f: &'a Function) -> &'a str {
    if module.functions.len() == 1 { "main" } else { &f.name }
}

/// The states that a function declares: all of the module's if it touches one, so that functions can be given the same
/// `MLState`; otherwise none.
pub(super) fn states<'a>(module: &'a Module, f: &Function) -> impl Iterator<Item = &'a StateDecl> + use<'a> {
    let touches = !f.updates.is_empty() || f.order().iter().any(|&v| matches!(f.op(v), Op::State(_)));
    module.states.iter().filter(move |_| touches)
}

/// Checks and describes the interface.
pub(super) fn describe(module: &Module) -> Result<ModelDescription> {
    let mut functions = Vec::new();
    for f in &module.functions {
        functions.push(function(module, f).with_context(|| format!("function `{}`", f.name))?);
    }
    Ok(match <[FunctionDescription; 1]>::try_from(functions) {
        Ok([FunctionDescription { input, output, state, .. }]) => {
            ModelDescription { input, output, state, ..ModelDescription::default() }
        }
        Err(functions) => ModelDescription {
            default_function_name: functions.first().map(|f| f.name.clone()).unwrap_or_default(),
            functions,
            ..ModelDescription::default()
        },
    })
}

/// The model of one function of a model with several.
pub(in super::super) fn single(model: &Model, name: &str) -> Result<Model> {
    let absent = || format!("no function `{name}` in the model");
    let mut model = model.clone();
    let described = model.description.take().with_context(absent)?.functions;
    let described = described.into_iter().find(|f| f.name == name).with_context(absent)?;
    let FunctionDescription { input, output, state, .. } = described;
    model.description = Some(ModelDescription { input, output, state, ..ModelDescription::default() });
    let program = model.ml_program.as_mut().with_context(absent)?;
    let function = program.functions.remove(name).with_context(absent)?;
    program.functions = BTreeMap::from([("main".into(), function)]);
    Ok(model)
}

fn function(module: &Module, f: &Function) -> Result<FunctionDescription> {
    let name = function_name(module, f);
    check_identifier("function", name)?;
    if f.results.is_empty() {
        bail!("it returns nothing; Core ML wants an output, such as a small token");
    }
    let mut described = FunctionDescription { name: name.into(), ..FunctionDescription::default() };
    for &v in f.params() {
        let name = f.node(v).name.as_deref().context("a parameter without a name")?;
        described.input.push(array_feature("input", name, f.ty(v))?);
    }
    for (name, v) in &f.results {
        described.output.push(array_feature("output", name, f.ty(*v))?);
    }
    check_aliases(f)?;
    for s in states(module, f) {
        check_identifier("state", &s.name)?;
        ensure!(
            s.ty.dtype == DType::F16 && (1..=MAX_RANK).contains(&s.ty.rank()),
            "state `{}`: expected f16 of 1 to {MAX_RANK} dimensions, found {}",
            s.name,
            s.ty
        );
        let array_type = Some(array(ArrayDataType::Float16, &s.ty.shape));
        described.state.push(feature(&s.name, feature_type::Type::StateType(StateFeatureType { array_type })));
    }
    let mut names: Vec<&str> =
        described.input.iter().chain(&described.output).chain(&described.state).map(|d| d.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|w| w[0] == w[1]) {
        bail!("two of its inputs, outputs and states are named `{}`", twice[0]);
    }
    for v in f.order() {
        if let Some(name) = &f.node(v).name {
            check_identifier("value", name)?;
        }
    }
    Ok(described)
}

/// Core ML crashes while it loads a function that returns what it writes to a state (apple/coremltools#2713); the fix
/// proposed there refuses what goes into the written value as well, and so does this.
fn check_aliases(f: &Function) -> Result<()> {
    for (state, written) in &f.updates {
        let mut goes_in = HashSet::from([*written]);
        let mut stack = vec![*written];
        while let Some(v) = stack.pop() {
            stack.extend(f.operands(v).into_iter().filter(|o| goes_in.insert(*o)));
        }
        for (result, v) in &f.results {
            // Parameters and constants are returned through an op of their own.
            let computed = !matches!(f.op(*v), Op::Input(_)) && !f.is_const(*v);
            ensure!(
                !computed || !goes_in.contains(v),
                "the output `{result}` is written to the state `{state}` or goes into what is written, which crashes Core \
                 ML; return a value that is computed apart"
            );
        }
    }
    Ok(())
}

fn array_feature(what: &str, name: &str, ty: &TensorType) -> Result<FeatureDescription> {
    check_identifier(what, name)?;
    let data_type = match ty.dtype {
        DType::F32 => ArrayDataType::Float32,
        DType::F16 => ArrayDataType::Float16,
        DType::I32 => ArrayDataType::Int32,
        other => bail!("{what} `{name}`: expected f32, f16 or i32, found {other}"),
    };
    ensure!(
        (1..=MAX_RANK).contains(&ty.rank()) && !ty.shape.contains(&0),
        "{what} `{name}`: expected 1 to {MAX_RANK} dimensions, none of them 0, found {ty}"
    );
    Ok(feature(name, feature_type::Type::MultiArrayType(array(data_type, &ty.shape))))
}

fn array(data_type: ArrayDataType, shape: &[usize]) -> ArrayFeatureType {
    ArrayFeatureType {
        shape: shape.iter().map(|&d| d as i64).collect(),
        data_type: data_type.into(),
        ..ArrayFeatureType::default()
    }
}

fn feature(name: &str, ty: feature_type::Type) -> FeatureDescription {
    FeatureDescription {
        name: name.into(),
        r#type: Some(FeatureType { r#type: Some(ty), is_optional: false }),
        ..FeatureDescription::default()
    }
}
