//! What lies on disk: a package, the packages of a partitioned step, a kernel folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use s2dit_backends::coreml::{self, Package};
use s2dit_ir::ops::{Compress, Load};
use s2dit_ir::{Function, Interface, Module, Op};
use s2dit_models::config;
use s2dit_models::model::Model;
use s2dit_models::size::LatentSize;
use s2dit_runtime::decode::contract::Contract as DecoderContract;
use s2dit_runtime::partition::Partition;
use s2dit_runtime::pipeline::Part;
use s2dit_runtime::stream::contract::{self, StateWrite, StatesPolicy, Target};
use s2dit_runtime::{Artifact, DecoderFolder, KernelFolder, interface};

use super::{Callable, Subject};

/// What lies at a path: a package, the packages of a partitioned step, the folder of a kernel or of a decoder.
///
/// # Errors
/// None of them; see [`package`].
pub fn open(path: &Path) -> Result<Subject> {
    let opened: fn(&Path) -> Result<Subject> = match () {
        () if path.join(s2dit_runtime::partition::FILE).is_file() => partition,
        () if DecoderContract::is_in(path) => decoder,
        () if path.join(contract::FILE).is_file() => kernel,
        () => package,
    };
    opened(path)
}

/// A package of a clip's step, ours or another tool's. Of several functions, each is called once.
///
/// # Errors
/// No package; a damaged one; ops that cannot be read back.
pub fn package(path: &Path) -> Result<Subject> {
    let opened = Package::open(path)?;
    let metadata = opened.metadata();
    let names = opened.functions();
    let calls = if names.len() == 1 { steps(&metadata) } else { 1 };
    let mut functions = Vec::new();
    let mut said = None;
    for name in &names {
        let module = raised(&opened, name)?;
        said.get_or_insert(module.interface.clone());
        functions.push(Callable { name: name.clone(), parts: module.functions, calls });
    }
    clip("package", path, &metadata, said.unwrap_or_default(), functions)
}

/// The packages of a partitioned step.
///
/// # Errors
/// See [`package`].
pub fn partition(path: &Path) -> Result<Subject> {
    let opened = Partition::open(path)?;
    let metadata = &opened.description().metadata;
    let said = interface::of(metadata)?.unwrap_or_default();
    let part = |part: &Artifact| match part {
        Artifact::MlPackage(package) => main_of(package),
        _ => bail!(
            "`{}` is a partition for the target {}: expected Core ML packages (--target coreml), whose times on a phone are estimated",
            path.display(),
            opened.target()
        ),
    };
    let parts = opened.parts().iter().map(part).collect::<Result<_>>()?;
    let step = Callable { name: "main".into(), parts, calls: steps(metadata) };
    clip("partition", path, metadata, said, vec![step])
}

fn clip(
    what: &'static str,
    path: &Path,
    metadata: &BTreeMap<String, String>,
    interface: Interface,
    functions: Vec<Callable>,
) -> Result<Subject> {
    let model = model_of(metadata);
    let latent = metadata.get("s2ditc.latent").and_then(|text| text.parse::<LatentSize>().ok());
    let frames = model.as_ref().zip(latent).map(|(m, l)| m.temporal_scale() * l.frames.saturating_sub(1) + 1);
    let mut notes = Vec::new();
    if model.is_none() {
        notes.push("the package does not say its sampler, so a chunk is one step".into());
    }
    Ok(Subject {
        latent: latent.map(|latent| latent.to_string()),
        latent_frames: latent.map(|latent| latent.frames),
        frames,
        notes,
        ..described(what, path, metadata, model.as_deref(), interface, functions)?
    })
}

