//! Any ONNX file, for `inspect` and for exposing intermediate values.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use memmap2::Mmap;
use prost::Message;
use prost::bytes::Bytes;

use super::proto::{
    Dimension, DimensionValue, FunctionProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto,
    ValueInfoProto, data_type_name,
};
use super::{cost, identity};

use crate::Error;
use crate::foreign::Foreign;
use crate::input::{LFS_POINTER, check_regular, is_lfs_pointer, read_file};
use crate::stamp::{Changed, Stamp};
use crate::wire;

/// Protobuf's own limit.
const LARGEST: u64 = 2 << 30;

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Name.
    pub name: String,
    /// Element type, as the IR names it; `?` if it is no tensor.
    pub dtype: String,
    /// Shape; −1 where it is not static.
    pub shape: Vec<i64>,
}

/// A decoded ONNX file. It is mapped, and elements that are stored as raw bytes stay where they lie in it. External data is never read.
#[derive(Debug)]
pub struct Model {
    path: PathBuf,
    file: Bytes,
    stamp: Stamp,
    proto: ModelProto,
    graph: GraphProto,
}

impl Model {
    /// Opens a file.
    ///
    /// # Errors
    /// A file that cannot be read, is larger than protobuf allows, or is not ONNX.
    pub fn open(path: &Path) -> Result<Model, Error> {
        Model::decoded(path).map_err(Error::reading)
    }

