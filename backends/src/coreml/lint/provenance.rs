//! The module and block that an op came from, as far as names tell.
//!
//! This compiler names an op by module path, MIL op and a number (`blocks_3_attn1_to_q_linear_0`); coremltools numbers ops, but names
//! weights by their path (`blocks_3_attn1_to_q_weight_to_fp16`). What is left without the tail is the path, dots as underscores.

use super::program::{Function, Op, Operand};

/// The module path of an op; `None` if neither its name nor those of its constants tell.
pub fn path(function: &Function, op: &Op) -> Option<String> {
    own(op).or_else(|| op.inputs().find_map(|(_, operand)| of_weight(function, operand)))
}

/// The path in the name of an op of this compiler.
fn own(op: &Op) -> Option<String> {
    // A block's result has a name that people can ask for.
    if let Some(number) = op.name.strip_prefix("block").filter(|n| n.parse::<u32>().is_ok()) {
        return Some(format!("blocks_{number}"));
    }
    let stem = op.name.trim_end_matches(|c: char| c.is_ascii_digit()).strip_suffix('_')?;
    // The writer numbers most ops by the name that they have in the IR.
    let in_ir = match op.ty {
        "slice_by_index" => "slice",
        "real_div" => "div",
        ty => ty,
    };
    let kinds = [op.ty, in_ir];
    let Some(path) = kinds.iter().find_map(|kind| stem.strip_suffix(kind)) else {
        // An op whose IR name is not MIL's: the word stays, the block is known.
        return stem.starts_with("blocks_").then(|| stem.into());
    };
    let path = path.strip_suffix('_')?;
    (!path.is_empty()).then(|| path.into())
}

/// The path in the name of a weight.
fn of_weight(function: &Function, operand: Operand) -> Option<String> {
    let Operand::Name(name) = operand else { return None };
    function.constant(operand).map(|_| ()).or_else(|| function.constexpr(operand).map(|_| ()))?;
    let name = ["_to_fp16", "_palettized", "_quantized"].iter().fold(name, |n, tail| n.strip_suffix(tail).unwrap_or(n));
    let path = ["_weight", "_bias"].iter().find_map(|tail| name.strip_suffix(tail))?;
    (!path.is_empty()).then(|| path.into())
}

/// What a list of blocks is called: by diffusers, and by transformers.
const LISTS: [&str; 3] = ["blocks_", "layers_", "block_"];

/// A list of blocks, by what comes before its name (such as `blocks_`) in a path or a name, and the number after it.
pub fn block(path: &str) -> Option<(&str, u32)> {
    let after = |list| {
        let (before, rest) = path.split_once(list)?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        let number = digits.parse().ok()?;
        (before.is_empty() || before.ends_with('_')).then_some((before, number))
    };
    LISTS.into_iter().find_map(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_numbers_after_a_word() {
        assert_eq!(block("blocks_3_attn1_to_q"), Some(("", 3)));
        assert_eq!(block("m_blocks_12_ffn"), Some(("m_", 12)));
        assert_eq!(block("single_blocks_2_linear2"), Some(("single_", 2)));
        assert_eq!(block("blocks_11"), Some(("", 11)));
        assert_eq!(block("encoder_layers_2_mlp_fc1"), Some(("encoder_", 2)));
        assert_eq!(block("encoder_block_5_layer_1_layer_norm"), Some(("encoder_", 5)));
        for none in ["subblocks_3", "blocks", "blocks_x", "patch_embedding"] {
            assert_eq!(block(none), None, "{none}");
        }
    }
}