/// A kernel folder.
///
/// # Errors
/// No kernel; one for ONNX; see [`package`].
pub fn kernel(path: &Path) -> Result<Subject> {
    let folder = KernelFolder::open(path)?;
    let contract = folder.contract();
    if contract.target != Target::CoreMl {
        bail!(
            "`{}` is a kernel for the target {}: expected Core ML packages (--target coreml), whose times on a phone are estimated",
            path.display(),
            contract.target
        );
    }
    let steps = contract.sampler.steps();
    let calls = |name: &str| match (name, contract.state_write) {
        ("prompt", _) => 0,
        ("denoise", StateWrite::Commit) => steps,
        ("denoise", StateWrite::LastStep) => steps.saturating_sub(1),
        _ => 1,
    };
    let mut functions = Vec::new();
    for (name, f) in contract.functions.all() {
        let parts = match f.parts.as_slice() {
            [] => vec![read(&path.join(&f.file), &f.function)?],
            parts => {
                parts.iter().map(|part| main_of(&Package::open(&path.join(&part.file))?)).collect::<Result<_>>()?
            }
        };
        functions.push(Callable { name: name.into(), parts, calls: calls(name) });
    }
    // The step first.
    functions.sort_by_key(|f| f.name != "denoise");
    let first = folder.contract().files().into_iter().next().context("a kernel without files")?;
    let metadata = Package::open(&path.join(first))?.metadata();
    let model = config::parse(&contract.config.to_string(), contract::FILE).ok();
    let bytes_of = |s: &contract::State| (s.shape.iter().product::<usize>() * s.dtype.size()) as u64;
    let states = match contract.states_policy {
        StatesPolicy::Native => contract.states.iter().map(bytes_of).sum(),
        StatesPolicy::Io => 0,
    };
    let chunk = contract.chunk;
    let separate = contract.functions.all().iter().any(|(_, f)| f.file != contract.functions.denoise.file);
    Ok(Subject {
        latent: Some(format!("{}x{}x{}", chunk.frames, chunk.rows, chunk.cols)),
        latent_frames: Some(chunk.frames),
        streams: true,
        state_bytes: states,
        separate,
        frames: model.as_ref().map(|model| model.temporal_scale() * chunk.frames),
        ..described("kernel", path, &metadata, model.as_deref(), contract.interface.clone(), functions)?
    })
}

/// The folder of a decoder that streams. Each call decodes a chunk: the first of a video, which is not counted, or any other.
///
/// # Errors
/// No decoder; one for ONNX; see [`package`].
pub fn decoder(path: &Path) -> Result<Subject> {
    let folder = DecoderFolder::open(path)?;
    let contract = folder.contract();
    if contract.target != Target::CoreMl {
        bail!(
            "`{}` is a decoder for ONNX: expected Core ML packages, whose times on a phone are estimated",
            path.display()
        );
    }
    let mut functions = Vec::new();
    for (name, f) in contract.functions.all() {
        let parts = vec![read(&path.join(&f.file), &f.function)?];
        functions.push(Callable { name: name.into(), parts, calls: usize::from(name == "next") });
    }
    // What is called again and again first.
    functions.sort_by_key(|f| f.name != "next");
    let first = contract.files().into_iter().next().context("a decoder without files")?;
    let metadata = Package::open(&path.join(first))?.metadata();
    let model = config::parse(&contract.config.to_string(), contract::FILE).ok();
    let bytes_of = |s: &contract::State| (s.shape.iter().product::<usize>() * s.dtype.size()) as u64;
    let states = match contract.states_policy {
        StatesPolicy::Native => contract.states.iter().map(bytes_of).sum(),
        StatesPolicy::Io => 0,
    };
    let chunk = contract.chunk;
    Ok(Subject {
        latent: Some(format!("{}x{}x{}", chunk.frames, chunk.rows, chunk.cols)),
        latent_frames: Some(chunk.frames),
        streams: true,
        state_bytes: states,
        separate: contract.files().len() > 1,
        frames: Some(contract.video.next_frames),
        ..described(Part::Decoder.name(), path, &metadata, model.as_deref(), contract.interface.clone(), functions)?
    })
}

