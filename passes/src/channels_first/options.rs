//! The pass, and its choices.

use std::collections::HashSet;

use super::run;
use crate::Property;
use crate::pass::{Pass, PassKind, Run};

/// The form of an RMS norm; the module `norms` makes each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Norms {
    /// The layer norm of values beside their negatives: no square is stored, and twice the values are read and written.
    #[default]
    Doubled,
    /// A division by the length, which one op takes: the least traffic.
    Length,
}

/// Choices of the pass.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Parameters and results that only functions of this module exchange: they take the new layout too.
    pub internal: HashSet<String>,
    /// Keys and values that several blocks make of the same tokens are computed together.
    pub across_blocks: bool,
    /// Products of the same tokens are not joined: their weights are stored apart, in their own ways.
    pub apart: bool,
    /// Softmax attention head by head.
    pub per_head: bool,
    /// The form of RMS norms.
    pub norms: Norms,
    /// Bytes of fp16 values that an op reads and writes without leaving the engine: queries and keys whose steps need more go each by themselves, and products whose inputs
    /// side by side do are not joined.
    pub working_set: Option<usize>,
}

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "channels-first",
    doc: "tokens lie on the last axis, products with weights are 1×1 convolutions",
    options: "per-head, apart, across-blocks, norms-by-length, working-set=BYTES, internal=NAME",
    needs: &[Property::Fused, Property::Fp32, Property::TokensFirst, Property::Uncompressed],
    establishes: &[Property::ChannelsFirst],
    destroys: &[Property::Fused, Property::TokensFirst],
    run: Run::Options(|written| {
        let mut options = Options::default();
        for &option in written {
            match option.split_once('=').unwrap_or((option, "")) {
                ("per-head", "") => options.per_head = true,
                ("apart", "") => options.apart = true,
                ("across-blocks", "") => options.across_blocks = true,
                ("norms-by-length", "") => options.norms = Norms::Length,
                ("working-set", bytes) if bytes.parse::<usize>().is_ok() => options.working_set = bytes.parse().ok(),
                ("internal", name) => options.internal.extend([name.to_string()]),
                _ => return Err(format!("found `{option}`, expected {}", PASS.options)),
            }
        }
        Ok(pass(options))
    }),
};

/// The pass with its options. What functions of a split network exchange is internal as well.
pub fn pass(options: Options) -> Pass {
    let flags = [
        ("per-head", options.per_head),
        ("apart", options.apart),
        ("across-blocks", options.across_blocks),
        ("norms-by-length", options.norms == Norms::Length),
    ];
    let mut written: Vec<String> =
        flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_string()).collect();
    written.extend(options.working_set.map(|bytes| format!("working-set={bytes}")));
    let mut internal: Vec<_> = options.internal.iter().map(|name| format!("internal={name}")).collect();
    internal.sort();
    written.extend(internal);
    Pass::new(&PASS, written.join(","), move |module, context| {
        let mut options = options.clone();
        options
            .internal
            .extend(context.kernel.iter().flat_map(|k| k.prompt_values.iter().map(|(name, _)| name.clone())));
        Ok(run(module, &options)?)
    })
}