    fn decoded(path: &Path) -> Result<Model> {
        let shown = path.display();
        if let Ok(Some(other)) = Foreign::of(path)
            && other != Foreign::Onnx
        {
            bail!("`{shown}` is not an ONNX model but {other}");
        }
        let (bytes, stamp) = map(path).with_context(|| format!("cannot read `{shown}` as an ONNX model"))?;
        if bytes.is_empty() {
            bail!("`{shown}` is not an ONNX model: the file is empty");
        }
        if is_lfs_pointer(&bytes) {
            bail!("`{shown}` is {LFS_POINTER}");
        }
        wire::check(&bytes, &cost::MODEL).map_err(|e| anyhow::anyhow!("`{shown}` is not an ONNX model: {e}"))?;
        // A clone is another hold on the map: raw bytes of tensors become parts of it.
        let mut proto = ModelProto::decode(bytes.clone())
            .map_err(|e| anyhow::anyhow!("`{shown}` is not an ONNX model, or it is cut short: {e}"))?;
        match proto.graph.take() {
            Some(graph) if proto.ir_version > 0 && !proto.opset_import.is_empty() => {
                Ok(Model { path: path.into(), file: bytes, stamp, proto, graph })
            }
            _ => bail!("`{shown}` is not an ONNX model: expected an IR version, an opset and a graph"),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that nobody has written to the file since it was opened.
    ///
    /// # Errors
    /// Somebody has, or the path leads to another file now.
    pub fn check_unchanged(&self) -> Result<(), Changed> {
        self.stamp.check()
    }

    /// The graph.
    pub fn graph(&self) -> &GraphProto {
        &self.graph
    }

    /// Functions that nodes may call.
    pub fn functions(&self) -> &[FunctionProto] {
        &self.proto.functions
    }

    /// Versions of the operator sets by domain; the standard one is `""`.
    pub fn opsets(&self) -> BTreeMap<&str, i64> {
        self.proto.opset_import.iter().map(|o| (standard(&o.domain), o.version)).collect()
    }

    /// Where bytes of a tensor begin in the file, if they lie in it.
    pub fn offset_of(&self, raw: &Bytes) -> Option<u64> {
        let (file, raw) = (self.file.as_ptr_range(), raw.as_ptr_range());
        let inside = !raw.is_empty() && file.start <= raw.start && raw.end <= file.end;
        inside.then(|| (raw.start as usize - file.start as usize) as u64)
    }

    /// `ONNX IR 10, opset 21, by s2ditc 0.1.0`
    pub fn format(&self) -> String {
        let p = &self.proto;
        let opset = |domain: &str, version| match domain {
            "" | "ai.onnx" => format!("{version}"),
            _ => format!("{domain} {version}"),
        };
        let opsets: Vec<String> = p.opset_import.iter().map(|o| opset(&o.domain, o.version)).collect();
        let by = format!("{} {}", p.producer_name, p.producer_version);
        let by = if by.trim().is_empty() { "an unnamed tool" } else { by.trim() };
        format!("ONNX IR {}, opset {}, by {by}", p.ir_version, opsets.join(" + "))
    }

    /// Graph inputs that are not initializers.
    pub fn inputs(&self) -> Vec<Value> {
        let stored: std::collections::HashSet<&str> = self.graph.initializer.iter().map(|t| t.name.as_str()).collect();
        self.graph.input.iter().filter(|i| !stored.contains(i.name.as_str())).map(value).collect()
    }

    /// Graph outputs.
    pub fn outputs(&self) -> Vec<Value> {
        self.graph.output.iter().map(value).collect()
    }

    /// Node counts by type, those of nested graphs included, most frequent first.
    pub fn ops(&self) -> Vec<(String, usize)> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let mut graphs = vec![&self.graph];
        while let Some(g) = graphs.pop() {
            for n in &g.node {
                let name = match n.domain.as_str() {
                    "" | "ai.onnx" => n.op_type.clone(),
                    domain => format!("{domain}.{}", n.op_type),
                };
                *counts.entry(name).or_default() += 1;
                graphs.extend(n.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)));
            }
        }
        let mut list: Vec<_> = counts.into_iter().collect();
        list.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        list
    }

    /// Bytes of initializers by dtype.
    pub fn weights_by_dtype(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for t in self.initializers() {
            *sums.entry(data_type_name(t.data_type).0.to_string()).or_default() += bytes_of(t);
        }
        sums
    }

    /// Initializers.
    pub fn initializers(&self) -> &[TensorProto] {
        &self.graph.initializer
    }

    /// Files of external data, relative to the model, with the bytes that the model needs of each.
    pub fn external_files(&self) -> BTreeMap<String, u64> {
        let mut files = BTreeMap::new();
        for t in self.initializers().iter().filter(|t| t.data_location == 1) {
            let number = |key: &str| external(t, key).and_then(|v| v.parse::<u64>().ok());
            let end = number("offset").unwrap_or(0).saturating_add(number("length").unwrap_or(bytes_of(t)));
            let file: &mut u64 = files.entry(external(t, "location").unwrap_or_default().to_string()).or_default();
            *file = end.max(*file);
        }
        files
    }

    /// Checks that every file of external data is there and long enough; of a model of ours, that it is the very data that was
    /// written with it.
    ///
    /// # Errors
    /// The first file that is not.
    pub fn check_external_files(&self) -> Result<(), Error> {
        self.external_files_are_whole().map_err(Error::reading)
    }

    fn external_files_are_whole(&self) -> Result<()> {
        let metadata = self.metadata();
        let identity = metadata.get(identity::KEY);
        for (file, needed) in self.external_files() {
            let path = self.path.with_file_name(&file);
            let (shown, model) = (path.display(), self.path.display());
            let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
            if file.is_empty() || !Path::new(&file).components().all(inside) {
                bail!("`{model}` keeps weights in `{file}`: expected a file of the same folder or below it");
            }
            match std::fs::metadata(&path) {
                Ok(m) if !m.is_file() => bail!("`{model}` keeps weights in `{shown}`: expected a file"),
                Ok(m) if m.len() < needed => {
                    bail!("`{model}` keeps weights in `{shown}`: expected {needed} bytes, found {}", m.len())
                }
                Ok(_) => {
                    let check = |said: &String| identity::check(said, &mut File::open(&path)?);
                    identity.map_or(Ok(()), check).with_context(|| format!("`{model}` keeps weights in `{shown}`"))?;
                }
                Err(e) => bail!("`{model}` keeps weights in `{shown}`: {e}"),
            }
        }
        Ok(())
    }

    /// The folder that external data is relative to.
    pub fn folder(&self) -> &Path {
        self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// Metadata properties.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let pair = |e: &StringStringEntryProto| (e.key.clone(), e.value.clone());
        self.proto.metadata_props.iter().map(pair).collect()
    }

    /// Nodes of the graph, in the file's order.
    pub fn nodes(&self) -> &[NodeProto] {
        &self.graph.node
    }

    /// Names of all values that nodes produce.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.graph.node.iter().flat_map(|n| &n.output).filter(|n| !n.is_empty()).map(String::as_str)
    }

    /// The file's bytes with more outputs: values by name. External data stays where it is, relative to
    /// [`Model::folder`].
    ///
    /// # Errors
    /// A name that no node produces; a file that can no longer be read.
    pub fn with_outputs(&self, names: &[String]) -> Result<Vec<u8>, Error> {
        self.extended(names).map_err(Error::reading)
    }

    fn extended(&self, names: &[String]) -> Result<Vec<u8>> {
        let mut output: Vec<ValueInfoProto> = Vec::new();
        for name in names {
            if self.graph.output.iter().chain(&output).any(|o| o.name == *name) {
                continue;
            }
            if !self.values().any(|v| v == name) {
                bail!("`{}`: no value is named `{name}`", self.path.display());
            }
            let known = self.graph.value_info.iter().find(|i| i.name == *name).cloned();
            output.push(known.unwrap_or_else(|| ValueInfoProto { name: name.clone(), ..ValueInfoProto::default() }));
        }
        let mut bytes = read(&self.path)?;
        if !output.is_empty() {
            // Protobuf merges a field that comes twice: the rest of the file is untouched, whatever is in it.
            let graph = Some(GraphProto { output, ..GraphProto::default() });
            bytes.extend(ModelProto { graph, ..ModelProto::default() }.encode_to_vec());
        }
        Ok(bytes)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let shown = path.display();
    read_file(path, LARGEST).with_context(|| format!("cannot read `{shown}` as an ONNX model"))
}

