//! `s2ditc demo`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use s2dit_backends::input::read_file;
use s2dit_backends::output::Destination;
use s2dit_runtime::Engine;
use serde::Serialize;

use super::progress::{Progress, count, size};
use super::{Context, print_json, print_line};
use s2dit_emit::{Layout, Opset, Options, Precision, Target, TimestepChoice, compile};
use s2dit_files::FloatType;
use s2dit_models::checkpoint::Checkpoint;
use s2dit_models::config::preset;
use s2dit_models::init::{DEFAULT_SHARD_SIZE, InitOptions, init};
use s2dit_models::size::LatentSize;
use s2dit_proof::verify::{self, Reference, verify};

/// Inputs and the float64 PyTorch output for the checkpoint that [`run`] makes; see `examples/reference`.
const GOLDEN: &[u8] = include_bytes!("../../../tests/goldens/small/golden.safetensors");
/// Seed of the checkpoint that the golden was made with.
const SEED: u64 = 7;
const LATENT: LatentSize = LatentSize { frames: 3, rows: 16, cols: 24 };

/// Make a small checkpoint, compile it to both targets and prove both against PyTorch
#[derive(clap::Args)]
#[command(after_help = "Example: s2ditc demo -o /tmp/demo")]
pub(super) struct Args {
    /// Folder for the checkpoint and the artifacts
    #[arg(short, long, value_name = "DIR", default_value = "s2ditc-demo")]
    pub(super) output: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Proof {
    artifact: PathBuf,
    what: &'static str,
    snr_db: f64,
    relative_l2: f64,
    bar_db: f64,
    passed: bool,
}

pub(super) fn run(args: &Args, context: Context) -> Result<ExitCode> {
    let say = |line: &str| if context.quiet || args.json { Ok(()) } else { print_line(line) };
    let folder = &args.output;
    make_folder(folder)?;
    let (checkpoint_dir, golden) = (folder.join("checkpoint"), folder.join("golden.safetensors"));
    let (onnx, package) = (folder.join("small.onnx"), folder.join("small.mlpackage"));

    say("1  a checkpoint: seeded random weights, in the layout that diffusers saves")?;
    let start = Instant::now();
    let options = InitOptions {
        model: preset("small")?,
        seed: SEED,
        dtype: FloatType::Bf16,
        max_shard_size: DEFAULT_SHARD_SIZE,
        force: false,
        threads: context.threads,
    };
    let made = {
        let progress = Progress::bytes("weights", context.quiet);
        init(&options, &checkpoint_dir, &|done, total| progress.set(done, total))?
    };
    if std::fs::metadata(&golden).is_ok() && read_file(&golden, GOLDEN.len() as u64).ok().as_deref() != Some(GOLDEN) {
        bail!("`{}` is not the demo's: expected an empty folder, or that of another demo", golden.display());
    }
    std::fs::write(&golden, GOLDEN).with_context(|| format!("cannot write `{}`", golden.display()))?;
    say(&line(&checkpoint_dir, &format!("{} parameters, bf16, {}", count(made.parameters), size(made.bytes)), start))?;
    let checkpoint = Checkpoint::open(&checkpoint_dir)?;
    say(&format!("   its layout is {}", checkpoint.model().outline().sandwich()))?;

    say("\n2  compiled to both targets")?;
    for (target, precision, out) in
        [(Target::Onnx, Precision::Fp32, &onnx), (Target::CoreMl, Precision::Fp16, &package)]
    {
        let start = Instant::now();
        let options = Options {
            target,
            precision,
            opset: Opset::default(),
            layout: Layout::default(),
            size: LATENT.into(),
            timesteps: TimestepChoice::Any,
            quantize: None,
            partition: None,
        };
        let made = {
            let progress = Progress::bytes("weights", context.quiet);
            let to = Destination::new(out);
            compile(&checkpoint, &options, to, &mut |_, _| {}, &mut |done, total| progress.set(done, total))?
        };
        say(&line(out, &format!("{precision}, {} ops, {} of weights", made.ops, size(made.weight_bytes)), start))?;
    }

    say("\n3  proved: the files on disk, run on this machine, against PyTorch in float64")?;
    let reference = Reference::Golden { file: golden, model: None };
    let mut proofs = Vec::new();
    for (artifact, fp16, bar, what) in [
        (&onnx, false, 110.0, "ONNX Runtime, fp32"),
        (&package, false, 60.0, "the package, fp32 arithmetic"),
        (&package, true, 50.0, "the package, every result rounded to fp16 as on the Neural Engine"),
    ] {
        let options = verify::Options {
            min_snr: Some(bar),
            fp16,
            engine: Engine::Ort,
            blocks: false,
            threads: context.threads,
            quiet: context.quiet,
        };
        let report = verify(artifact, &reference, &options)?;
        let row = report.rows.first().context("a golden without outputs")?;
        let (snr_db, relative_l2) = (row.metrics.snr_db, row.metrics.relative_l2);
        let verdict = if report.passed { "ok" } else { "FAILED" };
        say(&format!("   {:<16} {snr_db:6.1} dB (bar {bar}) {verdict:<6} {what}", name(artifact)))?;
        proofs.push(Proof {
            artifact: artifact.clone(),
            what,
            snr_db,
            relative_l2,
            bar_db: bar,
            passed: report.passed,
        });
    }

    let passed = proofs.iter().all(|p| p.passed);
    if args.json {
        print_json(&proofs)?;
    } else {
        say(&format!(
            "\nEverything is in {}. Look inside with:\n   s2ditc inspect {}\n   s2ditc verify {} --checkpoint {} --blocks",
            folder.display(),
            package.display(),
            package.display(),
            checkpoint_dir.display()
        ))?;
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes the demo's folder. A new folder tells git to ignore it: people run the demo inside a checkout.
fn make_folder(folder: &Path) -> Result<()> {
    let new = !folder.exists();
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    if new {
        let ignore = folder.join(".gitignore");
        std::fs::write(&ignore, "*\n").with_context(|| format!("cannot write `{}`", ignore.display()))?;
    }
    Ok(())
}

fn line(path: &Path, what: &str, start: Instant) -> String {
    format!("   {:<16} {what}, {:.1} s", name(path), start.elapsed().as_secs_f64())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
