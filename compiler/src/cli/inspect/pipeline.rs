//! `s2ditc inspect` of a compiled pipeline.

use std::fmt::Write as _;

use anyhow::Result;
use s2dit_files::size;
use s2dit_runtime::pipeline::{Contract, EncoderMask, SchedulerKind};

use crate::cli::terminal::one_line;
use crate::inspect::InspectReport;

/// The text of a contract and of the parts.
pub(super) fn text(contract: &Contract, parts: &[InspectReport]) -> Result<String> {
    let Contract { video, latent, text, sampling, scheduler, source, assets, .. } = contract;
    let mut out = String::new();
    let frames = video.frames.map_or("any number of frames".into(), |frames| format!("{frames} frames"));
    writeln!(out, "pipeline {} for {}, compiled by {}", contract.class, contract.target, one_line(&contract.compiler))?;
    writeln!(out, "{}", one_line(&contract.id))?;
    writeln!(
        out,
        "video: {frames} of {}×{} pixels at {} a second, latent {}×{}×{}×{}",
        video.cols, video.rows, video.fps, latent.channels, latent.frames, latent.rows, latent.cols
    )?;
    let mask = match text.encoder_mask {
        EncoderMask::None => "no mask",
        EncoderMask::Tokens => "a mask of the tokens that count",
        EncoderMask::Ones => "a mask of ones",
    };
    let zeros = if text.zero_padding { ", padding zeroed" } else { "" };
    writeln!(out, "text: {} tokens of width {}, encoded with {mask}{zeros}", text.tokens, text.width)?;
    match scheduler.kind {
        SchedulerKind::Kernel => writeln!(out, "sampling: {} steps a chunk, as the kernel says", sampling.steps)?,
        SchedulerKind::Unipc | SchedulerKind::FlowMatchEuler | SchedulerKind::DpmSolver => writeln!(
            out,
            "sampling: {}, {} steps, guidance {}, {}",
            one_line(&scheduler.class),
            sampling.steps,
            sampling.guidance,
            sampling.calls()
        )?,
    }
    let said = |value: &Option<String>| value.as_deref().map_or("not said".to_owned(), one_line);
    writeln!(out, "weights: of {}, licence {}", said(&source.name), said(&source.licence))?;
    if let Some(tokenizer) = &assets.tokenizer {
        writeln!(out, "tokenizer {}: {}", one_line(&tokenizer.path), one_line(&tokenizer.class))?;
    }
    for ((part, asset), report) in assets.parts().zip(parts) {
        let bytes: u64 = asset.files.iter().map(|file| file.bytes).sum();
        let compression = asset.compression.as_deref().map_or(String::new(), |how| format!(", {}", one_line(how)));
        writeln!(
            out,
            "\n{}: {}, {} {}{compression}, {} in {} file(s)\n{}",
            part.name(),
            one_line(&asset.path),
            one_line(&asset.class),
            asset.precision,
            size(bytes),
            asset.files.len(),
            super::text(report)?.trim_end()
        )?;
    }
    Ok(out)
}
