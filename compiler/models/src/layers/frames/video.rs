//! A decoder as a module: a whole clip, or the two functions of a stream.

use s2dit_ir::interface::{Input, InputRole, Interface, Milestone, Output, OutputRole};
use s2dit_ir::{DType, Function, Module, StateDecl, TensorType, ValueId, WeightSource};

use super::super::builder::{BuildError, Built};
use super::super::dims::{LARGEST_SIDE, check_values};
use super::Frames;
use crate::model::{Layer, Outline};
use crate::size::{Grid, LatentSize, Size, StepSize};
use s2dit_files::problems::Problems;

/// Name of the latent, of the video, and of the functions of a stream.
const LATENT: &str = "latent";
const VIDEO: &str = "video";
const FIRST: &str = "first";
const NEXT: &str = "next";

/// A decoder that is built.
pub(crate) struct Decoder<'a, F> {
    /// The weights.
    pub weights: &'a dyn WeightSource,
    /// Channels of the latent.
    pub channels: usize,
    /// Module paths of its blocks, in the order of the forward pass.
    pub blocks: Vec<String>,
    /// From the latent's frames `[F, C, h, w]` to pixels `[T, 3, H, W]` in −1 to 1. It names the output of each block by
    /// [`Frames::end_block`](super::super::Layers::end_block).
    pub forward: F,
}

/// A decoder as one function `main`: `latent [1, C, F, h, w]` to `video [1, 3, T, H, W]`.
pub(crate) fn clip<F>(decoder: &Decoder<'_, F>, latent: LatentSize) -> Result<Module, BuildError>
where
    F: Fn(&mut Frames<'_>, ValueId) -> Built,
{
    let (main, _) = function("main", decoder, latent, true, false)?;
    Ok(Module { interface: interface(&decoder.blocks), ..Module::single(main) })
}

/// A decoder as two functions that share states: `first` for the first chunk of a video, `next` for each of the others. Both take `latent [1, C, F, h, w]` of the size
/// of a chunk; of the first chunk they may make fewer frames. States start as zeros.
pub(crate) fn chunks<F>(decoder: &Decoder<'_, F>, chunk: LatentSize) -> Result<Module, BuildError>
where
    F: Fn(&mut Frames<'_>, ValueId) -> Built,
{
    let (first, _) = function(FIRST, decoder, chunk, true, true)?;
    let (next, states) = function(NEXT, decoder, chunk, false, true)?;
    Ok(Module { states, functions: vec![first, next], interface: interface(&decoder.blocks) })
}

fn function<F>(
    name: &str,
    decoder: &Decoder<'_, F>,
    latent: LatentSize,
    is_first: bool,
    streams: bool,
) -> Result<(Function, Vec<StateDecl>), BuildError>
where
    F: Fn(&mut Frames<'_>, ValueId) -> Built,
{
    let mut f = Function::new(name);
    let LatentSize { frames, rows, cols } = latent;
    let channels = decoder.channels;
    let input = f.add_param(LATENT, TensorType::new(DType::F32, [1, channels, frames, rows, cols]));
    let mut m = Frames::new(&mut f, decoder.weights, is_first, streams);
    let x = m.b.transpose(input, &[0, 2, 1, 3, 4])?;
    let x = m.b.reshape(x, &[frames, channels, rows, cols])?;
    let y = (decoder.forward)(&mut m, x)?;
    let pixels = m.b.shape(y).to_vec();
    let y = m.b.reshape(y, &[&[1], &pixels[..]].concat())?;
    let video = m.b.transpose(y, &[0, 2, 1, 3, 4])?;
    let (states, updates) = (m.dims.states, m.dims.updates);
    f.set_name(video, VIDEO);
    f.results.push((VIDEO.into(), video));
    f.updates = updates;
    f.remove_dead();
    Ok((f, states))
}

fn interface(blocks: &[String]) -> Interface {
    let milestone = |(i, scope): (usize, &String)| Milestone { value: format!("block{i}"), scope: scope.clone() };
    Interface {
        inputs: vec![Input { name: LATENT.into(), role: InputRole::Latent }],
        outputs: vec![Output { name: VIDEO.into(), role: OutputRole::Video }],
        milestones: blocks.iter().enumerate().map(milestone).collect(),
    }
}

/// The grid of a decoder's latent; `largest` says two factors of the number of elements of its largest value.
///
/// # Errors
/// A side of zero; values that no machine would hold; more clips than one.
pub(crate) fn grid(
    size: Size,
    channels: usize,
    largest: impl FnOnce(LatentSize) -> [usize; 2],
) -> Result<Grid, Problems> {
    let StepSize { latent, batch } = size.step()?;
    let LatentSize { frames, rows, cols } = latent;
    let mut problems = Problems::new();
    if batch != 1 {
        problems.push("--batch", batch.to_string(), "1: a decoder makes one video at a time");
    }
    for (side, size) in [("frames", frames), ("rows", rows), ("columns", cols)] {
        if !(1..=LARGEST_SIDE).contains(&size) {
            problems.push(format!("latent {side}"), size.to_string(), format!("1 to {LARGEST_SIDE}"));
        }
    }
    problems.into_result()?;
    check_values(latent, &[("the latent (channels × frames × rows × columns)", [channels * frames, rows * cols])])?;
    check_values(
        latent,
        &[("the decoder's largest value (a stream of few frames a chunk is smaller)", largest(latent))],
    )?;
    Ok(Grid { frames, rows, cols })
}

/// The layers of a decoder, as `inspect` draws them: blocks of one kind behind each other.
pub(crate) fn outline(width: usize, kind: &'static str, blocks: usize) -> Outline {
    Outline {
        width,
        heads: 1,
        head_dim: width,
        layers: vec![Layer { kind, blocks: 0..blocks, stride: 1, stage: None }],
    }
}
