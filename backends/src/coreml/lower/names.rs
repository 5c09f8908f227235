//! Readable, unique identifiers from provenance.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use s2dit_ir::Function;

/// Hands out the names of a function's values, which are also those of its ops.
pub(super) struct Names {
    /// Names in use, with the next number to try behind them.
    taken: HashMap<String, usize>,
}

impl Names {
    /// Names that IR values bear, and those of results and states, are taken from the start.
    pub(super) fn new<'a>(f: &'a Function, states: impl Iterator<Item = &'a str>) -> Self {
        let named = f.order().into_iter().filter_map(|v| f.node(v).name.as_deref().map(str::to_string));
        let results = f.results.iter().map(|(name, _)| name.clone());
        Names { taken: named.chain(results).chain(states.map(str::to_string)).map(|n| (n, 0)).collect() }
    }

    /// `wanted` as an identifier, with a number behind it if it is taken.
    pub(super) fn unique(&mut self, wanted: &str) -> String {
        let wanted = sanitized(wanted);
        if self.taken.contains_key(&wanted) {
            return self.numbered(&wanted);
        }
        self.taken.insert(wanted.clone(), 0);
        wanted
    }

    /// `base` as an identifier with a number behind it, from 0 on.
    pub(super) fn numbered(&mut self, base: &str) -> String {
        let base = sanitized(base);
        let mut n = self.taken.get(&base).copied().unwrap_or(0);
        loop {
            let name = format!("{base}_{n}");
            n += 1;
            if !self.taken.contains_key(&name) {
                self.taken.insert(base, n);
                self.taken.insert(name.clone(), 0);
                return name;
            }
        }
    }
}

/// Refuses a name of the interface that Core ML would not take as it is.
pub(super) fn check_identifier(what: &str, name: &str) -> Result<()> {
    ensure!(
        name == sanitized(name),
        "{what} `{name}`: expected a name of letters, digits, `_` and `@` that neither begins with a digit or `@` nor is a word of MIL"
    );
    Ok(())
}

/// Words that mean something in MIL's text form; coremltools renames values that are called so.
const RESERVED: [&str; 24] = [
    "any", "bf16", "bool", "dict", "false", "fp16", "fp32", "fp64", "func", "int16", "int32", "int64", "int8", "list",
    "program", "state", "string", "tensor", "true", "tuple", "uint16", "uint32", "uint64", "uint8",
];

/// `[A-Za-z_][A-Za-z0-9_@]*`, and no word of MIL's own.
pub(super) fn sanitized(name: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '@' { c } else { '_' };
    let out: String = name.chars().map(keep).collect();
    match out.chars().next() {
        Some(_) if RESERVED.contains(&out.as_str()) => format!("{out}_"),
        Some(c) if c.is_ascii_alphabetic() || c == '_' => out,
        _ => format!("_{out}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_readable_unique_identifiers() {
        let mut names = Names::new(&Function::new("main"), ["cache"].into_iter());
        assert_eq!(names.unique("blocks.3.attn1.to_q.weight"), "blocks_3_attn1_to_q_weight");
        assert_eq!(names.unique("blocks.3_attn1.to_q.weight"), "blocks_3_attn1_to_q_weight_0");
        assert_eq!(names.unique("cache"), "cache_0");
        assert_eq!(names.unique("0.weight"), "_0_weight");
        assert_eq!(names.numbered("blocks.3.linear"), "blocks_3_linear_0");
        assert_eq!(names.numbered("blocks.3.linear"), "blocks_3_linear_1");
        assert!(check_identifier("result", "velocity").is_ok());
        assert_eq!(names.unique("state"), "state_");
        for bad in ["", "tensor", "1st", "a.b", "@x", "größe"] {
            assert!(check_identifier("result", bad).is_err(), "{bad}");
        }
    }
}