/// The name of an operator set's domain: that of the standard has two.
pub fn standard(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// Maps a file that is no larger than protobuf allows.
fn map(path: &Path) -> Result<(Bytes, Stamp)> {
    check_regular(path)?;
    let file = File::open(path)?;
    let meta = file.metadata()?;
    let stamp = Stamp::of(path, &meta);
    match meta.len() {
        0 => Ok((Bytes::new(), stamp)),
        size if size > LARGEST => bail!("{size} bytes, where at most {LARGEST} make sense"),
        _ => {
            // SAFETY: the map is read-only and holds plain bytes. Another process that shortens the file while it is
            // mapped raises SIGBUS, which `output::on_signals` makes an error of.
            let map = unsafe { Mmap::map(&file) }?;
            Ok((Bytes::from_owner(map), stamp))
        }
    }
}

fn external<'a>(t: &'a TensorProto, key: &str) -> Option<&'a str> {
    t.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str())
}

fn bytes_of(t: &TensorProto) -> u64 {
    let elements = t.dims.iter().map(|d| u64::try_from(*d).unwrap_or(0)).fold(1, u64::saturating_mul);
    elements.saturating_mul(data_type_name(t.data_type).1).div_ceil(8)
}

fn value(info: &ValueInfoProto) -> Value {
    let tensor = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let dims = tensor.and_then(|t| t.shape.as_ref()).map_or(&[][..], |s| &s.dim);
    let dim = |d: &Dimension| match &d.value {
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
    use crate::onnx::proto::OperatorSetIdProto;

    fn model() -> ModelProto {
        let node = |input: &str, output: &str, op: &str| NodeProto {
            input: vec![input.into()],
            output: vec![output.into()],
            op_type: op.into(),
            ..NodeProto::default()
        };
        let info = |name: &str| ValueInfoProto { name: name.into(), ..ValueInfoProto::default() };
        let entry = |key: &str, value: &str| StringStringEntryProto { key: key.into(), value: value.into() };
        let weight = TensorProto {
            name: "w".into(),
            dims: vec![4, 8],
            data_type: 10,
            data_location: 1,
            external_data: vec![entry("location", "w.data"), entry("offset", "64"), entry("length", "64")],
            ..TensorProto::default()
        };
        ModelProto {
            ir_version: 8,
            opset_import: vec![OperatorSetIdProto { domain: "ai.onnx".into(), version: 17 }],
            graph: Some(GraphProto {
                input: vec![info("x"), info("w")],
                output: vec![info("y")],
                node: vec![node("x", "h", "Relu"), node("h", "y", "Abs"), node("y", "unused", "Relu")],
                initializer: vec![weight],
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        }
    }

    fn stored(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.onnx");
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    #[test]
    fn other_files_are_refused() {
        let cut = &model().encode_to_vec()[..40];
        for (name, bytes) in [("empty", &b""[..]), ("text", b"hello, world"), ("zeros", &[0; 64]), ("cut", cut)] {
            let (_dir, path) = stored(bytes);
            let error = format!("{:#}", Model::open(&path).unwrap_err());
            assert!(error.contains("is not an ONNX model") && error.contains("x.onnx"), "{name}: {error}");
        }
        for cut in 1..model().encode_to_vec().len() {
            let (_dir, path) = stored(&model().encode_to_vec()[..cut]);
            // A cut between fields may leave a model; it must not leave a panic.
            let _ = Model::open(&path).map(|m| m.weights_by_dtype());
        }
        assert!(Model::open(Path::new("/no/such.onnx")).unwrap_err().to_string().contains("/no/such.onnx"));
    }

    #[test]
    fn a_model_of_another_tool_is_described() {
        let (_dir, path) = stored(&model().encode_to_vec());
        let m = Model::open(&path).unwrap();
        assert_eq!(m.format(), "ONNX IR 8, opset 17, by an unnamed tool");
        assert_eq!(m.inputs().len(), 1);
        assert_eq!(m.inputs()[0].dtype, "?");
        assert_eq!(m.ops(), [("Relu".to_string(), 2), ("Abs".to_string(), 1)]);
        assert_eq!(m.weights_by_dtype(), BTreeMap::from([("f16".to_string(), 64)]));
    }

    #[test]
    fn missing_and_short_external_data_are_named() {
        let (dir, path) = stored(&model().encode_to_vec());
        let m = Model::open(&path).unwrap();
        assert!(m.check_external_files().unwrap_err().to_string().contains("w.data"));
        std::fs::write(dir.path().join("w.data"), [0; 127]).unwrap();
        assert!(m.check_external_files().unwrap_err().to_string().contains("expected 128 bytes, found 127"));
        std::fs::write(dir.path().join("w.data"), [0; 128]).unwrap();
        m.check_external_files().unwrap();
    }

    #[test]
    fn intermediate_values_become_outputs() {
        let (_dir, path) = stored(&model().encode_to_vec());
        let m = Model::open(&path).unwrap();
        let names = ["h".to_string(), "y".to_string(), "h".to_string()];
        let graph = ModelProto::decode(m.with_outputs(&names).unwrap().as_slice()).unwrap().graph.unwrap();
        assert_eq!(graph.output.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), ["y", "h"]);
        assert_eq!(graph.node, model().graph.unwrap().node);
        assert!(m.with_outputs(&["x".to_string()]).unwrap_err().to_string().contains("`x`"));
    }
}
