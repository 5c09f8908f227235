//! The estimate of a compiled pipeline: each of its parts, and what a clip or a chunk takes of all of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use s2dit_runtime::experts::Description;
use s2dit_runtime::pipeline::{Contract, FILE, Mode, Part};
use s2dit_runtime::stream::contract::Target;
use serde::Serialize;

use crate::device::Device;
use crate::estimate::{Estimate, Memory, estimate};
use crate::range::Range;
use crate::subject;

/// An estimate of a pipeline.
#[derive(Clone, Debug, Serialize)]
pub struct PipelineEstimate {
    /// The folder.
    pub pipeline: String,
    /// The class of the pipeline in diffusers.
    pub class: String,
    /// Whether it makes a clip or a stream of chunks.
    pub mode: Mode,
    /// The device.
    pub device: String,
    /// Frames of the clip, or of a chunk.
    pub frames: usize,
    /// Rows of pixels.
    pub rows: usize,
    /// Columns of pixels.
    pub cols: usize,
    /// Steps of the clip, or of a chunk.
    pub steps: usize,
    /// Strength of guidance; 1 or less is none.
    pub guidance: f64,
    /// The parts, in the order in which they are called.
    pub components: Vec<ComponentEstimate>,
    /// From the prompt to the last frame of a clip; of a stream a chunk, once its prompt is encoded.
    pub total_ms: Range,
    /// Whether all parts are there, so that the time is that of the whole.
    pub is_whole: bool,
    /// Frames of video a second, of a whole pipeline.
    pub frames_per_second: Option<Range>,
    /// Memory by what stays loaded.
    pub memory: PipelineMemory,
    /// Bytes of all packages.
    pub package_bytes: u64,
    /// Seconds until all parts have been loaded once, by a phone that must compile them.
    pub first_load_s: Range,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// A part of a pipeline.
#[derive(Clone, Debug, Serialize)]
pub struct ComponentEstimate {
    /// The part: `text_encoder`, `transformer` or `decoder`.
    pub part: &'static str,
    /// The file, package or folder.
    pub file: String,
    /// The engine that it is meant for.
    pub compute: Option<String>,
    /// Calls for a clip, or for a chunk; of the text encoder of a stream for a prompt.
    pub calls: usize,
    /// All of these calls.
    pub ms: Range,
    /// Bytes at the largest moment while it is loaded.
    pub peak_memory_bytes: u64,
    /// Its networks, one unless it is a pair of experts.
    pub networks: Vec<Estimate>,
}

/// Memory of a pipeline in bytes, at the largest moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PipelineMemory {
    /// Only what works is loaded, as `generate` and an app's default have it: a part at a time, and of a stream transformer and decoder together.
    pub working: u64,
    /// The parts that are loaded at that moment.
    pub working_part: &'static str,
    /// Everything stays loaded, for the next prompt.
    pub all: u64,
}

