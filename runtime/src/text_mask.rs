//! Masks of text tokens: 1 where a token counts, 0 where it is padding.

use crate::error::refuse;
use crate::{Error, HostTensor};

/// A mask `[…, L]` in which the first `counting` of L tokens count.
#[must_use]
pub fn of_first(shape: &[usize], counting: usize) -> HostTensor {
    let tokens = shape.last().copied().unwrap_or(1).max(1);
    let elements = shape.iter().product();
    let data = (0..elements).map(|i| f32::from(u8::from(i % tokens < counting))).collect();
    HostTensor { shape: shape.to_vec(), data }
}

/// The number of tokens that count in a made-up mask of `tokens`, by a `draw`: at least one, and not all where there are several.
#[must_use]
pub fn counting(tokens: usize, draw: u64) -> usize {
    let choices = tokens.saturating_sub(1).max(1) as u64;
    (draw % choices) as usize + 1
}

/// Checks a mask that somebody brings.
///
/// # Errors
/// An element that is neither 0 nor 1; no token that counts, since attention to nothing has no meaning.
pub fn check(mask: &HostTensor) -> Result<(), Error> {
    if let Some(i) = mask.data.iter().position(|x| *x != 0.0 && *x != 1.0) {
        refuse!(Input, "element {i}: found {}, expected 1 (a token that counts) or 0 (padding)", mask.data[i]);
    }
    if !mask.data.contains(&1.0) {
        refuse!(Input, "found no token that counts, expected a 1 for each token of the prompt");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_tokens_and_then_padding() {
        assert_eq!(of_first(&[1, 4], 3).data, [1.0, 1.0, 1.0, 0.0]);
        assert_eq!(of_first(&[2, 3], 1).data, [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        let drawn: Vec<usize> = (0..5).map(|draw| counting(4, draw)).collect();
        assert_eq!(drawn, [1, 2, 3, 1, 2]);
        assert_eq!((counting(1, 7), counting(0, 7)), (1, 1));
    }

    #[test]
    fn what_is_no_mask_is_refused() {
        let mask = |data: &[f32]| HostTensor { shape: vec![1, data.len()], data: data.to_vec() };
        check(&mask(&[1.0, 0.0, 1.0])).unwrap();
        for (data, says) in
            [([1.0, 0.5], "element 1: found 0.5"), ([f32::NAN, 1.0], "element 0"), ([0.0, 0.0], "no token")]
        {
            let error = check(&mask(&data)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
