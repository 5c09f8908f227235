//! Readable, unique names from provenance.

use std::collections::{HashMap, HashSet};

use anyhow::{Result, bail};
use s2dit_ir::ops::Op;
use s2dit_ir::{Function, ValueId};

/// Hands out value and node names.
pub(super) struct Names {
    /// Names that values have by right.
    own: HashMap<ValueId, String>,
    /// Value names in use, with the next suffix to try.
    values: HashMap<String, usize>,
    nodes: HashMap<String, usize>,
}

impl Names {
    /// Settles the names of inputs, states, results and IR values that bear one; in that order they have a right to it. A
    /// result without a name of its own takes the result's.
    pub(super) fn new(f: &Function, order: &[ValueId], constants: &HashSet<ValueId>) -> Result<Self> {
        let mut names = Names { own: HashMap::new(), values: HashMap::new(), nodes: HashMap::new() };
        for &v in order {
            let input = match f.op(v) {
                Op::Input(_) => f.node(v).name.as_deref(),
                Op::State(s) => Some(s.state.as_str()),
                _ => continue,
            };
            let Some(input) = input else { bail!("a parameter without a name") };
            // The same state may be read at several places.
            let again = matches!(f.op(v), Op::State(_)) && names.own.values().any(|n| n == input);
            if !names.reserve(input) && !again {
                bail!("two inputs are named `{input}`: ONNX needs distinct names");
            }
            names.own.insert(v, input.to_string());
        }
        let mut unnamed = Vec::new();
        for (output, v) in outputs(f) {
            if !names.reserve(&output) {
                bail!("`{output}` names an output and something else: ONNX needs distinct names");
            }
            let free = !names.own.contains_key(&v) && !constants.contains(&v);
            match f.node(v).name.as_deref() {
                Some(name) if name == output && free => {
                    names.own.insert(v, output);
                }
                None if free => unnamed.push((v, output)),
                _ => {}
            }
        }
        for (v, output) in unnamed {
            names.own.entry(v).or_insert(output);
        }
        for &v in order {
            if let Some(name) = f.node(v).name.as_deref()
                && !names.own.contains_key(&v)
                && names.reserve(name)
            {
                names.own.insert(v, name.to_string());
            }
        }
        Ok(names)
    }

    /// `false` if the name is taken.
    fn reserve(&mut self, name: &str) -> bool {
        self.values.insert(name.to_string(), 1).is_none()
    }

    /// The name that this value must have, if there is one.
    pub(super) fn own(&self, v: ValueId) -> Option<&str> {
        self.own.get(&v).map(String::as_str)
    }

    /// `wanted`, with a number behind it if it is taken.
    pub(super) fn unique(&mut self, wanted: &str) -> String {
        next(&mut self.values, wanted)
    }

    /// A node name: `/blocks.3/attn1/to_q/Gemm`.
    pub(super) fn node(&mut self, scope: &str, op_type: &str) -> String {
        let mut path = String::new();
        let mut parts = scope.split('.').peekable();
        while let Some(part) = parts.next() {
            if part.is_empty() {
                continue;
            }
            path.push('/');
            path.push_str(part);
            // An index belongs to the list before it.
            if let Some(index) = parts.next_if(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit())) {
                path.push('.');
                path.push_str(index);
            }
        }
        next(&mut self.nodes, &format!("{path}/{op_type}"))
    }
}

/// Outputs of the ONNX graph: results, then the new values of states.
pub(super) fn outputs(f: &Function) -> impl Iterator<Item = (String, ValueId)> {
    f.results.iter().cloned().chain(f.updates.iter().map(|(state, v)| (format!("{state}_out"), *v)))
}

fn next(taken: &mut HashMap<String, usize>, wanted: &str) -> String {
    let Some(mut n) = taken.get(wanted).copied() else {
        taken.insert(wanted.to_string(), 1);
        return wanted.to_string();
    };
    loop {
        let name = format!("{wanted}_{n}");
        n += 1;
        if !taken.contains_key(&name) {
            taken.insert(wanted.to_string(), n);
            taken.insert(name.clone(), 1);
            return name;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Names> {
        let module = s2dit_ir::text::parse(text)?;
        let f = &module.functions[0];
        Names::new(f, &f.order(), &HashSet::new())
    }

    #[test]
    fn names_are_readable_and_unique() {
        let mut names =
            names("module {\n func @main(%x: f32[1]) {\n %y = abs(%x) : f32[1]\n return y = %y\n }\n}").unwrap();
        assert_eq!(names.unique("a"), "a");
        assert_eq!(names.unique("a_1"), "a_1");
        assert_eq!(names.unique("a"), "a_2");
        assert_eq!(names.unique("y"), "y_1");
        assert_eq!(names.node("blocks.3.attn1.to_q", "Gemm"), "/blocks.3/attn1/to_q/Gemm");
        assert_eq!(names.node("blocks.3.attn1.to_q", "Gemm"), "/blocks.3/attn1/to_q/Gemm_1");
        assert_eq!(names.node("blocks.3.attn1.to_out.0", "Gemm"), "/blocks.3/attn1/to_out.0/Gemm");
        assert_eq!(names.node("", "Cos"), "/Cos");
    }

    #[test]
    fn an_output_that_is_called_like_an_input_is_refused() {
        let text = "module {\n func @main(%x: f32[1]) {\n %y = abs(%x) : f32[1]\n return x = %y\n }\n}";
        assert!(names(text).err().unwrap().to_string().contains("`x`"));
    }
}
