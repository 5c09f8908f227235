//! IR to text.

use std::collections::HashMap;
use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use crate::interface::Interface;
use crate::violation::Violation;
use crate::{Function, Module, ValueId};

/// The text form of a module.
pub fn print(module: &Module) -> String {
    print_with_notes(module, &[])
}

/// The text form with each violation as a comment under the line at fault.
pub fn print_with_notes(module: &Module, notes: &[Violation]) -> String {
    let mut out = String::from("module {\n");
    print_interface(&module.interface, &mut out);
    for s in &module.states {
        let _ = writeln!(out, "  state {} : {}", string(&s.name), s.ty);
    }
    for f in &module.functions {
        print_function(f, notes, &mut out);
    }
    out.push_str("}\n");
    out
}

fn print_interface(interface: &Interface, out: &mut String) {
    for input in &interface.inputs {
        let _ = writeln!(out, "  input {} : {}", string(&input.name), role(&input.role));
    }
    for output in &interface.outputs {
        let _ = writeln!(out, "  output {} : {}", string(&output.name), role(&output.role));
    }
    for milestone in &interface.milestones {
        let _ = writeln!(out, "  milestone {} @ {}", string(&milestone.value), string(&milestone.scope));
    }
}

/// `time {low = 0.0, high = 1000.0}`: the name of a role, then its fields.
fn role(role: &impl Serialize) -> String {
    match serde_json::to_value(role) {
        Ok(Value::Object(mut fields)) => {
            let name = fields.shift_remove("role").unwrap_or_default();
            let fields: Vec<String> = fields.iter().map(|(k, v)| format!("{k} = {v}")).collect();
            let name = name.as_str().unwrap_or_default();
            if fields.is_empty() { name.into() } else { format!("{name} {{{}}}", fields.join(", ")) }
        }
        Ok(Value::String(name)) => name,
        _ => String::new(),
    }
}

fn print_function(f: &Function, notes: &[Violation], out: &mut String) {
    let notes: Vec<&Violation> = notes.iter().filter(|n| n.function == f.name).collect();
    let order = if f.is_cyclic() { f.values() } else { f.order() };
    let mut labels: HashMap<ValueId, String> = HashMap::new();
    let mut next = 0;
    for &v in &order {
        let label = match &f.node(v).name {
            Some(name) => quote_name(name),
            None => {
                next += 1;
                format!("{}", next - 1)
            }
        };
        labels.insert(v, format!("%{label}"));
    }
    let label = |v: ValueId| labels.get(&v).cloned().unwrap_or_else(|| format!("%dead{}", v.index()));
    let params: Vec<String> = f.params().iter().map(|&p| format!("{}: {}", label(p), f.ty(p))).collect();
    let _ = writeln!(out, "  func @{}({}) {{", f.name, params.join(", "));
    for note in notes.iter().filter(|n| n.value.is_none()) {
        let _ = writeln!(out, "    # error: {}", note.message);
    }
    for &v in &order {
        if !f.params().contains(&v) {
            let node = f.node(v);
            let _ = write!(out, "    {} = {}", label(v), node.op.name());
            let operands: Vec<String> = f.operands(v).into_iter().map(label).collect();
            if !operands.is_empty() {
                let _ = write!(out, "({})", operands.join(", "));
            }
            let attrs = node.op.attrs();
            if !attrs.is_empty() {
                let list: Vec<String> = attrs.iter().map(|(k, v)| format!("{k} = {}", spaced(v))).collect();
                let _ = write!(out, " {{{}}}", list.join(", "));
            }
            let _ = write!(out, " : {}", node.ty);
            if !node.scope.is_empty() {
                let _ = write!(out, " @ {}", string(&node.scope));
            }
            out.push('\n');
        }
        for note in notes.iter().filter(|n| n.value == Some(v)) {
            let _ = writeln!(out, "    # error: {}", note.message);
        }
    }
    for (state, v) in &f.updates {
        let _ = writeln!(out, "    update {} = {}", string(state), label(*v));
    }
    let results: Vec<String> = f.results.iter().map(|(n, v)| format!("{} = {}", quote_name(n), label(*v))).collect();
    let _ = writeln!(out, "    return {}", results.join(", "));
    out.push_str("  }\n");
}

/// JSON with a space after commas.
fn spaced(v: &Value) -> String {
    match v {
        Value::Array(items) => format!("[{}]", items.iter().map(spaced).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// A JSON string, which is what the parser reads; Rust's own escapes differ for characters that do not print.
fn string(text: &str) -> String {
    Value::from(text).to_string()
}

fn quote_name(name: &str) -> String {
    let mut chars = name.chars();
    let plain = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
    if plain { name.to_string() } else { string(name) }
}
