//! The pass, and its options.

use s2dit_ir::OpError;

use super::split;
use crate::Property;
use crate::pass::{Pass, PassKind, Run};

/// The pass. It finds what it rewrites among the tensor ops, so it comes before `fuse`.
pub static PASS: PassKind = PassKind {
    name: "split",
    doc: "the graph of one chunk is the functions of a stream, which read the past from states",
    options: "window=FRAMES, sinks=FRAMES, ahead, last-step, half-states",
    needs: &[Property::TensorOps, Property::Fp32, Property::TokensFirst, Property::NoStates],
    establishes: &[Property::OwnStates],
    destroys: &[Property::NoStates],
    run: Run::Options(|written| {
        let mut options = Options::default();
        for &option in written {
            let refused = || format!("found `{option}`, expected {}", PASS.options);
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let frames = value.parse().map_err(|_| refused());
            match (name, value) {
                ("window", _) => options.window_frames = frames?,
                ("sinks", _) => options.sink_frames = frames?,
                ("ahead", "") => options.ahead = true,
                ("last-step", "") => options.state_write = StateWrite::LastStep,
                ("half-states", "") => options.half_states = true,
                _ => return Err(refused()),
            }
        }
        Ok(pass(options))
    }),
};

/// The pass with its options. It leaves what it found in [`crate::pass::Context::kernel`].
pub fn pass(options: Options) -> Pass {
    let mut written = vec![format!("window={}", options.window_frames), format!("sinks={}", options.sink_frames)];
    let flags = [
        ("ahead", options.ahead),
        ("last-step", options.state_write == StateWrite::LastStep),
        ("half-states", options.half_states),
    ];
    written.extend(flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_string()));
    Pass::new(&PASS, written.join(","), move |module, context| {
        let [chunk] = &module.functions[..] else {
            return Err(OpError::new(format!("found {} functions, expected one", module.functions.len())).into());
        };
        let mut kernel = split(chunk, &module.interface, &options, context.weights)?;
        module.states = std::mem::take(&mut kernel.module.states);
        module.functions = std::mem::take(&mut kernel.module.functions);
        // An input that nothing needs is gone.
        let functions = &module.functions;
        module.interface.inputs.retain(|input| functions.iter().any(|f| f.by_name(&input.name).is_some()));
        context.kernel = Some(kernel);
        Ok(module.functions.len())
    })
}

/// What a stream sees of the past, and how it keeps it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Frames of the past that softmax attention sees.
    pub window_frames: usize,
    /// Frames at the start of the stream that it sees as well, however long ago they were.
    pub sink_frames: usize,
    /// Convolutions along time may see frames of the chunk that follow, and zeros behind its last: the model is called so.
    pub ahead: bool,
    /// Which pass over a chunk updates the states.
    pub state_write: StateWrite,
    /// States will be stored in fp16: sums are split into a high and a low half.
    pub half_states: bool,
}

/// No past, states that one more pass updates.
impl Default for Options {
    fn default() -> Self {
        Options { window_frames: 0, sink_frames: 0, ahead: false, state_write: StateWrite::Commit, half_states: false }
    }
}

/// Which pass over a chunk updates the states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateWrite {
    /// One of its own, at time 0 on the finished chunk.
    Commit,
    /// The last denoising step.
    LastStep,
}

impl StateWrite {
    /// The function that updates the states.
    #[must_use]
    pub const fn function(self) -> &'static str {
        match self {
            StateWrite::Commit => "commit",
            StateWrite::LastStep => "last_step",
        }
    }
}
