//! Readable, unique names from provenance.

use std::collections::HashMap;

use s2dit_ir::Function;

/// Hands out value and node names.
pub(super) struct Names {
    /// Value names in use, with the next suffix to try.
    values: HashMap<String, usize>,
    nodes: HashMap<String, usize>,
}

impl Names {
    /// Names that IR values bear, and those of results, are taken from the start.
    pub(super) fn new(f: &Function) -> Self {
        let named = f.order().into_iter().filter_map(|v| f.node(v).name.as_deref().map(str::to_string));
        let results = f.results.iter().map(|(name, _)| name.clone());
        let updates = f.updates.iter().flat_map(|(state, _)| [state.clone(), format!("{state}_out")]);
        Names { values: named.chain(results).chain(updates).map(|n| (n, 1)).collect(), nodes: HashMap::new() }
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
            if let Some(index) = parts.next_if(|p| p.bytes().all(|b| b.is_ascii_digit())) {
                path.push('.');
                path.push_str(index);
            }
        }
        next(&mut self.nodes, &format!("{path}/{op_type}"))
    }
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

    #[test]
    fn names_are_readable_and_unique() {
        let mut names = Names::new(&Function::new("main"));
        assert_eq!(names.unique("a"), "a");
        assert_eq!(names.unique("a_1"), "a_1");
        assert_eq!(names.unique("a"), "a_2");
        assert_eq!(names.node("blocks.3.attn1.to_q", "Gemm"), "/blocks.3/attn1/to_q/Gemm");
        assert_eq!(names.node("blocks.3.attn1.to_q", "Gemm"), "/blocks.3/attn1/to_q/Gemm_1");
        assert_eq!(names.node("", "Cos"), "/Cos");
    }
}
