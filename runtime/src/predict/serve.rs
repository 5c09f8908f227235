//! Predictions for another process: a request a line in, an answer a line out, as JSON.
//!
//! ```text
//! {"model": "m.mlpackage", "inputs": "in.npz", "outputs": "out.npz"}                     → {"outputs": "out.npz"}
//! {"model": "m.mlpackage", "function": "step", "inputs": …, "states": "s.npz", …}        → {"error": "input `x`: …"}
//! ```
//! `states` is read, if it is there, and written. A model stays open until another one is asked for, or `{"close": true}`.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use s2dit_backends::output::{Destination, Staged};
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
pub fn serve(mut requests: impl BufRead, mut answers: impl Write, options: &Options) -> std::io::Result<()> {
    let mut server = Server::default();
    while let Some(line) = line(&mut requests)? {
        let answer = line.and_then(|line| match line.trim() {
            "" => Ok(None),
            line => server.answer(line, options).map(Some),
        });
        if let Some(answer) = answer.unwrap_or_else(|error| Some(json!({ "error": format!("{error:#}") }))) {
            writeln!(answers, "{answer}")?;
            answers.flush()?;
        }
    }
    Ok(())
}

/// Far above any request.
const LONGEST: u64 = 1 << 20;

/// The next line, or what is wrong with it; `None` at the end.
fn line(requests: &mut impl BufRead) -> std::io::Result<Option<Result<String>>> {
    let mut line = Vec::new();
    if requests.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.len() as u64 == LONGEST && line.last() != Some(&b'\n') {
        let mut rest = Vec::new();
        while requests.by_ref().take(LONGEST).read_until(b'\n', &mut rest)? > 0 && rest.last() != Some(&b'\n') {
            rest.clear();
        }
        return Ok(Some(Err(anyhow!("found a request of more than {LONGEST} bytes, expected a line of JSON"))));
    }
    Ok(Some(String::from_utf8(line).map_err(|_| anyhow!("found a request that is not UTF-8, expected a line of JSON"))))
}

/// What stays between requests.
#[derive(Default)]
struct Server {
    /// The model that is open, with its path and its arithmetic.
    open: Option<(PathBuf, bool, Predictor)>,
    /// Files that were written here: they may be written again.
    written: HashSet<PathBuf>,
}

impl Server {
    fn answer(&mut self, line: &str, options: &Options) -> Result<Value> {
        let request: Request = serde_json::from_str(line).context("a request")?;
        let open = &mut self.open;
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
        let to = request.outputs.context("a request without `outputs`")?;
        let written = [("outputs", Some(&to)), ("states", request.states.as_ref())];
        for (field, written) in written.into_iter().filter_map(|(field, path)| Some((field, path?))) {
            let others = [Some(&path), request.inputs.as_ref(), request.states.as_ref().filter(|_| field == "outputs")];
            if let Some(other) = others.into_iter().flatten().find(|other| lies_in(written, other)) {
                let (found, other) = (written.display(), other.display());
                bail!(
                    "{field}: found `{found}`, which is or lies in `{other}`, which the request reads; expected a place of its own"
                );
            }
        }
        let inputs = match &request.inputs {
            Some(path) => arrays::read_within(path, model.most_bytes(function)?)?,
            None => Arrays::new(),
        };
        let mut states = model.new_states(function)?;
        if let Some(path) = request.states.as_ref().filter(|path| path.exists()) {
            states = arrays::read_within(path, model.most_bytes(function)?)?;
        }
        let outputs = model.predict(function, &inputs, &mut states)?;
        let mut staged = vec![self.staged(&to, &outputs)?];
        if let Some(path) = &request.states {
            staged.push(self.staged(path, &states)?);
        }
        Staged::commit_all(staged)?;
        self.written.extend([Some(to.clone()), request.states].into_iter().flatten());
        Ok(json!({ "outputs": to }))
    }

    fn staged(&self, path: &Path, values: &Arrays) -> Result<Staged> {
        stage(Destination { force: self.written.contains(path), ..Destination::new(path) }, values)
    }
}

/// Whether a file would be another one, or lie in that folder, links followed.
fn lies_in(file: &Path, other: &Path) -> bool {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let there = fs::canonicalize(file).ok().or_else(|| Some(fs::canonicalize(parent).ok()?.join(file.file_name()?)));
    there.zip(fs::canonicalize(other).ok()).is_some_and(|(file, other)| file.starts_with(other))
}

/// Arrays in a file beside its place. One that is there is replaced if this program made it, or by force.
///
/// # Errors
/// A name that ends in no format of arrays; a place that is taken or cannot be written.
pub fn stage(to: Destination<'_>, values: &Arrays) -> Result<Staged> {
    let format = Format::of(to.path)?;
    let staged = Staged::file(to, &arrays::is_ours)?;
    let file = File::create(staged.path()).map_err(anyhow::Error::from);
    let done = file.and_then(|file| Ok(arrays::write(format, values, BufWriter::new(file))?));
    done.with_context(|| format!("cannot write `{}`", to.path.display()))?;
    Ok(staged)
}
