//! A name for a weight expression: equal expressions have the same, and are stored once.

use std::collections::HashMap;
use std::fmt;

use crate::{Function, ValueId};

/// What a constant is, as a hash (BLAKE3) over its ops, their attributes and types: two constants have the same only if they are the
/// same expression over the same tensors.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExpressionId([u8; 32]);

impl ExpressionId {
    /// The id of the constant `v`.
    #[must_use]
    pub fn of(f: &Function, v: ValueId) -> ExpressionId {
        fn walk(f: &Function, v: ValueId, known: &mut HashMap<ValueId, ExpressionId>) -> ExpressionId {
            if let Some(id) = known.get(&v) {
                return *id;
            }
            let node = f.node(v);
            let mut text = Vec::new();
            node.op.write_key(&mut text);
            text.extend(format!("\0{}\0", node.ty).as_bytes());
            for operand in f.operands(v) {
                text.extend(walk(f, operand, known).0);
            }
            let id = ExpressionId(*blake3::hash(&text).as_bytes());
            known.insert(v, id);
            id
        }
        walk(f, v, &mut HashMap::new())
    }
}

/// Hexadecimal digits.
impl fmt::Display for ExpressionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ExpressionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::parse;

    #[test]
    fn equal_expressions_are_one_and_others_are_not() {
        let module = parse(
            r#"module {
  func @main(%x: f32[2, 2]) {
    %a = load {tensor = "w"} : f32[2, 2]
    %b = load {tensor = "w"} : f32[2, 2]
    %c = load {tensor = "v"} : f32[2, 2]
    %half = literal {values = [0.5]} : f32[2, 2]
    %third = literal {values = [0.25]} : f32[2, 2]
    %ah = mul(%a, %half) : f32[2, 2]
    %bh = mul(%b, %half) : f32[2, 2]
    %ha = mul(%half, %a) : f32[2, 2]
    %at = mul(%a, %third) : f32[2, 2]
    %af = cast(%a) {dtype = "f16"} : f16[2, 2]
    %y = add(%x, %x) : f32[2, 2]
    return y = %y, ah = %ah, bh = %bh, ha = %ha, at = %at, af = %af, c = %c
  }
}"#,
        )
        .unwrap();
        let f = &module.functions[0];
        let of = |name: &str| ExpressionId::of(f, f.by_name(name).unwrap());
        assert_eq!((of("a"), of("ah")), (of("b"), of("bh")));
        let all = ["a", "c", "ah", "ha", "at", "af", "half", "third"].map(of);
        for (i, one) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|other| other != one), "{i}");
        }
        assert_eq!(of("a").to_string().len(), 64);
    }
}
