//! Hashes: of a file, and of a checkpoint's tensors, computed a piece at a time, as their bytes are read for other reasons.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use rayon::prelude::*;
use s2dit_backends::input::check_regular;
use s2dit_ir::{TensorType, WeightSource};

use crate::problems::Problems;

/// Bytes of a piece: a subtree of BLAKE3's binary tree, whose leaves are 1024 bytes (O'Connor et al., *BLAKE3*, section 2.1). So a
/// tensor's pieces can be hashed in any order.
const PIECE: usize = 1 << 16;

/// `blake3:` and the hash of a file.
///
/// # Errors
/// A file that cannot be read.
pub fn hash_of(path: &Path) -> Result<String, Problems> {
    let hashed = check_regular(path).and_then(|()| std::fs::File::open(path)).and_then(|file| {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file)?;
        Ok(hasher.finalize())
    });
    let hash = hashed.map_err(|e| Problems::one(path.display().to_string(), e.to_string(), "a readable file"))?;
    Ok(format!("blake3:{}", hash.to_hex()))
}

/// What is known of the hashes of tensors, by name.
#[derive(Debug)]
pub(super) struct Hashes(BTreeMap<String, Mutex<TensorHash>>);

/// What is known of a tensor's hash.
#[derive(Debug)]
enum TensorHash {
    /// Of a tensor of at most a piece.
    Small(Option<blake3::Hash>),
    /// Of each piece; the last may be shorter.
    Pieces(Vec<Option<ChainingValue>>),
}

impl Hashes {
    /// Knows nothing yet of tensors of so many bytes.
    pub(super) fn of_sizes<'a>(tensors: impl Iterator<Item = (&'a str, usize)>) -> Self {
        let hash = |bytes: usize| match bytes {
            0..=PIECE => TensorHash::Small(None),
            _ => TensorHash::Pieces(vec![None; bytes.div_ceil(PIECE)]),
        };
        Hashes(tensors.map(|(name, bytes)| (name.to_owned(), Mutex::new(hash(bytes)))).collect())
    }

    /// Hashes the pieces that lie in these bytes of a tensor, from `offset` on, and are not hashed yet. `len` is the tensor's size.
    pub(super) fn visit(&self, name: &str, len: usize, offset: usize, bytes: &[u8]) {
        let Some(tensor) = self.0.get(name) else { return };
        let skipped = offset.next_multiple_of(PIECE) - offset;
        let Some(pieces) = bytes.get(skipped..) else { return };
        let first = (offset + skipped) / PIECE;
        for (index, piece) in (first..).zip(pieces.chunks(PIECE)) {
            let whole = piece.len() == PIECE.min(len - index * PIECE);
            if !whole || lock(tensor).knows(index) {
                continue;
            }
            // Not under the lock: other threads hash other pieces of the tensor.
            match len {
                0..=PIECE => *lock(tensor) = TensorHash::Small(Some(blake3::hash(piece))),
                _ => {
                    let mut hasher = blake3::Hasher::new();
                    let hash = hasher.set_input_offset((index * PIECE) as u64).update(piece).finalize_non_root();
                    lock(tensor).set(index, hash);
                }
            }
        }
    }

    /// The hash of a tensor of `len` bytes, equal to [`blake3::hash`] of them; pieces that are not known yet are read and hashed. A tensor that
    /// cannot be read hashes as if it were empty: whoever writes it fails with the reason.
    fn finish<'a>(
        &self,
        name: &str,
        len: usize,
        read: impl Fn(Range<usize>) -> Option<Cow<'a, [u8]>> + Sync,
    ) -> blake3::Hash {
        let known = self.0.get(name).and_then(|tensor| {
            (0..len.div_ceil(PIECE)).into_par_iter().for_each(|index| {
                if !lock(tensor).knows(index)
                    && let Some(piece) = read(index * PIECE..len.min((index + 1) * PIECE))
                {
                    self.visit(name, len, index * PIECE, &piece);
                }
            });
            lock(tensor).finish()
        });
        known.unwrap_or_else(|| blake3::hash(&[]))
    }

    /// Hashes (name, element type, shape, hash of the data) of these tensors, which are in order of names; `read` gives some bytes of one.
    pub(super) fn of_all<'a>(
        &self,
        weights: &dyn WeightSource,
        tensors: &[(&str, TensorType)],
        read: impl Fn(&str, Range<usize>) -> Option<Cow<'a, [u8]>> + Sync,
    ) -> blake3::Hash {
        let hashes: Vec<blake3::Hash> = tensors
            .par_iter()
            .map(|(name, ty)| {
                let hash = self.finish(name, ty.bytes(), |range| read(name, range));
                weights.done(name);
                hash
            })
            .collect();

        let mut hasher = blake3::Hasher::new();
        hasher.update(b"s2ditc checkpoint 1\n");
        for ((name, ty), hash) in tensors.iter().zip(hashes) {
            // The length of the name makes the encoding unambiguous; types print without line breaks.
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hasher.update(format!("{ty}\n").as_bytes());
            hasher.update(hash.as_bytes());
        }
        hasher.finalize()
    }
}

