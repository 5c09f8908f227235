//! What a kernel's contract says, from the checkpoint and the lowered functions.

use anyhow::{Context, Result, bail};
use s2dit_ir::ValueId;
use s2dit_passes::split::{self, EMPTY, HostInput, StateKind};
use s2dit_passes::states;
use s2dit_runtime::stream::contract::{self, Contract, StateWrite};

use super::job::{Lowered, Options, States};
use crate::Target;
use crate::functions::Made;
use crate::parts::described;
use s2dit_models::checkpoint::Checkpoint;

/// The contract: everything that a host needs to know. `hash` is the checkpoint's.
pub(super) fn contract(
    checkpoint: &Checkpoint,
    options: &Options,
    lowered: &Lowered,
    hash: String,
) -> Result<Contract> {
    let (streaming, sampler) = (checkpoint.streaming()?, checkpoint.sampler()?);
    let interface = &lowered.module.interface;
    let shape = |name: Option<&str>| -> Result<&[usize]> {
        let find = |name| lowered.module.functions.iter().find_map(|f| Some(f.shape(f.by_name(name)?)));
        name.and_then(find).context("a kernel without a latent or a text")
    };
    let [_, channels, frames, rows, cols] = *shape(interface.latent())? else {
        bail!("a latent of another rank than 5")
    };
    let [_, tokens, dim] = *shape(interface.text())? else { bail!("a text of another rank than 3") };
    let native = options.states == States::Native;
    let shared = options.shared();
    let made = Made { module: &lowered.module, parts: &lowered.parts, target: options.target, shared };
    let function = |name: &str| -> Result<contract::Function> {
        let f = lowered.module.function(name).with_context(|| format!("no function `{name}`"))?;
        let file = made.file(name);
        let port = |name: &str, v: ValueId| contract::Port {
            name: name.into(),
            dtype: f.dtype(v),
            shape: f.shape(v).to_vec(),
        };
        let packages_call_it_main = options.target == Target::CoreMl && !shared;
        Ok(contract::Function {
            file,
            function: if packages_call_it_main { "main".into() } else { name.into() },
            inputs: f.params().iter().map(|&p| port(f.node(p).name.as_deref().unwrap_or_default(), p)).collect(),
            outputs: f.results.iter().map(|(name, v)| port(name, *v)).collect(),
            parts: lowered
                .parts
                .get(name)
                .into_iter()
                .flatten()
                .map(|(index, part)| described(part, made.part(name, Some(*index))))
                .collect(),
        })
    };
    let writer = |pass: StateWrite| (streaming.state_write == pass).then(|| function(pass.name())).transpose();
    let host_inputs = lowered
        .kernel
        .host_inputs
        .iter()
        .map(|(name, input)| contract::HostInput {
            name: name.clone(),
            kind: match input {
                HostInput::Rope(t) => {
                    contract::HostInputKind::Rope { part: t.part, grid: t.grid, axis_dims: t.axis_dims, theta: t.theta }
                }
                HostInput::WindowMask { sink_tokens, window_tokens, tokens_per_frame, own_tokens } => {
                    contract::HostInputKind::WindowMask {
                        sink_tokens: *sink_tokens,
                        window_tokens: *window_tokens,
                        tokens_per_frame: *tokens_per_frame,
                        own_tokens: *own_tokens,
                        empty: EMPTY as f32,
                    }
                }
                HostInput::SinkMask { sink_tokens, tokens_per_frame } => {
                    contract::HostInputKind::SinkMask { sink_tokens: *sink_tokens, tokens_per_frame: *tokens_per_frame }
                }
                HostInput::PastWeight => contract::HostInputKind::PastWeight,
                HostInput::NewWeight => contract::HostInputKind::NewWeight,
            },
        })
        .collect();
    let declared = &lowered.kernel.module.states;
    let states = if options.states.place(options.target) == states::Place::Native {
        let cache = lowered.module.states.iter().map(|s| contract::State {
            name: s.name.clone(),
            dtype: s.ty.dtype,
            shape: s.ty.shape.clone(),
            meaning: "every buffer of the network, in rows; see packing".into(),
            kind: contract::StateKind::Packed,
        });
        cache.collect()
    } else {
        let state = |(s, info): (&s2dit_ir::StateDecl, &split::StateInfo)| contract::State {
            name: s.name.clone(),
            dtype: s.ty.dtype,
            shape: s.ty.shape.clone(),
            meaning: meaning(info, streaming.sink_frames),
            kind: match info.kind {
                StateKind::Window => contract::StateKind::Window,
                StateKind::Mean | StateKind::MeanLow if info.name.contains("_norm") => contract::StateKind::LinearNorm,
                StateKind::Mean | StateKind::MeanLow => contract::StateKind::LinearSum,
                StateKind::Tail => contract::StateKind::ConvTail,
            },
        };
        declared.iter().zip(&lowered.kernel.states).map(state).collect()
    };
    let packing = lowered
        .packing
        .iter()
        .map(|p| contract::Packed {
            buffer: p.name.clone(),
            state: states::CACHE.into(),
            row: p.row,
            rows: p.rows,
            shape: p.shape.clone(),
        })
        .collect();
    Ok(Contract {
        format: contract::FORMAT.into(),
        version: contract::VERSION,
        compiler: format!("s2ditc {}", env!("CARGO_PKG_VERSION")),
        target: options.target,
        precision: options.precision,
        states_policy: if native { contract::StatesPolicy::Native } else { contract::StatesPolicy::Io },
        functions_policy: if shared { contract::FunctionsPolicy::Shared } else { contract::FunctionsPolicy::Separate },
        checkpoint: hash,
        config: checkpoint.model().config(),
        chunk: contract::Chunk { channels, frames, rows, cols },
        interface: interface.clone(),
        window_frames: streaming.window_frames,
        sink_frames: streaming.sink_frames,
        state_write: streaming.state_write,
        text: contract::Text { tokens, dim },
        sampler: contract::KernelSampler::FlowMatchingAr { timesteps: sampler.timesteps(), sigmas: sampler.sigmas() },
        timesteps: options.timesteps.listed(checkpoint.model())?,
        device: options.layout.device.as_deref().map(String::from),
        lowerings: match options.layout.device {
            Some(_) => options.layout.lowerings.names().into_iter().map(String::from).collect(),
            None => Vec::new(),
        },
        functions: contract::Functions {
            prompt: function("prompt")?,
            denoise: function("denoise")?,
            commit: writer(StateWrite::Commit)?,
            last_step: writer(StateWrite::LastStep)?,
        },
        host_inputs,
        states,
        packing,
    })
}

fn meaning(info: &split::StateInfo, sink_frames: usize) -> String {
    let what = match info.kind {
        StateKind::Window if sink_frames > 0 => {
            "keys or values of the stream's first frames, then of the last frames, oldest first"
        }
        StateKind::Window => "keys or values of the last frames, oldest first",
        StateKind::Mean => "mean over chunks of linear attention's sums a token",
        StateKind::MeanLow => "what fp16 leaves out of the mean",
        StateKind::Tail => "the last frames of the convolution's input",
    };
    format!("{what} ({})", info.scope)
}
