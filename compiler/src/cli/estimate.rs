//! `s2ditc estimate`

pub(super) mod pipeline;
pub(super) mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use s2dit_backends::coreml::lint::device::DeviceReport;
use s2dit_backends::output::{Staged, made};
use s2dit_backends::{coreai, coreml};
use s2dit_emit::{Attention, Layout};
use s2dit_estimate::subject::{self, Mode, Options};
use s2dit_estimate::{Device, Estimate, Subject, Weights, device, estimate, fit, html, lowering};
use s2dit_models::checkpoint::{Checkpoint, Origin};
use s2dit_models::config;
use s2dit_models::model::Model;
use s2dit_models::size::LatentSize;
use s2dit_passes::Lowerings;
use s2dit_runtime::{Pipeline, experts, partition, stream::contract};

use super::places::Places;
use super::usage::{self, refuse};
use super::{Context, print_json, print_line};
use crate::errors::About as _;

/// Estimate time, memory and size on a device, from shapes alone
#[derive(clap::Args)]
#[command(after_help = "Examples:
  s2ditc estimate --config config.json --quantize w4a8 --other-ms 84
  s2ditc estimate --preset mobile --device iphone15pro --json
  s2ditc estimate kernel/ --report kernel.html
  s2ditc estimate wan/
  s2ditc estimate kernel/ --fit report.json -o my-phone.toml

Every time is a range: what the best and the worst of what is known of the engine allow, and what is likely. docs/estimate.md says how far estimates \
are from published figures. A device is data: --device also takes a file such as my-phone.toml, which --fit makes from a device report with \
times (examples/device-report).")]
pub(super) struct Args {
    /// Checkpoint, graph that PyTorch exported, .mlpackage, or folder of a compiled pipeline, of a kernel, of a decoder or of a partitioned step
    #[arg(required_unless_present_any = ["config", "preset"])]
    path: Option<PathBuf>,
    /// A configuration alone: no weights are needed
    #[arg(long, value_name = "FILE", conflicts_with = "path")]
    config: Option<PathBuf>,
    /// A preset alone, such as 1.8b or mobile
    #[arg(long, value_name = "NAME", value_parser = usage::preset, conflicts_with_all = ["path", "config"])]
    preset: Option<String>,
    /// Device: iphone16promax, iphone15pro, iphone17pro, m1, m4pro, m5, or a file NAME.toml
    #[arg(long, value_name = "DEVICE", default_value = device::DEFAULT)]
    device: String,
    /// Latent frames, rows and columns of what is not compiled yet; a stream's frames are its chunk's [default: 3x36x64, or the nearest that fits]
    #[arg(long, value_name = "FxHxW")]
    latent: Option<LatentSize>,
    /// clip or stream, of what is not compiled yet [default: stream if the model streams]
    #[arg(long)]
    mode: Option<Mode>,
    /// Weights of what is not compiled yet: fp16, w8a8, w4a8 (4-bit palettes with int8 activations), int8, palette4-group16, … [default: fp16]
    #[arg(long, value_name = "SCHEME")]
    quantize: Option<Weights>,
    /// Heads of softmax attention of what is not compiled yet: batched or per-head [default: batched]
    #[arg(long)]
    attention: Option<Attention>,
    /// As compile --device makes it for this device, of what is not compiled yet
    #[arg(long)]
    tuned: bool,
    /// Milliseconds a chunk outside of the transformer: text encoder and decoder
    #[arg(long, value_name = "MS", default_value_t = 0.0, value_parser = milliseconds)]
    other_ms: f64,
    /// Fit the device to the times of this device report of the same package; repeatable
    #[arg(long, value_name = "FILE", requires = "output", requires = "path")]
    fit: Vec<PathBuf>,
    /// Device file to make with --fit
    #[arg(short, long, value_name = "OUT.toml", requires = "fit", value_parser = device_file)]
    output: Option<PathBuf>,
    /// Page to make, with a timeline of a chunk
    #[arg(long, value_name = "OUT.html", value_parser = usage::html)]
    report: Option<PathBuf>,
    /// Show every block, and the ops that take longest
    #[arg(long)]
    all: bool,
    /// Print the estimate as JSON
    #[arg(long)]
    json: bool,
}

/// A time that is not negative.
pub(super) fn milliseconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ms) if ms.is_finite() && ms >= 0.0 => Ok(ms),
        _ => Err("expected milliseconds from 0, such as 84".into()),
    }
}

fn device_file(text: &str) -> Result<PathBuf, String> {
    match text.ends_with(".toml") {
        true => Ok(text.into()),
        false => Err("expected a name that ends in .toml: that is what --device takes".into()),
    }
}