/// Estimates the pipeline whose contract is given and whose parts lie in the folder `dir`.
///
/// # Errors
/// A pipeline for ONNX; one without parts; a part that cannot be read; a scheduler that is not supported.
pub fn pipeline(contract: &Contract, dir: &Path, device: &Device) -> Result<PipelineEstimate> {
    let shown = dir.display();
    if contract.target != Target::CoreMl {
        bail!(
            "`{shown}` is a pipeline for ONNX: expected one of Core ML packages, whose times on a phone are estimated"
        );
    }
    let sampling = &contract.sampling;
    let is_guided = contract.mode == Mode::Clip && sampling.is_guided();
    let prompts = if is_guided { 2 } else { 1 };
    let mut notes = vec!["values are those of the device's Neural Engine, wherever a part is meant to run".to_owned()];
    let mut components = Vec::new();
    for part in Part::ALL {
        let Some(asset) = contract.assets.of(part) else {
            notes.push(format!(
                "the pipeline was compiled without its {}, which is not counted",
                part.name().replace('_', " ")
            ));
            continue;
        };
        let path = dir.join(&asset.path);
        let pair = Description::read(&path)?;
        let paths: Vec<PathBuf> = pair.as_ref().map_or_else(|| vec![path.clone()], |pair| pair.paths(&path));
        // Calls of each network, unless the network says them itself, as a kernel does.
        let calls: Vec<usize> = match (part, contract.mode, &pair) {
            (Part::TextEncoder, ..) => vec![prompts],
            (Part::Transformer, Mode::Clip, pair) => {
                let timesteps = contract.sampler(&format!("`{}`", dir.join(FILE).display()))?;
                let [_, _, frames, rows, cols] = contract.latent.shape();
                let timesteps = timesteps.levels(sampling.steps, frames * rows * cols)?.timesteps;
                let each = prompts.div_ceil(sampling.batch);
                let mut calls = vec![0; paths.len()];
                for timestep in timesteps {
                    let network = pair.as_ref().map_or(0, |pair| pair.at(timestep));
                    *calls.get_mut(network).context("an expert that is not there")? += each;
                }
                calls
            }
            (Part::Decoder, Mode::Clip, _) => vec![1],
            (Part::Transformer | Part::Decoder, Mode::Stream, _) => Vec::new(),
        };
        let mut networks = Vec::new();
        let (mut made, mut ms) = (0, Range::default());
        for (index, path) in paths.iter().enumerate() {
            let mut subject = subject::open(path).with_context(|| format!("`{shown}`"))?;
            if let Some(calls) = calls.get(index) {
                subject.functions.iter_mut().for_each(|function| function.calls = *calls);
            } else if part == Part::Decoder {
                // A chunk of the transformer is some of the decoder's.
                let chunk = subject.latent_frames.unwrap_or(contract.latent.frames).max(1);
                subject
                    .functions
                    .iter_mut()
                    .for_each(|function| function.calls *= contract.latent.frames.div_ceil(chunk));
            }
            let estimated = Estimate { notes: Vec::new(), ..estimate(&subject, device, 0.0) };
            made += estimated.functions.iter().map(|function| function.calls).sum::<usize>();
            ms += estimated.chunk_ms;
            networks.push(estimated);
        }
        components.push(ComponentEstimate {
            part: part.name(),
            file: asset.path.clone(),
            compute: asset.compute.clone(),
            calls: made,
            ms,
            // Of two experts one is loaded at a time.
            peak_memory_bytes: networks.iter().map(|network| network.memory.all_loaded).max().unwrap_or_default(),
            networks,
        });
    }
    if components.is_empty() {
        bail!("`{shown}`: found no part of a pipeline, expected one or more");
    }
    let counted =
        |component: &&ComponentEstimate| contract.mode == Mode::Clip || component.part != Part::TextEncoder.name();
    let total_ms: Range = components.iter().filter(counted).map(|component| component.ms).sum();
    let frames = contract.video.frames.unwrap_or(contract.latent.frames * contract.video.temporal_scale);
    if contract.mode == Mode::Stream {
        notes.push("a chunk is counted without its prompt, which is encoded once".to_owned());
    }
    let is_whole = components.len() == Part::ALL.len();
    let networks = || components.iter().flat_map(|component| &component.networks);
    Ok(PipelineEstimate {
        pipeline: shown.to_string(),
        class: contract.class.clone(),
        mode: contract.mode,
        device: device.name.clone(),
        frames,
        rows: contract.video.rows,
        cols: contract.video.cols,
        steps: sampling.steps,
        guidance: sampling.guidance,
        total_ms,
        is_whole,
        frames_per_second: is_whole.then(|| total_ms.falling(|ms| 1e3 * frames as f64 / ms.max(1e-9))),
        memory: memory(contract.mode, &components),
        package_bytes: networks().map(|network| network.package_bytes).sum(),
        first_load_s: networks().map(|network| network.first_load_s).sum(),
        notes,
        components,
    })
}

/// Memory by what stays loaded.
fn memory(mode: Mode, components: &[ComponentEstimate]) -> PipelineMemory {
    let of = |part: Part| components.iter().find(|component| component.part == part.name());
    let mut moments: Vec<(&'static str, u64)> =
        components.iter().map(|component| (component.part, component.peak_memory_bytes)).collect();
    if let (Mode::Stream, Some(transformer), Some(decoder)) = (mode, of(Part::Transformer), of(Part::Decoder)) {
        let both = together(transformer.networks.iter().chain(&decoder.networks));
        moments.push(("transformer and decoder", both));
    }
    let (working_part, working) = moments.into_iter().max_by_key(|(_, bytes)| *bytes).unwrap_or_default();
    PipelineMemory { working, working_part, all: together(components.iter().flat_map(|component| &component.networks)) }
}

/// Memory of networks that are loaded together, of which one works at a time.
fn together<'a>(networks: impl Iterator<Item = &'a Estimate>) -> u64 {
    let all: Vec<Memory> = networks.map(|network| network.memory).collect();
    let kept: u64 = all.iter().map(|memory| memory.weights + memory.inputs).sum();
    kept + all.iter().map(|memory| memory.activations).max().unwrap_or_default()
}
