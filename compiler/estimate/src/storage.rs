//! How weights are stored and what they are multiplied with, for graphs that are not compiled yet.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result};
use s2dit_emit::plan::{Quantize, Storage};
use s2dit_ir::compress::{EXPECTED, Scheme};
use s2dit_ir::{Module, TensorType};
use s2dit_passes::quantize::{self, Choice};

/// The storage of large weights, and the type of the activations that they are multiplied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// Storage of large weights.
    pub storage: Storage,
    /// Whether activations are int8 where such a weight is multiplied.
    pub int8_activations: bool,
}

/// 4-bit weights as the paper of S2DiT has most of them.
const PALETTE: Scheme = Scheme::Palette { bits: 4, group: Some(16) };

impl Weights {
    /// Everything in fp16.
    pub const WHOLE: Weights = Weights { storage: Storage::Whole, int8_activations: false };
    /// int8 weights and activations.
    pub const W8A8: Weights = Weights { storage: Storage::Compressed(Scheme::Int8), int8_activations: true };
    /// 4-bit palettes and int8 activations.
    pub const W4A8: Weights = Weights { storage: Storage::Compressed(PALETTE), int8_activations: true };
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Weights::W8A8 => f.write_str("w8a8"),
            Weights::W4A8 => f.write_str("w4a8"),
            Weights { storage, .. } => storage.fmt(f),
        }
    }
}

impl FromStr for Weights {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "w8a8" => Ok(Weights::W8A8),
            "w4a8" => Ok(Weights::W4A8),
            _ => match text.parse() {
                Ok(storage) => Ok(Weights { storage, int8_activations: false }),
                Err(_) => Err(format!("expected fp16, w8a8, w4a8, {EXPECTED}")),
            },
        }
    }
}

impl Weights {
    /// What the compiler is told, so that it joins the same weights.
    pub(crate) fn quantize(self) -> Option<Quantize> {
        match self.storage {
            Storage::Whole => None,
            Storage::Compressed(scheme) => Some(Quantize::Uniform(scheme)),
        }
    }

    /// Compresses the large weights of a lowered module that the scheme fits.
    pub(crate) fn apply(self, module: &mut Module) -> Result<()> {
        let Storage::Compressed(scheme) = self.storage else { return Ok(()) };
        let fits = |ty: &TensorType| scheme.runs(&ty.shape).is_ok_and(|runs| runs.entries <= runs.len);
        // Of what is estimated, the scale says only that there is one.
        let input_scale = self.int8_activations.then_some(1.0);
        quantize::run(module, |_, ty| fits(ty).then(|| Choice { input_scale, ..Choice::from(scheme) }))
            .with_context(|| format!("cannot quantize to {self}"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_to_one() {
        for text in ["fp16", "w8a8", "w4a8", "int8", "palette4-group16"] {
            assert_eq!(text.parse::<Weights>().unwrap().to_string(), text);
        }
        assert!("w2a8".parse::<Weights>().unwrap_err().contains("w4a8"));
    }
}
