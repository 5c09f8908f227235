//! Checks what must hold of every module, whatever the pass that made it.
//!
//! Invariants:
//! - V1 the graph has no cycle; operands of a node are numbered 0, 1, 2, … without gaps;
//! - V2 every node's declared type is what its op infers from its operands;
//! - V3 names of values, functions, states, results and parameters are unique in their scope;
//! - V4 parameters are `input` nodes with a name, and every live `input` node is a parameter;
//! - V5 states that are read or updated are declared, with that type, and updated at most once a function;
//! - V6 a function has a result or an update;
//! - V7 the interface names each input, result and milestone once, and every one that it names is there.

use std::collections::HashSet;
use std::fmt;

pub use crate::violation::Violation;
use crate::{Function, Module, Op, TensorType, ValueId};

/// All broken invariants of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyError {
    /// Violations, in the order of the text form.
    pub violations: Vec<Violation>,
    /// The module's text with each violation under its line.
    pub text: String,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the IR is not valid ({} violation(s))", self.violations.len())?;
        for v in &self.violations {
            writeln!(f, "  @{}: {}", v.function, v.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for VerifyError {}

/// Checks a module and collects every violation.
///
/// # Errors
/// The violations, with the module's text around them.
pub fn verify(module: &Module) -> Result<(), VerifyError> {
    let mut violations = Vec::new();
    let mut seen = HashSet::new();
    for state in &module.states {
        if !seen.insert(&state.name) {
            violations.push(Violation {
                function: String::new(),
                value: None,
                message: format!("V3: state `{}` is declared twice", state.name),
            });
        }
    }
    let mut seen = HashSet::new();
    for f in &module.functions {
        if !seen.insert(&f.name) {
            violations.push(Violation {
                function: f.name.clone(),
                value: None,
                message: "V3: the function's name is used twice".into(),
            });
        }
        check_function(module, f, &mut violations);
    }
    check_interface(module, &mut violations);
    if violations.is_empty() {
        return Ok(());
    }
    let text = crate::text::print_with_notes(module, &violations);
    Err(VerifyError { violations, text })
}

fn check_interface(module: &Module, out: &mut Vec<Violation>) {
    let interface = &module.interface;
    let mut fail = |message: String| out.push(Violation { function: String::new(), value: None, message });
    if let Some(name) = interface.twice() {
        fail(format!("V7: the interface names `{name}` twice"));
    }
    if interface.is_empty() {
        return;
    }
    let values = module.functions.iter().flat_map(|f| f.values().into_iter().filter_map(|v| f.node(v).name.as_deref()));
    let names: HashSet<&str> = values.collect();
    let named = |name: &str| names.contains(name);
    for input in interface.inputs.iter().filter(|i| !named(&i.name)) {
        fail(format!("V7: no function has the input `{}` of the interface", input.name));
    }
    let returned = |name: &str| module.functions.iter().any(|f| f.results.iter().any(|(n, _)| n == name));
    for output in interface.outputs.iter().filter(|o| !returned(&o.name)) {
        fail(format!("V7: no function returns `{}`, a result of the interface", output.name));
    }
    for milestone in interface.milestones.iter().filter(|m| !named(&m.value)) {
        fail(format!("V7: no value is named `{}`, as a milestone of the interface is", milestone.value));
    }
}

fn check_function(module: &Module, f: &Function, out: &mut Vec<Violation>) {
    let mut fail = |value: Option<ValueId>, message: String| {
        out.push(Violation { function: f.name.clone(), value, message });
    };
    if f.is_cyclic() {
        fail(None, "V1: the graph has a cycle".into());
        return;
    }
    if f.results.is_empty() && f.updates.is_empty() {
        fail(None, "V6: the function has neither a result nor an update".into());
    }
    let params: HashSet<ValueId> = f.params().iter().copied().collect();
    let mut names = HashSet::new();
    for v in f.order() {
        let node = f.node(v);
        if let Some(name) = &node.name
            && !names.insert(name.clone())
        {
            fail(Some(v), format!("V3: two values are named `{name}`"));
        }
        match &node.op {
            Op::Input(_) if !params.contains(&v) => fail(Some(v), "V4: an `input` that is not a parameter".into()),
            Op::Input(_) if node.name.is_none() => fail(Some(v), "V4: a parameter without a name".into()),
            Op::State(s) => match module.state(&s.state) {
                None => fail(Some(v), format!("V5: state `{}` is not declared", s.state)),
                Some(d) if d.ty != node.ty => {
                    fail(Some(v), format!("V5: state `{}` is {}, read as {}", s.state, d.ty, node.ty));
                }
                Some(_) => {}
            },
            _ => {}
        }
        let positions = f.operand_positions(v);
        if !positions.iter().copied().eq(0..positions.len()) {
            fail(Some(v), format!("V1: operands are numbered {positions:?}"));
            continue;
        }
        let operands = f.operands(v);
        let types: Vec<&TensorType> = operands.iter().map(|&o| f.ty(o)).collect();
        match node.op.infer(&types, Some(&node.ty)) {
            Err(e) => fail(Some(v), format!("V2: `{}`: {e}", node.op.name())),
            Ok(ty) if ty != node.ty => {
                fail(Some(v), format!("V2: `{}` has type {ty}, declared {}", node.op.name(), node.ty));
            }
            Ok(_) => {}
        }
    }
    let mut seen = HashSet::new();
    for (name, _) in &f.results {
        if !seen.insert(name) {
            fail(None, format!("V3: two results are named `{name}`"));
        }
    }
    let mut seen = HashSet::new();
    for (state, v) in &f.updates {
        if !seen.insert(state) {
            fail(Some(*v), format!("V5: state `{state}` is updated twice"));
        }
        match module.state(state) {
            None => fail(Some(*v), format!("V5: state `{state}` is not declared")),
            Some(d) if d.ty != *f.ty(*v) => {
                fail(Some(*v), format!("V5: state `{state}` is {}, updated with {}", d.ty, f.ty(*v)));
            }
            Some(_) => {}
        }
    }
}
