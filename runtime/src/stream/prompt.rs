//! What a stream is told to show.

use anyhow::{Context, Result, bail};

use super::contract::Contract;
use crate::{HostTensor, text_mask};

/// A prompt, as a text encoder made it.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Embeddings `[1, L, text_dim]`.
    pub text: HostTensor,
    /// For a kernel that takes a mask `[1, L]`: 1 where a token counts, 0 where it is padding.
    pub mask: Option<HostTensor>,
}

/// A text without a mask.
impl From<HostTensor> for Prompt {
    fn from(text: HostTensor) -> Prompt {
        Prompt { text, mask: None }
    }
}

impl Prompt {
    /// Checks that the prompt is what the kernel takes.
    pub(super) fn check(&self, contract: &Contract) -> Result<()> {
        let (text, expected) = (&self.text, contract.text.shape());
        if text.shape != expected {
            bail!(
                "prompt: found shape {:?}, expected {expected:?} ({} tokens of {})",
                text.shape,
                expected[1],
                expected[2]
            );
        }
        if let Some(i) = text.data.iter().position(|x| !x.is_finite()) {
            bail!("prompt: element {i} is {}, expected finite numbers", text.data[i]);
        }
        let expected = contract.mask_shape();
        match (&self.mask, expected) {
            (None, None) => Ok(()),
            (Some(mask), Some(expected)) if mask.shape == expected => {
                text_mask::check(mask).context("mask of the prompt")
            }
            (Some(mask), Some(expected)) => {
                bail!("mask of the prompt: found shape {:?}, expected {expected:?}", mask.shape)
            }
            (None, Some(expected)) => bail!(
                "mask of the prompt: found none, expected {expected:?}: 1 where a token of the prompt counts, 0 where it is padding"
            ),
            (Some(_), None) => bail!("mask of the prompt: found one, expected none: the kernel takes the text alone"),
        }
    }
}
