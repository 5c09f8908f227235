//! `s2ditc run`

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use s2dit_backends::output::Staged;
use s2dit_files::arrays::{self, Array, Arrays, Format};
use s2dit_runtime::Engine;
use s2dit_runtime::predict::{Options, Predictor, serve};
use serde::Serialize;

use super::places::Places;
use super::terminal::one_line;
use super::usage::refuse;
use super::{Context, print_json, print_line};
use crate::errors::About as _;

/// Run a Core ML package, a Core AI asset or an ONNX file, of any tool, on this machine
#[derive(clap::Args)]
#[command(after_help = "Examples:
  s2ditc run model.mlpackage --inputs in.npz -o out.npz
  s2ditc run model.mlpackage --function step --inputs in.safetensors --states states.safetensors --fp16 -o out.safetensors
  s2ditc run model.mlpackage
  s2ditc run model.aimodel --inputs in.npz -o out.npz --engine coreai

Without --inputs it lists what the model takes and returns.")]
pub(super) struct Args {
    /// An .mlpackage, an .aimodel or an .onnx file
    #[arg(required_unless_present = "serve")]
    pub(super) model: Option<PathBuf>,
    /// Arrays by the names of the inputs: .safetensors or .npz
    #[arg(long, value_name = "FILE")]
    inputs: Option<PathBuf>,
    /// Where the outputs go, by their names: .safetensors or .npz
    #[arg(short, long, value_name = "FILE", requires = "inputs")]
    output: Option<PathBuf>,
    /// The function of a package with several
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// The states before the call, zeros if there is no such file, and after it
    #[arg(long, value_name = "FILE", requires = "inputs")]
    states: Option<PathBuf>,
    /// Round every fp16 result to fp16, as the Neural Engine stores it; without it the arithmetic is fp32
    #[arg(long)]
    fp16: bool,
    /// What runs the graph: ort, or coreai (Apple's runtime, for .aimodel only; fetched on first need)
    #[arg(long, default_value = "ort")]
    engine: Engine,
    /// Run again so many times, and report the median
    #[arg(long, value_name = "N", requires = "inputs", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    time: Option<u32>,
    /// Print what went in and came out as JSON
    #[arg(long)]
    json: bool,
    /// Answer requests from standard input, a line of JSON each
    #[arg(long, conflicts_with_all = ["model", "inputs", "output", "function", "states", "fp16", "time", "json"])]
    serve: bool,
}

/// An array, as a report tells it.
#[derive(Serialize)]
struct Row {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    /// Least, mean and greatest of the finite elements; null if there are none.
    min: Option<f64>,
    mean: Option<f64>,
    max: Option<f64>,
    /// Elements that are infinite or NaN.
    not_finite: usize,
}

#[derive(Serialize)]
struct Report {
    model: String,
    function: Option<String>,
    inputs: Vec<Row>,
    outputs: Vec<Row>,
    states: Vec<Row>,
    /// Seconds of a call, if they were measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    median_seconds: Option<f64>,
}

