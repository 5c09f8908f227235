//! Compressed weights.

use serde::{Deserialize, Serialize};

use super::{Look, Place, constexprs};
use crate::coreml::lint::program::{Op, bound_one};
use crate::coreml::lint::value::Value;
use crate::coreml::proto::Operation;

const SCALED: &str = "constexpr_blockwise_shift_scale";

/// Quantised weights have one scale a tensor or a channel, none a block.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blockwise {}

impl Look for Blockwise {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        let extents = |c: &Operation, input: &str| operand(at, c, input)?.extents();
        constexprs(at, op, SCALED).into_iter().find_map(|c| {
            let (data, scale) = (extents(c, "data")?, extents(c, "scale")?);
            let blocks = data.iter().zip(&scale).any(|(d, s)| *s > 1 && s != d);
            let axes = scale.iter().filter(|s| **s > 1).count();
            (blocks || axes > 1).then(|| format!("a weight {data:?} with scales {scale:?}"))
        })
    }
}

/// No lookup table is followed by scales.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaledLut {}

impl Look for ScaledLut {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        let table = |c: &&Operation| {
            let data = c.inputs.get("data").and_then(|a| a.arguments.first()).and_then(bound_one);
            data.and_then(|o| at.function.constexpr(o)).is_some_and(|d| d.r#type == "constexpr_lut_to_dense")
        };
        let scaled = constexprs(at, op, SCALED).into_iter().find(table)?;
        let name = scaled.outputs.first().map_or("", |v| v.name.as_str());
        Some(format!("weight `{name}`"))
    }
}

fn operand<'p>(at: &Place<'_, 'p>, op: &'p Operation, input: &str) -> Option<Value<'p>> {
    at.function.operand(bound_one(op.inputs.get(input)?.arguments.first()?)?)
}
