//! The model card: what a person who finds the folder should know.

use std::fmt::Write as _;

use s2dit_backends::output::made;
use s2dit_runtime::pipeline::{Contract, Mode, SchedulerKind};

/// The file of the card.
pub const CARD: &str = "README.md";

/// What a verification measured of something.
#[derive(Clone, Debug, PartialEq)]
pub struct Fidelity {
    /// What was compared.
    pub what: String,
    /// Its signal-to-noise ratio in dB.
    pub snr_db: f64,
    /// Whether results were rounded as the Neural Engine rounds them.
    pub fp16: bool,
}

/// The card of a pipeline, in Markdown. `estimate` has lines of Markdown, `fidelity` what was measured; without any it says how to measure.
#[must_use]
pub fn card(contract: &Contract, estimate: &[String], fidelity: &[Fidelity]) -> String {
    // Writing to a string cannot fail.
    let mut out = String::new();
    let _ = written(contract, estimate, fidelity, &mut out);
    out
}

fn written(contract: &Contract, estimate: &[String], fidelity: &[Fidelity], out: &mut String) -> std::fmt::Result {
    let Contract { video, latent, text, sampling, scheduler, source, assets, .. } = contract;
    if let Some(licence) = &source.licence {
        writeln!(out, "---\nlicense: {licence}\n---\n")?;
    }
    writeln!(out, "# {}\n\n{}\n", source.name.as_deref().unwrap_or(&contract.class), made::COMMENT)?;
    let length = match (contract.mode, video.frames) {
        (Mode::Clip, Some(frames)) => format!("clips of {frames} frames"),
        _ => format!("a stream, {} latent frames at a time", latent.frames),
    };
    writeln!(
        out,
        "A `{}` for {}, compiled by {}: {length} of {}×{} pixels at {} frames a second. `pipeline.json` says how a program runs it.\n",
        contract.class, contract.target, contract.compiler, video.cols, video.rows, video.fps
    )?;
    writeln!(
        out,
        "| part | file | class | arithmetic | compression | engine | weights | on disk |\n|---|---|---|---|---|---|---|---|"
    )?;
    for (part, asset) in assets.parts() {
        writeln!(
            out,
            "| {} | `{}` | `{}` | {} | {} | {} | {} | {} |",
            part.name(),
            asset.path,
            asset.class,
            asset.precision,
            asset.compression.as_deref().unwrap_or("none"),
            asset.compute.as_deref().unwrap_or("any"),
            megabytes(asset.weight_bytes),
            megabytes(asset.files.iter().map(|file| file.bytes).sum())
        )?;
    }
    let whole: u64 = assets.files().map(|file| file.bytes).sum();
    writeln!(out, "\nAll files have {}.\n", megabytes(whole))?;
    writeln!(out, "## Sampling\n")?;
    match scheduler.kind {
        SchedulerKind::Kernel => writeln!(
            out,
            "Each chunk takes {} steps; `contract.json` of the transformer has its noise levels.",
            sampling.steps
        )?,
        SchedulerKind::Unipc | SchedulerKind::FlowMatchEuler | SchedulerKind::DpmSolver => {
            let (steps, guidance, calls) = (sampling.steps, sampling.guidance, sampling.calls());
            writeln!(out, "`{}`, {steps} steps, guidance {guidance}, {calls}.", scheduler.class)?;
        }
    }
    writeln!(out, "A prompt has {} tokens at most; a longer one is cut.\n", text.tokens)?;
    writeln!(out, "## Fidelity\n")?;
    if fidelity.is_empty() {
        writeln!(
            out,
            "Not measured. `s2ditc verify FOLDER --checkpoint PIPELINE --card` compares each part, and all of them one after the other, with the \
                       weights that they were compiled from, and writes the figures here.\n"
        )?;
    } else {
        writeln!(out, "| compared with the fp32 graph of the weights | SNR |\n|---|---|")?;
        for row in fidelity {
            let how = if row.fp16 { ", rounded to fp16" } else { "" };
            writeln!(out, "| {}{how} | {:.1} dB |", row.what, row.snr_db)?;
        }
        writeln!(out)?;
    }
    if !estimate.is_empty() {
        writeln!(out, "## Estimate\n")?;
        for line in estimate {
            writeln!(out, "{line}")?;
        }
        writeln!(out)?;
    }
    writeln!(out, "## Source\n")?;
    writeln!(out, "| component | hash of its tensors |\n|---|---|")?;
    for made in assets.parts().flat_map(|(_, asset)| &asset.checkpoints) {
        writeln!(out, "| `{}` | `{}` |", made.component, made.hash)?;
    }
    writeln!(
        out,
        "\nLicence of the weights: {}.",
        source.licence.as_deref().unwrap_or("the pipeline folder does not say")
    )
}

/// The lines of a card's estimate.
#[must_use]
pub fn estimate_of(card: &str) -> Vec<String> {
    let Some((_, section)) = card.split_once("\n## Estimate\n") else { return Vec::new() };
    let section = section.split("\n## ").next().unwrap_or_default();
    section.trim().lines().map(str::to_owned).collect()
}

/// Bytes in words.
fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
