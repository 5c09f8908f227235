//! Any ONNX file, for `inspect` and for exposing intermediate values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use prost::Message;

use super::proto::{DimensionValue, GraphProto, ModelProto, TensorProto, ValueInfoProto, data_type_name};

/// Protobuf's own limit.
const LARGEST: u64 = 2 << 30;

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Name.
    pub name: String,
    /// Element type, as the IR names it.
    pub dtype: String,
    /// Shape; −1 where it is not static.
    pub shape: Vec<i64>,
}

/// A decoded ONNX file. External data is never read.
pub struct Model {
    path: PathBuf,
    proto: ModelProto,
}

impl Model {
    /// Opens a file.
    ///
    /// # Errors
    /// A file that cannot be read, is larger than protobuf allows, or is not ONNX.
    pub fn open(path: &Path) -> Result<Model> {
        let shown = path.display();
        let size = std::fs::metadata(path).with_context(|| format!("cannot read `{shown}`"))?.len();
        if size > LARGEST {
            bail!("`{shown}`: {size} bytes, but an ONNX file has at most {LARGEST}");
        }
        let bytes = std::fs::read(path).with_context(|| format!("cannot read `{shown}`"))?;
        let proto =
            ModelProto::decode(bytes.as_slice()).map_err(|e| anyhow::anyhow!("`{shown}` is not an ONNX model: {e}"))?;
        if proto.graph.is_none() || proto.ir_version == 0 || proto.opset_import.is_empty() {
            bail!("`{shown}` is not an ONNX model: expected an IR version, an opset and a graph");
        }
        Ok(Model { path: path.into(), proto })
    }

    fn graph(&self) -> Option<&GraphProto> {
        self.proto.graph.as_ref()
    }

    /// `ONNX IR 10, opset 21, by s2ditc 0.1.0`
    pub fn format(&self) -> String {
        let p = &self.proto;
        let opsets: Vec<String> = p
            .opset_import
            .iter()
            .map(|o| if o.domain.is_empty() { o.version.to_string() } else { format!("{} {}", o.domain, o.version) })
            .collect();
        let by = format!("{} {}", p.producer_name, p.producer_version);
        format!("ONNX IR {}, opset {}, by {}", p.ir_version, opsets.join(" + "), by.trim())
    }

    /// Graph inputs that are not initializers.
    pub fn inputs(&self) -> Vec<Value> {
        let Some(g) = self.graph() else { return Vec::new() };
        let stored = |name: &str| g.initializer.iter().any(|i| i.name == name);
        g.input.iter().filter(|i| !stored(&i.name)).map(value).collect()
    }

    /// Graph outputs.
    pub fn outputs(&self) -> Vec<Value> {
        self.graph().into_iter().flat_map(|g| &g.output).map(value).collect()
    }

    /// Node counts by type, most frequent first.
    pub fn ops(&self) -> Vec<(String, usize)> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for n in self.graph().into_iter().flat_map(|g| &g.node) {
            let name = if n.domain.is_empty() { n.op_type.clone() } else { format!("{}.{}", n.domain, n.op_type) };
            *counts.entry(name).or_default() += 1;
        }
        let mut list: Vec<_> = counts.into_iter().collect();
        list.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        list
    }

    /// Bytes of initializers by dtype.
    pub fn weights_by_dtype(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for t in self.initializers() {
            let (name, bits) = data_type_name(t.data_type);
            let elements = t.dims.iter().map(|d| u64::try_from(*d).unwrap_or(0)).fold(1u64, u64::saturating_mul);
            *sums.entry(name.to_string()).or_default() += elements.saturating_mul(bits).div_ceil(8);
        }
        sums
    }

    /// Initializers.
    pub fn initializers(&self) -> &[TensorProto] {
        self.graph().map_or(&[], |g| &g.initializer)
    }

    /// Files of external data, relative to the model, with the bytes that the model needs of each.
    pub fn external_files(&self) -> BTreeMap<String, u64> {
        let mut files = BTreeMap::new();
        for t in self.initializers().iter().filter(|t| t.data_location == 1) {
            let get = |key: &str| t.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
            let end =
                ["offset", "length"].iter().filter_map(|k| get(k)?.parse::<u64>().ok()).fold(0, u64::saturating_add);
            let file: &mut u64 = files.entry(get("location").unwrap_or_default().to_string()).or_default();
            *file = end.max(*file);
        }
        files
    }

    /// Checks that every file of external data is there and long enough.
    ///
    /// # Errors
    /// The first file that is not.
    pub fn check_external_files(&self) -> Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        for (file, needed) in self.external_files() {
            let path = folder.join(&file);
            let found = std::fs::metadata(&path).map(|m| m.len());
            match found {
                Ok(n) if n >= needed => {}
                Ok(n) => bail!("external data `{}`: expected at least {needed} bytes, found {n}", path.display()),
                Err(e) => bail!("external data `{}` of `{}`: {e}", path.display(), self.path.display()),
            }
        }
        Ok(())
    }

    /// Metadata properties.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        self.proto.metadata_props.iter().map(|e| (e.key.clone(), e.value.clone())).collect()
    }

    /// The model's bytes with more outputs: values by name.
    ///
    /// # Errors
    /// A name that no node produces.
    pub fn with_outputs(&self, names: &[String]) -> Result<Vec<u8>> {
        let mut proto = self.proto.clone();
        if let Some(g) = &mut proto.graph {
            for name in names {
                if g.output.iter().any(|o| o.name == *name) {
                    continue;
                }
                if !g.node.iter().any(|n| n.output.contains(name)) {
                    bail!("`{}`: no value is named `{name}`", self.path.display());
                }
                let known = g.value_info.iter().find(|i| i.name == *name).cloned();
                g.output
                    .push(known.unwrap_or_else(|| ValueInfoProto { name: name.clone(), ..ValueInfoProto::default() }));
            }
        }
        Ok(proto.encode_to_vec())
    }

    /// Names of all values that nodes produce.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.graph().into_iter().flat_map(|g| &g.node).flat_map(|n| &n.output).map(String::as_str)
    }
}

fn value(info: &ValueInfoProto) -> Value {
    let tensor = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let dims = tensor.and_then(|t| t.shape.as_ref()).map_or(&[][..], |s| &s.dim);
    let dim = |d: &super::proto::Dimension| match &d.value {
        Some(DimensionValue::Value(n)) => *n,
        _ => -1,
    };
    Value {
        name: info.name.clone(),
        dtype: tensor.map_or("?", |t| data_type_name(t.elem_type).0).into(),
        shape: dims.iter().map(dim).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [("empty", &b""[..]), ("text", b"hello, world"), ("zeros", &[0; 64])] {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let error = Model::open(&path).err().map(|e| format!("{e:#}")).unwrap_or_default();
            assert!(error.contains("is not an ONNX model") && error.contains(name), "{name}: {error}");
        }
    }
}
