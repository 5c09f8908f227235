//! The hash of a checkpoint's tensors.

use rayon::prelude::*;
use s2dit_ir::WeightSource;

use crate::WeightStore;

/// Hashes (name, element type, shape, hash of the data) of every tensor, in order of names.
pub(super) fn content_hash(weights: &WeightStore) -> blake3::Hash {
    let tensors: Vec<(&str, usize)> = weights.tensors.iter().map(|(name, file)| (name.as_str(), *file)).collect();
    let hashes: Vec<blake3::Hash> = tensors
        .par_iter()
        .map(|(name, file)| {
            let file = &weights.files[*file];
            let hash = blake3::hash(file.data(name).unwrap_or_default());
            file.done(name);
            hash
        })
        .collect();

    let mut hasher = blake3::Hasher::new();
    hasher.update(b"s2ditc checkpoint 1\n");
    for ((name, file), hash) in tensors.into_iter().zip(hashes) {
        let Some(info) = weights.files[file].get(name) else { continue };
        // The length of the name makes the encoding unambiguous; types print without line breaks.
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(format!("{}\n", info.ty).as_bytes());
        hasher.update(hash.as_bytes());
    }
    hasher.finalize()
}
