//! Identifiers of a program.

use std::collections::{HashMap, HashSet};

/// Words of MIL's text form, which cannot name a value.
const RESERVED: &[&str] = &[
    "any", "block", "bool", "const", "constexpr", "dict", "false", "fp16", "fp32", "fp64", "func", "int16", "int32",
    "int4", "int64", "int8", "list", "main", "program", "state", "string", "tensor", "true", "tuple", "uint16", "uint32",
    "uint4", "uint64", "uint8", "unknown",
];

/// `true` for `[A-Za-z_][A-Za-z0-9_@]*`, the identifiers of MIL.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '@')
}

/// The nearest identifier: other characters become `_`.
pub(super) fn identifier(text: &str) -> String {
    let mut name: String = text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '@' { c } else { '_' }).collect();
    if !is_identifier(&name) || RESERVED.contains(&name.as_str()) {
        name.insert(0, '_');
    }
    name
}

/// The names taken in one function.
#[derive(Debug, Default)]
pub(super) struct Names {
    taken: HashSet<String>,
    /// Next suffix of a base name that was asked for more than once.
    suffixes: HashMap<String, usize>,
}

impl Names {
    /// Takes exactly this name; `false` if it is taken already.
    pub(super) fn reserve(&mut self, name: &str) -> bool {
        self.taken.insert(name.into())
    }

    /// Takes the identifier nearest to `base`, with a number if it is taken.
    pub(super) fn fresh(&mut self, base: &str) -> String {
        let base = identifier(base);
        if self.taken.insert(base.clone()) {
            return base;
        }
        let next = self.suffixes.entry(base.clone()).or_insert(1);
        loop {
            let name = format!("{base}_{next}");
            *next += 1;
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_identifiers_and_unique() {
        let mut names = Names::default();
        assert!(names.reserve("block0"));
        assert!(!names.reserve("block0"));
        assert_eq!(names.fresh("block0"), "block0_1");
        assert_eq!(names.fresh("blocks.3.attn1.to_out.0"), "blocks_3_attn1_to_out_0");
        assert_eq!(names.fresh("blocks.3.attn1.to_out.0"), "blocks_3_attn1_to_out_0_1");
        assert_eq!(names.fresh("0.weight"), "_0_weight");
        assert_eq!(names.fresh("größe"), "gr__e");
        assert_eq!(names.fresh("tensor"), "_tensor");
        assert_eq!(names.fresh(""), "_");
        assert!(is_identifier("a@b") && !is_identifier("1a") && !is_identifier("a.b") && !is_identifier(""));
    }
}