pub(super) fn run(args: &Args, context: Context) -> Result<ExitCode> {
    let options = Options { fp16: args.fp16, threads: context.threads, quiet: context.quiet, ..Options::default() };
    let Some(path) = &args.model else {
        let (requests, answers) = (BufReader::new(std::io::stdin()), std::io::stdout().lock());
        serve::serve(requests, answers, &options).context("cannot answer")?;
        return Ok(ExitCode::SUCCESS);
    };
    // The states are read first, and written where they were.
    Places::default()
        .input("MODEL", [path])
        .input("--inputs", &args.inputs)
        .output("-o", &args.output)
        .output("--states", &args.states)
        .check()?;
    let function = args.function.as_deref();
    let mut model = Predictor::open_in(path, &options, args.engine)?;
    let Some(from) = &args.inputs else {
        describe(&model, path, args)?;
        return Ok(ExitCode::SUCCESS);
    };
    for file in [&args.output, &args.states].into_iter().flatten() {
        if let Err(problem) = Format::of(file) {
            refuse!("{problem}");
        }
    }
    let inputs = arrays::read_within(from, model.most_bytes(function)?).about("E0111")?;
    let mut states = model.new_states(function)?;
    if states.is_empty() && args.states.is_some() {
        refuse!("--states: `{}` has no states", path.display());
    }
    if let Some(file) = args.states.as_ref().filter(|file| file.exists()) {
        states = arrays::read_within(file, model.most_bytes(function)?).about("E0111")?;
    }
    let before = states.clone();
    let outputs = model.predict(function, &inputs, &mut states).about("E0703");
    let outputs = outputs.with_context(|| format!("with the inputs of `{}`", from.display()))?;
    let median_seconds = args.time.map(|rounds| median(&mut model, function, &inputs, &before, rounds)).transpose()?;
    let mut staged = Vec::new();
    for (file, written) in [(&args.output, &outputs), (&args.states, &states)] {
        if let Some(file) = file {
            staged.push(serve::stage(context.to(file), written)?);
        }
    }
    Staged::commit_all(staged)?;
    let report = Report {
        model: path.display().to_string(),
        function: args.function.clone(),
        inputs: rows(&inputs),
        outputs: rows(&outputs),
        states: rows(&states),
        median_seconds,
    };
    if args.json {
        print_json(&report)?;
    } else {
        print_line(&text(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The median time of a call, each from the same states.
fn median(model: &mut Predictor, function: Option<&str>, inputs: &Arrays, states: &Arrays, rounds: u32) -> Result<f64> {
    let mut seconds = Vec::new();
    for _ in 0..rounds {
        let mut states = states.clone();
        let start = Instant::now();
        model.predict(function, inputs, &mut states)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

/// What a model takes and returns.
fn describe(model: &Predictor, path: &Path, args: &Args) -> Result<()> {
    let [inputs, outputs, states] = model.ports(args.function.as_deref())?;
    if args.json {
        return print_json(&serde_json::json!({
            "model": path.display().to_string(),
            "functions": model.functions(),
            "inputs": inputs,
            "outputs": outputs,
            "states": states,
        }));
    }
    let mut lines = vec![format!("`{}`", path.display())];
    let functions = model.functions();
    if functions.len() > 1 {
        lines.push(format!("{:9} {}", "functions", functions.join(", ")));
    }
    for (what, ports) in [("input", inputs), ("state", states), ("output", outputs)] {
        for port in ports {
            let dtype = port.dtype.map_or("any", |dtype| dtype.name());
            let shape = port.shape.map_or_else(|| "[…]".to_string(), |shape| format!("{shape:?}"));
            lines.push(format!("{what:9} {} {dtype}{shape}", one_line(&port.name)));
        }
    }
    print_line(&lines.join("\n"))
}

fn rows(arrays: &Arrays) -> Vec<Row> {
    arrays.iter().map(|(name, array)| row(name, array)).collect()
}

fn row(name: &str, array: &Array) -> Row {
    let tensor = array.tensor();
    let finite: Vec<f64> = tensor.data.iter().copied().filter(|x| x.is_finite()).collect();
    let some = |value: f64| Some(value).filter(|_| !finite.is_empty());
    Row {
        name: name.into(),
        dtype: array.ty.dtype.name(),
        shape: array.ty.shape.clone(),
        min: some(finite.iter().copied().fold(f64::INFINITY, f64::min)),
        mean: some(finite.iter().sum::<f64>() / finite.len().max(1) as f64),
        max: some(finite.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        not_finite: tensor.data.len() - finite.len(),
    }
}

fn text(report: &Report) -> String {
    let mut lines = Vec::new();
    for (what, rows) in [("input", &report.inputs), ("state", &report.states), ("output", &report.outputs)] {
        for row in rows {
            let mut line = format!("{what:7} {} {}{:?}", one_line(&row.name), row.dtype, row.shape);
            if let (Some(min), Some(mean), Some(max)) = (row.min, row.mean, row.max) {
                line += &format!("  from {min:.6} to {max:.6}, mean {mean:.6}");
            }
            if row.not_finite > 0 {
                line += &format!("  {} NOT FINITE", row.not_finite);
            }
            lines.push(line);
        }
    }
    if let Some(seconds) = report.median_seconds {
        lines.push(format!("{:.3} ms a call", seconds * 1e3));
    }
    lines.join("\n")
}
