//! Models for ONNX Runtime in this process.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use prost::Message;
use s2dit_ir::ops::Op;
use s2dit_ir::{FileRegion, Function, WeightSource};

use super::lower::{Lowered, lower};
use super::stored::Filler;
use super::write::{SMALL, model, refer};
use crate::Error;

/// The place of an in-memory model's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightMode {
    /// Weights that lie in a file as they are become references into that file. What is computed from them stays in the
    /// graph as nodes, so that nothing large is held here.
    #[default]
    Reference,
    /// Every weight is computed and stored in the model: at most 2 GB, protobuf's limit.
    Materialize,
}

/// Options of an in-memory model.
#[derive(Clone, Debug, Default)]
pub struct MemoryOptions {
    /// Place of the weights.
    pub weights: WeightMode,
    /// Values, by name, that become outputs beside the results.
    pub outputs: Vec<String>,
}

/// A model that a session can be made from.
#[derive(Clone, Debug)]
pub struct InMemory {
    /// The encoded model.
    pub bytes: Vec<u8>,
    /// The folder that references start from: ONNX Runtime takes it as the session option
    /// `session.model_external_initializers_file_folder_path`. `None` if there are no references.
    pub folder: Option<PathBuf>,
}

/// A model for ONNX Runtime in this process, for a graph that was read back from a file or made from a checkpoint.
///
/// ONNX Runtime refuses references that leave their folder, also through symbolic links, so real paths are
/// referred to, from the deepest folder that holds them all. It reads bf16 weights and any alignment.
///
/// # Errors
/// An op that ONNX cannot express, a weight that cannot be read, an unknown name in `options.outputs`.
pub fn model_in_memory(f: &Function, source: &dyn WeightSource, options: &MemoryOptions) -> Result<InMemory, Error> {
    build(f, source, options).map_err(Error::writing)
}

fn build(f: &Function, source: &dyn WeightSource, options: &MemoryOptions) -> Result<InMemory> {
    let fold = options.weights == WeightMode::Materialize;
    let Lowered { mut graph, opset, constants } = lower(f, fold, &options.outputs)?;
    let mut regions = Regions::default();
    let mut referred = Vec::new();
    let mut filler = Filler::default();
    for constant in &constants {
        let (name, v) = (&constant.name, constant.value);
        let mut tensor = constant.tensor(f);
        let bytes = constant.bytes(f);
        let region = match f.op(v) {
            Op::Load(load) if !fold && bytes >= SMALL => source.region(&load.tensor),
            _ => None,
        };
        match region {
            Some(r) if r.len != bytes => {
                bail!("tensor `{name}`: expected {} ({bytes} bytes), found {} bytes", f.ty(v), r.len)
            }
            Some(r) => referred.push((graph.initializer.len(), regions.resolve(r)?)),
            None => {
                let mut buffer = Vec::with_capacity(bytes as usize);
                filler.write(f, constant, source, &mut buffer)?;
                tensor.raw_data = buffer.into();
            }
        }
        graph.initializer.push(tensor);
    }
    let folder = regions.folder();
    for (i, r) in referred {
        let inside = folder.as_deref().and_then(|folder| r.path.strip_prefix(folder).ok()).and_then(Path::to_str);
        let location = inside.with_context(|| format!("`{}`: expected a path in UTF-8", r.path.display()))?;
        refer(&mut graph.initializer[i], location, r.offset, r.len);
    }
    Ok(InMemory { bytes: model(graph, opset, Vec::new()).encode_to_vec(), folder })
}

/// Files that are referred to.
#[derive(Default)]
struct Regions {
    real: HashMap<PathBuf, PathBuf>,
}

impl Regions {
    /// The region with its file's real path.
    fn resolve(&mut self, region: FileRegion) -> Result<FileRegion> {
        let path = match self.real.get(&region.path) {
            Some(real) => real.clone(),
            None => {
                let real = std::fs::canonicalize(&region.path)
                    .with_context(|| format!("cannot read `{}`", region.path.display()))?;
                self.real.insert(region.path, real.clone());
                real
            }
        };
        Ok(FileRegion { path, ..region })
    }

    /// The deepest folder that holds every file.
    fn folder(&self) -> Option<PathBuf> {
        let mut folders = self.real.values().filter_map(|p| p.parent());
        let first = folders.next()?.to_path_buf();
        Some(folders.fold(first, |common, folder| {
            common.ancestors().find(|a| folder.starts_with(a)).unwrap_or(Path::new("/")).to_path_buf()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_references_holds_every_file() {
        let of = |paths: &[&str]| {
            let real = paths.iter().map(|p| (PathBuf::from(p), PathBuf::from(p))).collect();
            Regions { real }.folder()
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["/a/b/x", "/a/b/y"]), Some("/a/b".into()));
        assert_eq!(of(&["/a/b/x", "/a/bc/y", "/a/b/d/z"]), Some("/a".into()));
        assert_eq!(of(&["/a/x", "/b/y"]), Some("/".into()));
    }
}
