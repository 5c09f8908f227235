//! A saved stream: states, prompt and position in one safetensors file, with the identity of the kernel they belong to.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use half::f16;
use s2dit_backends::input::{check_json, read_file};
use s2dit_backends::output::{Destination, Staged, made};
use s2dit_files::writer::{SafetensorsLayout, Writer};
use s2dit_ir::DType;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;

use super::Prompt;
use super::contract::Contract;
use crate::{Error, HostTensor, first_difference};

/// The value of the metadata field `format`.
const FORMAT: &str = "s2dit-stream-state";
const VERSION: &str = "2";
/// The most chunks that a stream may have: a position above it is a damaged file, and sums with it could overflow.
pub const MOST_CHUNKS: u64 = 1 << 40;
/// The prompt's name in the file, and its mask's; a state's is `state.NAME`.
const TEXT: &str = "text";
/// See [`TEXT`].
const TEXT_MASK: &str = "text_mask";
const PREFIX: &str = "state.";

/// A stream between two chunks.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Chunks committed so far.
    pub chunks: u64,
    /// Seed of the noise; `None` if it was recorded.
    pub seed: Option<u64>,
    /// The states, by name.
    pub states: BTreeMap<String, HostTensor>,
    /// The prompt, if one was set.
    pub prompt: Option<Prompt>,
}

/// Fields of the identity: a state file fits a kernel that has the same.
fn identity(contract: &Contract) -> Result<BTreeMap<&'static str, String>> {
    Ok(BTreeMap::from([
        ("checkpoint", contract.checkpoint.clone()),
        ("chunk", format!("{:?}", contract.chunk.shape())),
        ("precision", json_name(&contract.precision)?),
        ("states_policy", json_name(&contract.states_policy)?),
        ("window_frames", contract.window_frames.to_string()),
    ]))
}

fn json_name(value: &impl serde::Serialize) -> Result<String> {
    Ok(serde_json::to_value(value)?.as_str().unwrap_or_default().to_string())
}

/// Writes a snapshot, whole or not at all. f16 states are stored as f16: their values are f16 numbers.
///
/// # Errors
/// A place that cannot be written.
pub fn save(to: Destination<'_>, contract: &Contract, snapshot: &Snapshot) -> Result<(), Error> {
    write(to, contract, snapshot).map_err(Error::input)
}

fn write(to: Destination<'_>, contract: &Contract, snapshot: &Snapshot) -> Result<()> {
    let path = to.path;
    let mut metadata: BTreeMap<String, String> =
        identity(contract)?.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
    metadata.insert("format".into(), FORMAT.into());
    metadata.insert(made::MADE_BY.into(), made::by());
    metadata.insert("version".into(), VERSION.into());
    metadata.insert("chunks".into(), snapshot.chunks.to_string());
    metadata.insert("config".into(), contract.config.to_string());
    if let Some(seed) = snapshot.seed {
        metadata.insert("seed".into(), seed.to_string());
    }
    let mut tensors: Vec<(String, DType, &[usize], Vec<u8>)> = Vec::new();
    for (name, tensor) in &snapshot.states {
        let half = contract.states.iter().any(|s| s.name == *name && s.dtype == DType::F16);
        let (dtype, bytes) = match half {
            true => (DType::F16, tensor.data.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect()),
            false => (DType::F32, le_bytes(&tensor.data)),
        };
        tensors.push((format!("{PREFIX}{name}"), dtype, &tensor.shape, bytes));
    }
    if let Some(Prompt { text, mask }) = &snapshot.prompt {
        let of_prompt = [(TEXT, Some(text)), (TEXT_MASK, mask.as_ref())];
        for (name, tensor) in of_prompt.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))) {
            tensors.push((name.into(), DType::F32, &tensor.shape, le_bytes(&tensor.data)));
        }
    }
    let staged = Staged::file(to, &made::safetensors)?;
    let written = || {
        let shape = |shape: &[usize]| shape.iter().map(|side| *side as u64).collect();
        let layout = SafetensorsLayout::new(
            tensors.iter().map(|(name, dtype, s, _)| (name.as_str(), *dtype, shape(s))),
            &metadata,
        )?;
        let mut out = Writer::new(BufWriter::new(File::create(staged.path())?), &layout)?;
        tensors.iter().try_for_each(|(.., bytes)| out.write_all(bytes))?;
        out.finish()
    };
    written().map(drop).with_context(|| format!("cannot write `{}`", path.display()))?;
    staged.commit()?;
    Ok(())
}

/// Reads a snapshot for the kernel of `contract`.
///
/// # Errors
/// Not a state file; one of another model, configuration, chunk size or policy; a number that is not finite; states that are not what the contract declares.
pub fn restore(path: &Path, contract: &Contract) -> Result<Snapshot, Error> {
    read(path, contract).map_err(Error::state)
}