pub(super) fn run(args: &Args, context: Context) -> Result<ExitCode> {
    let custom = PathBuf::from(&args.device);
    let custom = custom.extension().is_some().then_some(&custom);
    Places::default()
        .input("PATH", &args.path)
        .input("--config", &args.config)
        .input("--device", custom)
        .input("--fit", &args.fit)
        .output("--report", &args.report)
        .output("-o", &args.output)
        .check()?;
    if let Some(path) = args.path.as_ref().filter(|path| Pipeline::is_in(path)) {
        return pipeline::run(args, context, path);
    }
    let mut device = Device::open(&args.device).about("E0903")?;
    let subject = subject_of(args, &device)?;
    if let Some(out) = &args.output {
        let reports =
            args.fit.iter().map(|file| DeviceReport::read(file)).collect::<Result<Vec<_>, _>>().about("E0901")?;
        let fitted = fit::fit(&device, &subject, &reports).about("E0901")?;
        let staged = Staged::file(context.to(out), &made::sealed)?;
        std::fs::write(staged.path(), made::seal(&fitted.device.to_toml()))
            .with_context(|| format!("cannot write `{}`", out.display()))?;
        staged.commit()?;
        if !context.quiet && !args.json {
            print_line(&text::fitted(out, &fitted))?;
        }
        device = fitted.device;
    }
    let made = estimate(&subject, &device, args.other_ms);
    if let Some(out) = &args.report {
        write_page(context, out, &html::page(&made, &device))?;
    }
    say(args, context, &made)
}

/// Writes a page, which appears whole or not at all.
pub(super) fn write_page(context: Context, out: &Path, page: &str) -> Result<()> {
    let staged = Staged::file(context.to(out), &made::markup)?;
    std::fs::write(staged.path(), page).with_context(|| format!("cannot write `{}`", out.display()))?;
    staged.commit()?;
    Ok(())
}

fn say(args: &Args, context: Context, made: &Estimate) -> Result<ExitCode> {
    if args.json {
        print_json(made)?;
    } else if context.quiet {
        print_line(&text::brief(made))?;
    } else {
        print_line(text::report(made, args.all).trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is estimated, by what lies at the path.
fn subject_of(args: &Args, device: &Device) -> Result<Subject> {
    let options = Options {
        latent: args.latent,
        mode: args.mode,
        layout: Layout { attention: args.attention.unwrap_or_default(), ..Layout::default() },
        weights: args.quantize.unwrap_or(Weights::WHOLE),
    };
    let of = |model: &dyn Model, what: &'static str, name: &str| -> Result<Subject> {
        let lower = |lowerings| {
            let layout = Layout { lowerings, ..options.layout.clone() };
            subject::model(model, what, name, &Options { layout, ..options.clone() })
        };
        if !args.tuned {
            return lower(Lowerings::default());
        }
        let chosen = lowering::choose(device, lower)?;
        let mut subject = lower(chosen.lowerings)?;
        subject.notes.push(match &*chosen.lowerings.names().join(", ") {
            "" => "compile --device would take no lowering: none gains time on this device".into(),
            taken => format!("lowered as compile --device does it: {taken}"),
        });
        Ok(subject)
    };
    if let Some(file) = &args.config {
        return of(&*config::read(file)?, "configuration", &file.display().to_string());
    }
    if let Some(name) = &args.preset {
        return of(&*config::preset(name)?, "preset", name);
    }
    let Some(path) = &args.path else { bail!("no path, no --config and no --preset") };
    let is_package = path.extension().is_some_and(|e| e == "mlpackage") || path.join(coreml::MANIFEST).exists();
    let compiled = match () {
        () if is_package || [partition::FILE, contract::FILE].iter().any(|file| path.join(file).is_file()) => {
            subject::open
        }
        () if path.join(coreai::asset::PROGRAM).exists() => {
            bail!(
                "`{}`: a Core AI asset: expected a Core ML package (--target coreml), whose times on a phone are estimated",
                path.display()
            )
        }
        () if path.join(experts::FILE).is_file() => {
            bail!(
                "`{}`: a folder of two transformers: estimate each by itself, or the whole pipeline: they are never loaded together",
                path.display()
            )
        }
        () => {
            let checkpoint = Checkpoint::open_from(&Origin::from(path.as_path()))?;
            if checkpoint.model().graph().is_some() && args.mode == Some(Mode::Stream) {
                let shown = path.display();
                refuse!(
                    "--mode stream: `{shown}` is a graph, which says nothing of chunks and windows: expected the kernel that it becomes: \
                     `s2ditc compile {shown} --target coreml --mode stream --chunk N --window N -o kernel`, then `s2ditc estimate kernel`"
                );
            }
            return of(checkpoint.model(), "checkpoint", &path.display().to_string());
        }
    };
    refuse_choices(args, path)?;
    compiled(path)
}

/// Refuses choices of a compile for what is compiled.
fn refuse_choices(args: &Args, path: &Path) -> Result<()> {
    let given = [
        ("--latent", args.latent.is_some()),
        ("--mode", args.mode.is_some()),
        ("--quantize", args.quantize.is_some()),
        ("--attention", args.attention.is_some()),
        ("--tuned", args.tuned),
    ];
    if let Some((flag, _)) = given.into_iter().find(|(_, given)| *given) {
        refuse!("{flag} is for what is not compiled yet: `{}` says all of this itself", path.display());
    }
    Ok(())
}