impl TensorHash {
    fn knows(&self, index: usize) -> bool {
        match self {
            TensorHash::Small(hash) => hash.is_some(),
            TensorHash::Pieces(hashes) => hashes.get(index).is_none_or(Option::is_some),
        }
    }

    fn set(&mut self, index: usize, hash: ChainingValue) {
        if let TensorHash::Pieces(hashes) = self
            && let Some(place) = hashes.get_mut(index)
        {
            *place = Some(hash);
        }
    }

    /// The tensor's hash, once all is known.
    fn finish(&self) -> Option<blake3::Hash> {
        match self {
            TensorHash::Small(hash) => *hash,
            TensorHash::Pieces(hashes) => {
                let hashes: Vec<ChainingValue> = hashes.iter().copied().collect::<Option<_>>()?;
                let (left, right) = hashes.split_at(left(hashes.len()));
                Some(merge_subtrees_root(&merged(left)?, &merged(right)?, Mode::Hash))
            }
        }
    }
}

/// The chaining value over those of consecutive pieces; `None` over none.
fn merged(hashes: &[ChainingValue]) -> Option<ChainingValue> {
    match hashes {
        [] => None,
        [only] => Some(*only),
        _ => {
            let (left, right) = hashes.split_at(left(hashes.len()));
            Some(merge_subtrees_non_root(&merged(left)?, &merged(right)?, Mode::Hash))
        }
    }
}

/// How many of so many pieces, at least two, are below the left child: the largest power of two that leaves one.
fn left(pieces: usize) -> usize {
    pieces.next_power_of_two() / 2
}

fn lock(hash: &Mutex<TensorHash>) -> MutexGuard<'_, TensorHash> {
    hash.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of every size at which the tree has another form, whatever was visited before and in which order.
    #[test]
    fn hashes_of_pieces_are_those_of_the_whole() {
        let bytes: Vec<u8> = (0..9 * PIECE).map(|i| (i * i / 251 + i / 7) as u8).collect();
        let sizes = [0, 1, 1023, 1024, 1025, PIECE - 1, PIECE];
        let larger = (1..9).flat_map(|n| [n * PIECE + 1, n * PIECE + 1024, (n + 1) * PIECE - 1, (n + 1) * PIECE]);
        for len in sizes.into_iter().chain(larger) {
            let bytes = &bytes[..len];
            // In which order, and how much at a time; a part that begins or ends within a piece counts for nothing.
            let visits: [&[(usize, usize)]; 5] = [
                &[],
                &[(0, len)],
                &[(PIECE, len), (0, PIECE)],
                &[(2 * PIECE, 3 * PIECE), (0, 1), (7, PIECE + 9), (0, 2 * PIECE)],
                &[(4 * PIECE - 1, len), (0, len), (PIECE, 2 * PIECE)],
            ];
            for visits in visits {
                let hashes = Hashes::of_sizes([("w", len)].into_iter());
                for &(begin, end) in visits {
                    let (begin, end) = (begin.min(len), end.min(len));
                    hashes.visit("w", len, begin, &bytes[begin..end]);
                }
                let read = |range: Range<usize>| Some(Cow::Borrowed(&bytes[range]));
                assert_eq!(hashes.finish("w", len, read), blake3::hash(bytes), "{len} bytes, visited {visits:?}");
            }
        }
    }

    #[test]
    fn what_was_visited_is_not_read_again() {
        let (read, other) = (vec![1; 3 * PIECE], vec![2; 3 * PIECE]);
        let hashes = Hashes::of_sizes([("w", read.len())].into_iter());
        hashes.visit("w", read.len(), 0, &read);
        assert_eq!(hashes.finish("w", other.len(), |range| Some(Cow::Borrowed(&other[range]))), blake3::hash(&read));
    }
}
