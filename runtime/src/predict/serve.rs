//! Predictions for another process: a request a line in, an answer a line out, as JSON.
//!
//! ```text
//! {"model": "m.mlpackage", "inputs": "in.npz", "outputs": "out.npz"}                     → {"outputs": "out.npz"}
//! {"model": "m.mlpackage", "function": "step", "inputs": …, "states": "s.npz", …}        → {"error": "input `x`: …"}
//! ```
//! `states` is read, if it is there, and written. A model stays open until another one is asked for, or `{"close": true}`.

use std::fs::File;
use std::io::{BufRead, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use s2dit_files::arrays::{self, Arrays, Format};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Options, Predictor};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    model: Option<PathBuf>,
    function: Option<String>,
    inputs: Option<PathBuf>,
    outputs: Option<PathBuf>,
    states: Option<PathBuf>,
    #[serde(default)]
    fp16: bool,
    #[serde(default)]
    close: bool,
}

/// Answers requests until there are no more.
///
/// # Errors
/// A reader or a writer that fails. What is wrong with a request is its answer.
pub fn serve(requests: impl BufRead, mut answers: impl Write, options: &Options) -> std::io::Result<()> {
    let mut open: Option<(PathBuf, bool, Predictor)> = None;
    for line in requests.lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let answer = answer(&line, options, &mut open).unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        writeln!(answers, "{answer}")?;
        answers.flush()?;
    }
    Ok(())
}

fn answer(line: &str, options: &Options, open: &mut Option<(PathBuf, bool, Predictor)>) -> Result<Value> {
    let request: Request = serde_json::from_str(line).context("a request")?;
    if request.close {
        *open = None;
        return Ok(json!({ "closed": true }));
    }
    let path = request.model.context("a request without `model`")?;
    if !open.as_ref().is_some_and(|(old, fp16, _)| *old == path && *fp16 == request.fp16) {
        *open = None;
        let options = Options { fp16: request.fp16, ..options.clone() };
        *open = Some((path.clone(), request.fp16, Predictor::open(&path, &options)?));
    }
    let (_, _, model) = open.as_mut().context("no model is open")?;
    let function = request.function.as_deref();
    let inputs = match &request.inputs {
        Some(path) => arrays::read(path)?,
        None => Arrays::new(),
    };
    let mut states = model.new_states(function)?;
    if let Some(path) = request.states.as_ref().filter(|path| path.exists()) {
        states = arrays::read(path)?;
    }
    let outputs = model.predict(function, &inputs, &mut states)?;
    let to = request.outputs.context("a request without `outputs`")?;
    write(&to, &outputs)?;
    if let Some(path) = &request.states {
        write(path, &states)?;
    }
    Ok(json!({ "outputs": to }))
}

fn write(path: &Path, values: &Arrays) -> Result<()> {
    let format = Format::of(path)?;
    let file = File::create(path).with_context(|| format!("cannot write `{}`", path.display()))?;
    arrays::write(format, values, BufWriter::new(file)).with_context(|| format!("cannot write `{}`", path.display()))
}
