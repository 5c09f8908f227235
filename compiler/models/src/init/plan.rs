//! Which tensor goes into which file, and where.

use serde_json::{Map, Value, json};

use crate::s2dit::config::S2ditConfig;
use crate::s2dit::schema::{TensorSpec, expected_tensors};
use s2dit_files::{FloatType, WEIGHTS_FILE};

/// The files of a checkpoint.
pub(super) struct Plan {
    pub shards: Vec<Shard>,
}

/// A weight file.
pub(super) struct Shard {
    pub file: String,
    /// The first bytes of the file: header length and header.
    pub header: Vec<u8>,
    /// The tensors, with the place of each in the file.
    pub tensors: Vec<(TensorSpec, u64)>,
    pub data_bytes: u64,
}

impl Shard {
    pub fn file_size(&self) -> u64 {
        self.header.len() as u64 + self.data_bytes
    }
}

impl Plan {
    /// Tensors by name, files filled one after the other.
    pub fn new(config: &S2ditConfig, dtype: FloatType, max_shard_size: u64) -> Self {
        let mut specs = expected_tensors(config);
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
        let count = groups.len();
        let shards = groups.into_iter().enumerate().map(|(number, group)| {
            let file = match (count, WEIGHTS_FILE.strip_suffix(".safetensors")) {
                (2.., Some(stem)) => format!("{stem}-{:05}-of-{count:05}.safetensors", number + 1),
                _ => WEIGHTS_FILE.to_owned(),
            };
            shard(file, group, dtype)
        });
        Plan { shards: shards.collect() }
    }

    /// Bytes of all tensors.
    pub fn data_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.data_bytes).sum()
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

fn shard(file: String, specs: Vec<TensorSpec>, dtype: FloatType) -> Shard {
    let stored = match dtype {
        FloatType::Bf16 => "BF16",
        FloatType::Fp16 => "F16",
        FloatType::Fp32 => "F32",
    };
    let mut entries = Map::new();
    entries.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut end = 0;
    let mut begins = Vec::with_capacity(specs.len());
    for spec in &specs {
        let begin = end;
        end += (spec.elements() * dtype.dtype().size()) as u64;
        begins.push(begin);
        let entry = json!({ "dtype": stored, "shape": spec.shape, "data_offsets": [begin, end] });
        entries.insert(spec.name.clone(), entry);
    }
    let mut json = Value::Object(entries).to_string().into_bytes();
    // Spaces, so that the data begins at a multiple of 8.
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);

    let start = header.len() as u64;
    let tensors = specs.into_iter().zip(begins).map(|(spec, begin)| (spec, start + begin));
    Shard { file, tensors: tensors.collect(), header, data_bytes: end }
}