fn described(
    what: &'static str,
    path: &Path,
    metadata: &BTreeMap<String, String>,
    model: Option<&dyn Model>,
    interface: Interface,
    functions: Vec<Callable>,
) -> Result<Subject> {
    let outline = model.map(Model::outline);
    let kinds = outline.iter().flat_map(|o| (0..o.blocks()).map(|b| o.kind(b).unwrap_or_default().to_owned()));
    Ok(Subject {
        name: path.display().to_string(),
        what,
        model: model.zip(outline.as_ref()).map(|(m, o)| format!("{}, {}", m.family().name(), o.sandwich())),
        latent: None,
        latent_frames: None,
        weights: metadata.get("s2ditc.quantize").cloned().unwrap_or_else(|| "as stored".into()),
        streams: false,
        kinds: kinds.collect(),
        interface,
        functions,
        state_bytes: 0,
        separate: false,
        frames: None,
        bytes_on_disk: Some(bytes(path)?),
        notes: Vec::new(),
    })
}

fn model_of(metadata: &BTreeMap<String, String>) -> Option<Arc<dyn Model>> {
    config::parse(metadata.get("s2ditc.config")?, "metadata").ok()
}

/// Calls of a clip's step.
fn steps(metadata: &BTreeMap<String, String>) -> usize {
    model_of(metadata).and_then(|model| model.sampler().ok()).map_or(1, |sampler| sampler.sigmas().len())
}

fn read(path: &Path, function: &str) -> Result<Function> {
    let package = Package::open(path)?;
    first(raised(&package, function)?, path)
}

fn main_of(package: &Package) -> Result<Function> {
    let name = package.functions().into_iter().next().context("a package without functions")?;
    first(raised(package, &name)?, package.path())
}

fn first(module: Module, path: &Path) -> Result<Function> {
    module.functions.into_iter().next().with_context(|| format!("`{}`: no function", path.display()))
}

/// A function of a package as IR, with the interface that the package says.
fn raised(package: &Package, function: &str) -> Result<Module> {
    let mut module = coreml::raise(package, Some(function))?;
    module.functions.iter_mut().for_each(|f| as_stored(f, package));
    let f = &module.functions[0];
    module.interface = match interface::of(&package.metadata())? {
        Some(said) => said,
        None => {
            let inputs: Vec<&str> = f.params().iter().filter_map(|&v| f.node(v).name.as_deref()).collect();
            let names: Vec<&str> = f.order().into_iter().filter_map(|v| f.node(v).name.as_deref()).collect();
            interface::conventional(inputs, f.results.iter().map(|(name, _)| name.as_str()), names)
        }
    };
    Ok(module)
}

/// Makes of each weight that a package decodes the compressed weight that it stores.
fn as_stored(f: &mut Function, package: &Package) {
    for v in f.order() {
        let Op::Load(load) = f.op(v) else { continue };
        let Some(stored) = package.stored(&load.tensor) else { continue };
        // One that is stored in a way that the scheme does not describe after all stays as it is.
        let Ok(compressed) = f.add(Compress { scheme: stored.scheme }.into(), &[v], "") else { continue };
        f.node_mut(v).op = Load { tensor: stored.codes }.into();
        f.replace_uses(v, compressed);
    }
}

/// Bytes of the files of a folder. Files that are one file on this disk, such as weights that packages share, count once.
fn bytes(path: &Path) -> Result<u64> {
    let mut seen = std::collections::HashSet::new();
    let mut ahead: Vec<PathBuf> = vec![path.into()];
    let mut sum = 0;
    while let Some(at) = ahead.pop() {
        let unreadable = || format!("cannot read `{}`", at.display());
        let found = at.symlink_metadata().with_context(unreadable)?;
        if found.is_dir() {
            for entry in std::fs::read_dir(&at).with_context(unreadable)? {
                ahead.push(entry.with_context(unreadable)?.path());
            }
        } else if is_new(&found, &mut seen) {
            sum += found.len();
        }
    }
    Ok(sum)
}

#[cfg(unix)]
fn is_new(found: &std::fs::Metadata, seen: &mut std::collections::HashSet<(u64, u64)>) -> bool {
    use std::os::unix::fs::MetadataExt;
    seen.insert((found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn is_new(_: &std::fs::Metadata, _: &mut std::collections::HashSet<(u64, u64)>) -> bool {
    true
}
