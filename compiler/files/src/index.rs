//! Sharded weights: the index, and the shards that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use s2dit_backends::input::{LFS_POINTER, is_lfs_pointer, read_file};
use serde_json::Value;

use crate::json::{Entries, compact};
use crate::problems::{Problems, gone, quoted, shown};
use crate::{StateDict, WeightStore, open_door};

const LARGEST_INDEX: u64 = 16 << 20;

/// Opens the shards of an index, each file once.
pub(super) fn open(dir: &Path, path: &Path, state_dict: StateDict<'_>) -> Result<(WeightStore, Problems), Problems> {
    let place = path.display().to_string();
    let map = read(path, &place)?;

    let mut problems = Problems::new();
    let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, shard) in &map {
        shards.entry(shard).or_default().push(tensor);
    }
    let mut weights = WeightStore::default();
    for (shard, named) in shards {
        if !is_file_name(shard) {
            problems.push(
                format!("{place}: {}", shown(named[0])),
                format!("the shard {}", quoted(shard)),
                "a plain file name in the checkpoint folder",
            );
            continue;
        }
        let shard_path = dir.join(shard);
        if !shard_path.exists() {
            problems.push(
                shard_path.display().to_string(),
                gone(&shard_path).unwrap_or_else(|| "no such file".into()),
                format!("a shard with {} tensors, as {place} says", named.len()),
            );
            continue;
        }
        let Some((file, damage)) = problems.absorb(open_door(&shard_path, state_dict)) else { continue };
        problems.extend(damage);
        weights.damaged.extend(file.damaged().into_iter().map(str::to_owned));
        for tensor in named {
            if file.ty(tensor).is_none() && !weights.damaged.contains(tensor) {
                problems.push(
                    format!("{}: {}", shard_path.display(), shown(tensor)),
                    "no such tensor",
                    format!("it here, as {place} says"),
                );
            }
        }
        for tensor in file.names() {
            match map.get(tensor) {
                Some(home) if home == shard => {
                    if let Some(ty) = file.ty(tensor) {
                        weights.hold(tensor, tensor, ty);
                    }
                }
                Some(home) => problems.push(
                    format!("{}: {}", shard_path.display(), shown(tensor)),
                    "the tensor",
                    format!("it in {} alone, as {place} says", quoted(home)),
                ),
                None => {
                    weights.damaged.insert(tensor.to_owned());
                    problems.push(
                        format!("{}: {}", shard_path.display(), shown(tensor)),
                        "a tensor that the index does not name",
                        format!("it in the `weight_map` of {place}"),
                    );
                }
            }
        }
        weights.push(file);
    }
    let absent: Vec<String> = map.into_keys().filter(|tensor| !weights.has(tensor)).collect();
    weights.damaged.extend(absent);
    Ok((weights, problems))
}

/// The names of the shards that an index names, in order, each once.
///
/// # Errors
/// An index that cannot be read.
pub fn shards(path: &Path) -> Result<Vec<String>, Problems> {
    let map = read(path, &path.display().to_string())?;
    let shards: BTreeSet<String> = map.into_values().filter(|shard| is_file_name(shard)).collect();
    Ok(shards.into_iter().collect())
}

/// The `weight_map` of an index: tensor to shard.
fn read(path: &Path, place: &str) -> Result<BTreeMap<String, String>, Problems> {
    const EXPECTED: &str = "a JSON object with a `weight_map` from tensors to shards";
    let bad = |found: String| Problems::one(place, found, EXPECTED);
    let bytes = read_file(path, LARGEST_INDEX).map_err(|error| bad(error.to_string()))?;
    if is_lfs_pointer(&bytes) {
        return Err(bad(LFS_POINTER.to_owned()));
    }

    /// Only the map counts; `metadata.total_size` is wrong in many published indexes.
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: Entries,
    }
    let index: Index = serde_json::from_slice(&bytes).map_err(|error| bad(format!("bad JSON ({error})")))?;

    let mut problems = Problems::new();
    let mut map = BTreeMap::new();
    for (tensor, shard) in index.weight_map.0 {
        let field = format!("{place}: {}", shown(&tensor));
        let Value::String(shard) = shard else {
            problems.push(field, compact(&shard), "the file name of a shard");
            continue;
        };
        if map.contains_key(&tensor) {
            problems.push(field, "the tensor twice", "it once");
            continue;
        }
        map.insert(tensor, shard);
    }
    problems.into_result()?;
    if map.is_empty() {
        return Err(bad("an empty `weight_map`".to_owned()));
    }
    Ok(map)
}

/// An index from elsewhere must not reach files outside its folder.
fn is_file_name(shard: &str) -> bool {
    !matches!(shard, "" | "." | "..") && !shard.contains(['/', '\\', '\0', ':'])
}
