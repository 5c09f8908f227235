//! `--device`: lowerings that a device's limits and speed ask for, and what each is worth.

use std::sync::Arc;

use anyhow::Result;
use s2dit_emit::{Compute, Layout, Target};
use s2dit_estimate::lowering::{self, Chosen};
use s2dit_estimate::subject::{Lowered, Mode as Makes};
use s2dit_estimate::{Device, Subject};
use s2dit_models::checkpoint::Checkpoint;
use s2dit_models::model::Part;
use s2dit_passes::Lowerings;

use super::{Args, Job};
use crate::cli::print_note;
use crate::cli::usage::refuse;

/// A device, and what was chosen for it.
pub(super) struct Tuned {
    pub device: Device,
    /// `None` of a decoder, whose graph has one form but for the device's limits.
    pub chosen: Option<Chosen>,
}

/// The device of the command line, if there is one.
///
/// # Errors
/// A device that is none; a target or a shape of packages that no device chooses for.
pub(super) fn device(args: &Args) -> Result<Option<Device>> {
    let Some(name) = &args.device else { return Ok(None) };
    if args.target() != Target::CoreMl {
        refuse!(
            "--device is for --target coreml, whose packages the Neural Engine runs: found --target {}",
            args.target()
        );
    }
    if let Some(compute) = args.compute.filter(|compute| *compute != Compute::Ane) {
        refuse!(
            "--compute {compute}: --device chooses the form that the Neural Engine gets: leave out one of the two flags"
        );
    }
    Device::open(name).map(Some)
}

impl Job {
    /// The job as the device asks for it, and what was chosen.
    ///
    /// # Errors
    /// What lowering fails with.
    pub(super) fn tuned(self, checkpoint: &Checkpoint, device: Device) -> Result<(Job, Tuned)> {
        if checkpoint.model().family().part() == Part::Decoder {
            let job = self.with(device.asks(), Some(&device));
            return Ok((job, Tuned { device, chosen: None }));
        }
        let chosen = lowering::choose(&device, |lowerings| self.clone().with(lowerings, None).subject(checkpoint))?;
        let job = self.with(chosen.lowerings, Some(&device));
        Ok((job, Tuned { device, chosen: Some(chosen) }))
    }

    fn with(mut self, lowerings: Lowerings, device: Option<&Device>) -> Job {
        let layout = self.layout_mut();
        layout.lowerings = lowerings;
        layout.device = device.map(|device| Arc::from(device.name.as_str()));
        self
    }

    fn layout_mut(&mut self) -> &mut Layout {
        match self {
            Job::Clip(options) => &mut options.layout,
            Job::Stream(options) => &mut options.layout,
            Job::Decoder(options) => &mut options.layout,
        }
    }

    /// What an estimate looks at: the lowered functions, before they are spread over packages.
    fn subject(&self, checkpoint: &Checkpoint) -> Result<Subject> {
        let module = self.lower(checkpoint, &mut |_, _| {})?;
        let mode = if let Job::Clip(_) = self { Makes::Clip } else { Makes::Stream };
        let lowered = Lowered { what: "checkpoint", name: "", mode, latent: None, weights: String::new() };
        lowered.subject(checkpoint.model(), module)
    }
}

/// Says what was chosen, and why.
pub(super) fn say(tuned: &Tuned) {
    let Some(chosen) = &tuned.chosen else {
        print_note(&format!(
            "device {}: a decoder has one form for every engine, but for what a limit asks for{}; lint takes the device's rules",
            tuned.device.name,
            if tuned.device.asks().rows { " (slices-of-rows)" } else { "" }
        ));
        return;
    };
    print_note(&format!(
        "device {}: a step of {:.1} ms, {:.1} without its lowerings (likely, by estimate); {} ops, {} without",
        chosen.device, chosen.step_ms, chosen.plain_ms, chosen.ops, chosen.plain_ops
    ));
    if chosen.lowerings.rows {
        print_note("  slices-of-rows: the engine clamps what is cut within the last axis");
    }
    for tried in &chosen.tried {
        let cost = format!("{:+.2} ms a step, {:+} ops", -tried.saves_ms, tried.more_ops);
        let verdict = match (tried.taken, tried.saves_ms > 0.0, tried.more_ops) {
            (true, ..) => format!("{cost}: taken"),
            (false, true, _) => format!("{cost}: left out, its ops take longer to compile than it saves"),
            (false, false, 0) if tried.saves_ms == 0.0 => "nothing to do".into(),
            (false, false, _) => format!("{cost}: left out"),
        };
        print_note(&format!("  {}: {verdict}", tried.name));
    }
}