fn read(path: &Path, contract: &Contract) -> Result<Snapshot> {
    let shown = path.display();
    let bytes =
        read_file(path, most_bytes(contract)).with_context(|| format!("cannot read `{shown}` as a stream state"))?;
    let not_safetensors = || format!("`{shown}`: expected a stream state, found something that is not safetensors");
    let (_, header) = SafeTensors::read_metadata(&bytes).with_context(not_safetensors)?;
    let file = SafeTensors::deserialize(&bytes).with_context(not_safetensors)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let field = |name: &str| metadata.get(name).map_or("nothing", String::as_str);
    if field("format") != FORMAT || field("version") != VERSION {
        bail!(
            "`{shown}`: expected a stream state (`{FORMAT}` version {VERSION}, as `s2ditc stream --state-out` writes), found \
             format {} version {}",
            field("format"),
            field("version")
        );
    }
    for (name, expected) in identity(contract)? {
        let found = field(name);
        if found != expected {
            let what = if name == "checkpoint" { "a state of another model: " } else { "" };
            bail!("`{shown}`: {what}{name} is {found}, but the kernel's is {expected}");
        }
    }
    // The checkpoint's hash is of its tensors: what they mean is in the configuration.
    let config: Value = check_json(field("config"))
        .map_err(anyhow::Error::from)
        .and_then(|()| Ok(serde_json::from_str(field("config"))?))
        .with_context(|| format!("`{shown}`: field `config`: expected the checkpoint's configuration as JSON"))?;
    if let Some(difference) = first_difference(&config, &contract.config) {
        bail!("`{shown}`: a state of another model: config.json, {difference}, as the kernel's");
    }
    let number = |name: &str, most: u64| {
        let text = field(name);
        let number = text.parse().ok().filter(|n| *n <= most);
        number.with_context(|| format!("`{shown}`: field `{name}`: found `{text}`, expected a number up to {most}"))
    };
    let chunks = number("chunks", MOST_CHUNKS)?;
    let seed = metadata.contains_key("seed").then(|| number("seed", u64::MAX)).transpose()?;
    let mut states = BTreeMap::new();
    for state in &contract.states {
        let name = format!("{PREFIX}{}", state.name);
        let Ok(view) = file.tensor(&name) else { bail!("`{shown}`: no tensor `{name}`") };
        if view.shape() != state.shape {
            bail!("`{shown}`: tensor `{name}`: found shape {:?}, expected {:?}", view.shape(), state.shape);
        }
        states.insert(state.name.clone(), tensor(&view).with_context(|| format!("`{shown}`: tensor `{name}`"))?);
    }
    for name in file.names() {
        if ![TEXT, TEXT_MASK].contains(&name) && !name.strip_prefix(PREFIX).is_some_and(|n| states.contains_key(n)) {
            bail!("`{shown}`: tensor `{name}`: the kernel has no such state");
        }
    }
    let stored = |name: &str| match file.tensor(name) {
        Ok(view) => tensor(&view).with_context(|| format!("`{shown}`: tensor `{name}`")).map(Some),
        Err(_) => Ok(None),
    };
    let mask = stored(TEXT_MASK)?;
    let prompt = stored(TEXT)?.map(|text| Prompt { text, mask });
    Ok(Snapshot { chunks, seed, states, prompt })
}

/// No state of the kernel is a larger file: its tensors in fp32, and the largest header that safetensors allows.
fn most_bytes(contract: &Contract) -> u64 {
    const HEADER: u64 = 100_000_000;
    let bytes = |shape: &[usize]| shape.iter().fold(4u64, |bytes, &extent| bytes.saturating_mul(extent as u64));
    let states = contract.states.iter().map(|state| bytes(&state.shape));
    let prompt = bytes(&contract.text.shape()).saturating_add(contract.mask_shape().map_or(0, |shape| bytes(&shape)));
    states.fold(HEADER.saturating_add(prompt), u64::saturating_add)
}

fn tensor(view: &TensorView<'_>) -> Result<HostTensor> {
    let data: Vec<f32> = match view.dtype() {
        Dtype::F32 => view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => view.data().as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        other => bail!("found {other:?}, expected F16 or F32"),
    };
    if let Some(i) = data.iter().position(|x| !x.is_finite()) {
        bail!("element {i}: found {}, expected finite numbers", data[i]);
    }
    HostTensor::new(view.shape(), data).context("a tensor that does not fill its shape")
}

fn le_bytes(data: &[f32]) -> Vec<u8> {
    data.iter().flat_map(|x| x.to_le_bytes()).collect()
}
