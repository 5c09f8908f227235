//! Compressed weights.

use serde::{Deserialize, Serialize};

use super::{Look, Place, constexprs};
use crate::coreml::lint::program::{Op, bound_one};
use crate::coreml::lint::value::Value;
use crate::coreml::proto::{DataType, Operation};

const SCALED: &str = "constexpr_blockwise_shift_scale";
const AFFINE: &str = "constexpr_affine_dequantize";
const INTEGERS: [DataType; 4] = [DataType::Int8, DataType::Uint8, DataType::Int4, DataType::Uint4];

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

/// No weight is made of integers with scales; with `signed`, of signed ones that have a scale for each of several channels.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntegerWeights {
    signed: bool,
}

impl Look for IntegerWeights {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        let integers = [(SCALED, "data"), (AFFINE, "quantized_data")];
        integers.into_iter().find_map(|(ty, input)| {
            constexprs(at, op, ty).into_iter().find_map(|c| {
                // The codes of a lookup table are no integers of this kind.
                let data = operand(at, c, input).filter(|data| INTEGERS.contains(&data.dtype))?;
                let channels = operand(at, c, "scale").and_then(|scale| scale.elements()).unwrap_or(1);
                let is_signed = [DataType::Int8, DataType::Int4].contains(&data.dtype) && channels > 1;
                (!self.signed || is_signed).then(|| format!("a weight of {}", data.ty()))
            })
        })
    }
}

fn operand<'p>(at: &Place<'_, 'p>, op: &'p Operation, input: &str) -> Option<Value<'p>> {
    at.function.operand(bound_one(op.inputs.get(input)?.arguments.first()?)?)
}
