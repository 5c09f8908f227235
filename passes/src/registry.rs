//! The list of passes, and passes by name.

use crate::pass::{Pass, PassKind, ReadError, Run};
use crate::{
    bound, canonicalize, channels_first, cse, decompose, emulate, fold_gate, fuse, half_weights, pad_notch, pad_tokens,
    phase, precision, quantize, rope_heads, rope_tables, slices_of_rows, split, split_conv, split_hidden,
    square_free_norms, states, sums_as_products, tile_queries, timesteps, widen,
};

/// Every pass, by its kind.
pub static PASSES: &[&PassKind] = &[
    &canonicalize::PASS,
    &cse::PASS,
    &phase::PASS,
    &rope_tables::PASS,
    &split::PASS,
    &timesteps::PASS,
    &fuse::PASS,
    &fold_gate::PASS,
    &rope_heads::PASS,
    &bound::PASS,
    &split_conv::PASS,
    &pad_tokens::PASS,
    &channels_first::PASS,
    &square_free_norms::PASS,
    &decompose::PASS,
    &decompose::FOR_ONNX21,
    &decompose::FOR_ONNX23,
    &decompose::FOR_COREAI,
    &sums_as_products::PASS,
    &pad_notch::PASS,
    &split_hidden::PASS,
    &tile_queries::PASS,
    &slices_of_rows::PASS,
    &precision::FP16,
    &precision::FP16_NORMS32,
    &precision::FP16_FORMULAS,
    &precision::FP16_ONLY,
    &half_weights::PASS,
    &widen::PASS,
    &emulate::ROUNDED,
    &emulate::WIDE,
    &states::PASS,
    &quantize::INT8,
    &quantize::PALETTE4,
];

/// The kind of pass called `name`.
pub fn pass(name: &str) -> Option<&'static PassKind> {
    PASSES.iter().copied().find(|kind| kind.name == name)
}

impl Pass {
    /// Reads a pass as it is written: `fuse`, `timesteps(1000,500)`.
    ///
    /// # Errors
    /// No pass of this name; options that the pass does not have.
    pub fn read(text: &str) -> Result<Pass, ReadError> {
        let (name, options) = match text.strip_suffix(')').and_then(|t| t.split_once('(')) {
            Some((name, options)) => (name, options.split(',').collect()),
            None => (text, Vec::new()),
        };
        let kind = pass(name).ok_or_else(|| ReadError::Unknown {
            name: name.into(),
            known: PASSES.iter().map(|p| p.name).collect::<Vec<_>>().join(", "),
        })?;
        let refused = |reason: String| ReadError::Options { pass: kind.name, reason };
        match kind.run {
            Run::Options(read) => read(&options).map_err(refused),
            _ if options.is_empty() => Ok(kind.into()),
            _ => Err(refused(format!("found {}, expected no options", options.join(",")))),
        }
    }
}
