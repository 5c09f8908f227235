//! Token ids: what a text encoder takes, integers below the number of ids that it knows.

use crate::error::refuse;
use crate::{Error, HostTensor};

/// Checks token ids that somebody brings against a `vocabulary` of so many.
///
/// # Errors
/// An element that is no integer from 0 to below `vocabulary`.
pub fn check(ids: &HostTensor, vocabulary: usize) -> Result<(), Error> {
    let is_id = |id: f32| id.fract() == 0.0 && id >= 0.0 && f64::from(id) < vocabulary as f64;
    if let Some(i) = ids.data.iter().position(|id| !is_id(*id)) {
        let last = vocabulary.saturating_sub(1);
        refuse!(Input, "element {i}: found {}, expected a token id, an integer from 0 to {last}", ids.data[i]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_token_id_is_refused() {
        let ids = |data: [f32; 2]| HostTensor { shape: vec![1, 2], data: data.to_vec() };
        check(&ids([0.0, 9.0]), 10).unwrap();
        for (data, says) in [
            ([1.0, 0.5], "element 1: found 0.5"),
            ([f32::NAN, 1.0], "element 0"),
            ([0.0, 10.0], "found 10, expected a token id, an integer from 0 to 9"),
            ([-1.0, 0.0], "found -1"),
        ] {
            let error = check(&ids(data), 10).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
