//! The plan of a checkpoint's files: which tensor goes into which file, and where.

use std::collections::BTreeMap;
use std::io;

use serde_json::{Map, Value, json};

use crate::model::Model;
use crate::tensor::TensorSpec;
use s2dit_files::FloatType;
use s2dit_files::writer::SafetensorsLayout;

/// The files of a checkpoint.
pub(super) struct Plan {
    pub shards: Vec<Shard>,
}

/// A weight file.
pub(super) struct Shard {
    pub file: String,
    /// The header, and how long the file is.
    pub layout: SafetensorsLayout,
    /// The tensors, with the place of each in the file.
    pub tensors: Vec<(TensorSpec, u64)>,
}

impl Shard {
    pub fn file_size(&self) -> u64 {
        self.layout.file_bytes()
    }
}

impl Plan {
    /// Tensors by name, files filled one after the other.
    ///
    /// # Errors
    /// Tensors that no file can hold.
    pub fn new(model: &dyn Model, dtype: FloatType, max_shard_size: u64) -> io::Result<Self> {
        let mut specs = model.tensors();
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        let bytes = |spec: &TensorSpec| (spec.elements() * dtype.dtype().size()) as u64;

        let mut groups: Vec<Vec<TensorSpec>> = Vec::new();
        let mut filled = 0;
        for spec in specs {
            let size = bytes(&spec);
            match groups.last_mut() {
                Some(group) if filled + size <= max_shard_size => {
                    filled += size;
                    group.push(spec);
                }
                _ => {
                    filled = size;
                    groups.push(vec![spec]);
                }
            }
        }
        let (count, whole) = (groups.len(), model.family().part().weights_file());
        let shards = groups.into_iter().enumerate().map(|(number, group)| {
            let file = match (count, whole.strip_suffix(".safetensors")) {
                (2.., Some(stem)) => format!("{stem}-{:05}-of-{count:05}.safetensors", number + 1),
                _ => whole.to_owned(),
            };
            shard(file, group, dtype)
        });
        Ok(Plan { shards: shards.collect::<io::Result<_>>()? })
    }

    /// Bytes of all tensors.
    pub fn data_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.file_size() - shard.layout.header().len() as u64).sum()
    }

    /// The text of the index of a sharded checkpoint.
    pub fn index(&self) -> String {
        let tensors = self
            .shards
            .iter()
            .flat_map(|shard| shard.tensors.iter().map(|(spec, _)| (spec.name.clone(), json!(shard.file))));
        let index = json!({
            "metadata": { "total_size": self.data_bytes() },
            "weight_map": tensors.collect::<Map<String, Value>>(),
        });
        format!("{index:#}\n")
    }
}

fn shard(file: String, specs: Vec<TensorSpec>, dtype: FloatType) -> io::Result<Shard> {
    let shape = |spec: &TensorSpec| spec.shape.iter().map(|side| *side as u64).collect();
    let tensors = specs.iter().map(|spec| (spec.name.as_str(), dtype.dtype(), shape(spec)));
    let layout = SafetensorsLayout::new(tensors, &BTreeMap::from([("format".to_string(), "pt".to_string())]))?;
    let tensors = specs.into_iter().zip(layout.begins().iter().copied()).collect();
    Ok(Shard { file, tensors, layout })
}
