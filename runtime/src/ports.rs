//! Whether what a description says that an artifact takes and returns is what the artifact takes and returns.

use std::collections::HashSet;
use std::path::{Component, Path};

use anyhow::{Result, bail};
use s2dit_backends::{coreai, coreml, onnx};
use s2dit_ir::DType;
use serde::{Deserialize, Serialize};

use crate::ort_engine::Port as Found;

/// An input or output of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Name of the input or output.
    pub name: String,
    /// Element type, such as `f16`.
    pub dtype: DType,
    /// Shape of the tensor.
    pub shape: Vec<usize>,
}

/// A part of a function: an artifact, what it takes, what it returns. Tensors are passed on by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The artifact, in the same folder.
    pub file: String,
    /// Inputs of the whole, and what earlier parts return.
    pub inputs: Vec<Port>,
    /// Outputs of the whole, and what later parts take.
    pub outputs: Vec<Port>,
}

impl From<&Port> for Found {
    fn from(port: &Port) -> Found {
        let shape = port.shape.iter().map(|&extent| extent as i64).collect();
        Found { name: port.name.clone(), dtype: port.dtype.to_string(), shape }
    }
}

impl From<onnx::read::Value> for Found {
    fn from(value: onnx::read::Value) -> Found {
        Found { name: value.name, dtype: value.dtype, shape: value.shape }
    }
}

impl From<coreml::read::Feature> for Found {
    fn from(feature: coreml::read::Feature) -> Found {
        Found { name: feature.name, dtype: feature.dtype, shape: feature.shape }
    }
}

impl From<coreai::read::Feature> for Found {
    fn from(feature: coreai::read::Feature) -> Found {
        Found { name: feature.name, dtype: feature.dtype, shape: feature.shape }
    }
}

/// Whether a description names a file of its own folder.
pub(crate) fn is_name(file: &str) -> bool {
    let mut parts = Path::new(file).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == file)
        && !file.contains('\\')
}

/// The ports that a description declares of an artifact.
pub(crate) struct Declared<'a> {
    /// The description's file, for errors.
    pub by: &'a str,
    /// `input` or `output`.
    pub what: &'a str,
    /// The ports.
    pub ports: &'a [Port],
}

impl Declared<'_> {
    /// Checks that the artifact has these ports and no others, of these element types and shapes. An artifact of another tool
    /// need not say its types and shapes; `may_lack` names ports that it need not have.
    ///
    /// # Errors
    /// The first port that differs; `place` is the artifact.
    pub(crate) fn check(&self, place: &str, found: &[Found], may_lack: impl Fn(&str) -> bool) -> Result<()> {
        let Declared { by, what, ports } = self;
        let mut seen = HashSet::new();
        for port in *ports {
            let name = &port.name;
            if !seen.insert(name) {
                bail!("`{place}`: {what} `{name}`: found twice in {by}, expected once");
            }
            let Some(other) = found.iter().find(|f| f.name == *name) else {
                if may_lack(name) {
                    continue;
                }
                bail!("`{place}`: no {what} `{name}`, which {by} declares");
            };
            let dtype = port.dtype.to_string();
            if other.dtype != dtype && other.dtype != "?" {
                bail!("`{place}`: {what} `{name}`: found {}, expected {dtype}, as {by} says", other.dtype);
            }
            let extents = other.shape.iter().zip(&port.shape);
            let same = other.shape.len() == port.shape.len()
                && extents.into_iter().all(|(&f, &w)| f < 0 || usize::try_from(f) == Ok(w));
            if !same && !other.shape.is_empty() {
                bail!(
                    "`{place}`: {what} `{name}`: found shape {:?}, expected {:?}, as {by} says",
                    other.shape,
                    port.shape
                );
            }
        }
        match found.iter().find(|f| !seen.contains(&f.name)) {
            Some(more) => bail!("`{place}`: {what} `{}`: {by} does not declare it", more.name),
            None => Ok(()),
        }
    }
}

/// Checks that parts run one after the other and make the whole: each takes what there is by then, and the inputs and outputs of the
/// whole are those of its parts. `place` and `field` say where the parts are described.
///
/// # Errors
/// What does not fit.
pub(crate) fn check_parts(place: &str, field: &str, inputs: &[Port], outputs: &[Port], parts: &[Part]) -> Result<()> {
    let mut known: HashSet<&str> = inputs.iter().map(|p| p.name.as_str()).collect();
    let mut files = HashSet::new();
    for part in parts {
        if !is_name(&part.file) {
            bail!("`{place}`: {field}parts: file: found {:?}, expected a name in this folder", part.file);
        }
        if !files.insert(&part.file) {
            bail!("`{place}`: {field}parts: found `{}` twice, expected it once", part.file);
        }
        if let Some(port) = part.inputs.iter().find(|p| !known.contains(p.name.as_str())) {
            bail!("`{place}`: `{}` takes `{}`, which nothing before it makes", part.file, port.name);
        }
        known.extend(part.outputs.iter().map(|p| p.name.as_str()));
    }
    let taken: Vec<&Port> = parts.iter().flat_map(|part| &part.inputs).collect();
    let made: Vec<&Port> = parts.iter().flat_map(|part| &part.outputs).collect();
    same(place, &format!("{field}inputs"), inputs, &taken)?;
    same(place, &format!("{field}outputs"), outputs, &made)
}

/// Checks that the whole's ports are those of the parts, each once.
fn same(place: &str, field: &str, whole: &[Port], parts: &[&Port]) -> Result<()> {
    let mut seen = HashSet::new();
    for port in whole {
        let name = &port.name;
        if !seen.insert(name) {
            bail!("`{place}`: {field}: found `{name}` twice, expected it once");
        }
        let Some(part) = parts.iter().find(|p| p.name == *name) else {
            bail!("`{place}`: {field}: found `{name}`, which is of no part");
        };
        if **part != *port {
            let shown = |p: &Port| format!("{}{:?}", p.dtype, p.shape);
            bail!("`{place}`: {field}: `{name}`: found {}, expected {}, as its part has", shown(port), shown(part));
        }
    }
    Ok(())
}
