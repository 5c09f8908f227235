//! Norms in pieces, and sums.

use serde::{Deserialize, Serialize};

use super::{Look, Place};
use crate::coreml::lint::constant::range;
use crate::coreml::lint::program::{Op, Operand};
use crate::coreml::proto::DataType;

fn name_of(op: &Op, input: &str) -> Option<String> {
    match op.operands(input)[..] {
        [Operand::Name(name)] => Some(name.to_string()),
        _ => None,
    }
}

/// No square in fp16, which overflows from 256 on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HalfSquare {}

impl Look for HalfSquare {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        let half = op.outputs.first().is_some_and(|v| v.dtype == DataType::Float16);
        let square = match op.ty {
            "square" | "reduce_sum_square" => true,
            "mul" => name_of(op, "x").is_some() && name_of(op, "x") == name_of(op, "y"),
            "pow" => op
                .operands("y")
                .iter()
                .filter_map(|y| at.function.constant(*y))
                .filter_map(|y| range(at.program.package, y))
                .any(|r| r.low == 2.0),
            _ => false,
        };
        (half && square).then(|| "squares in fp16".into())
    }
}

/// No layer norm in pieces: nothing is subtracted its own mean.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainLayerNorm {}

impl Look for PlainLayerNorm {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        if op.ty != "sub" {
            return None;
        }
        let [mean] = op.operands("y")[..] else { return None };
        let mean = at.function.producer(mean).filter(|m| m.ty == "reduce_mean")?;
        let x = name_of(op, "x")?;
        (name_of(mean, "x")? == x).then(|| format!("`{x}` minus its mean"))
    }
}

/// No sum or mean in fp16 has more than `max` terms.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HalfSum {
    max: u64,
}

impl Look for HalfSum {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        let out = op
            .outputs
            .first()
            .filter(|v| v.dtype == DataType::Float16 && ["reduce_sum", "reduce_mean"].contains(&op.ty))?;
        let terms = at.function.input(op, "x")?.elements()? / out.elements()?.max(1);
        (terms > self.max).then(|| format!("sums {terms} terms in {}", out.ty()))
    }
}
