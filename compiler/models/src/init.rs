//! Checkpoints with seeded random weights, streamed to disk.
//!
//! The bytes depend on the configuration, the seed and the element type alone: every chunk of a tensor has a
//! random stream of its own, whichever thread draws it.

mod place;
mod plan;
mod random;

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use s2dit_backends::output::{Destination, OutputError, Staged, free_bytes};
use serde_json::json;

use crate::checkpoint::CONFIG_FILE;
use crate::model::Model;
pub use place::MARK;
use plan::{Plan, Shard};
use s2dit_files::problems::{Problem, Problems};
use s2dit_files::{FloatType, INDEX_ENDING, size};

/// A request for a new checkpoint.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// The model whose tensors are drawn.
    pub model: Arc<dyn Model>,
    /// Seed of every random stream.
    pub seed: u64,
    /// Element type of every tensor.
    pub dtype: FloatType,
    /// Most bytes of tensors in a file; beyond it the checkpoint is sharded. See [`s2dit_files::parse_size`].
    pub max_shard_size: u64,
    /// Replace a checkpoint that `init` did not make.
    pub force: bool,
    /// Threads that draw and write; the bytes do not depend on it.
    pub threads: usize,
}

/// The default of [`InitOptions::max_shard_size`], 5 GB.
pub const DEFAULT_SHARD_SIZE: u64 = 5_000_000_000;

/// The summary of what was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitSummary {
    /// Weight files.
    pub files: usize,
    /// Tensors.
    pub tensors: usize,
    /// Parameters.
    pub parameters: u64,
    /// Bytes of weight files.
    pub bytes: u64,
}

/// Called now and then, from several threads, with the bytes written and the bytes in all.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Elements of a chunk: 4 MiB of f32 in memory at a time, per thread.
const CHUNK: usize = 1 << 20;

/// Makes a checkpoint folder. It appears whole or not at all.
///
/// An empty folder is filled. A checkpoint that `init` made is replaced; any other checkpoint only with
/// [`InitOptions::force`]. A folder with anything else in it is never touched.
///
/// # Errors
/// The folder may not be replaced, or cannot be written; the disk has less room than the weights need.
pub fn init(options: &InitOptions, dir: &Path, progress: Progress) -> Result<InitSummary, Problems> {
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|error| unplaceable(dir, &OutputError::Io { path: dir.into(), error }))?;
    }
    let to = Destination { path: dir, force: options.force };
    let staged = Staged::folder(to, &place::CONTENTS).map_err(|error| unplaceable(dir, &error))?;
    let summary = write_checkpoint(options, staged.path(), progress).map_err(|mut problems| {
        // The staging folder is gone when this is read; what matters is where the files were to go.
        for problem in &mut problems.0 {
            if let Ok(file) = Path::new(&problem.place).strip_prefix(staged.path()) {
                let place = if file.as_os_str().is_empty() { dir.to_path_buf() } else { dir.join(file) };
                problem.place = place.display().to_string();
            }
        }
        problems
    })?;
    staged.commit().map_err(|error| unplaceable(dir, &error))?;
    Ok(summary)
}

fn unplaceable(dir: &Path, error: &OutputError) -> Problems {
    let expected = match error {
        OutputError::Foreign { .. } => "a new or empty folder (or --force, to replace it)",
        OutputError::Occupied { .. } => "a new or empty folder, or a checkpoint to replace",
        _ => "a folder that can be made",
    };
    Problems::one(dir.display().to_string(), error.reason(), expected)
}

/// Writes a checkpoint into an existing folder, without care for what is in it.
///
/// # Errors
/// The files cannot be written.
pub fn write_checkpoint(options: &InitOptions, dir: &Path, progress: Progress) -> Result<InitSummary, Problems> {
    let plan = Plan::new(&*options.model, options.dtype, options.max_shard_size)
        .map_err(|error| Problems::one(dir.display().to_string(), error.to_string(), "tensors that files can hold"))?;
    let needed: u64 = plan.shards.iter().map(Shard::file_size).sum();
    if let Some(free) = free_bytes(dir).filter(|free| *free < needed) {
        let expected = format!("{} for the weights ({needed} bytes)", size(needed));
        return Err(Problems::one(
            dir.display().to_string(),
            format!("{} free on the disk ({free} bytes)", size(free)),
            expected,
        ));
    }
    for shard in &plan.shards {
        create(&dir.join(&shard.file), shard)?;
    }
    fill(options, &plan, dir, progress)?;
    if let [_, _, ..] = plan.shards.as_slice() {
        let whole = options.model.family().part().weights_file();
        write_text(&dir.join(format!("{whole}{INDEX_ENDING}")), &plan.index())?;
    }
    // Last, so that a folder without it is known to be unfinished.
    write_text(&dir.join(CONFIG_FILE), &config_text(options))?;
    Ok(InitSummary {
        files: plan.shards.len(),
        tensors: plan.shards.iter().map(|shard| shard.tensors.len()).sum(),
        parameters: plan.data_bytes() / options.dtype.dtype().size() as u64,
        bytes: needed,
    })
}

fn config_text(options: &InitOptions) -> String {
    let mut config = options.model.config();
    config[MARK] = json!({ "seed": options.seed, "dtype": options.dtype.name() });
    format!("{config:#}\n")
}

/// Creates a weight file with its header, at full length.
fn create(path: &Path, shard: &Shard) -> Result<(), Problems> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(shard.layout.header())?;
        file.set_len(shard.file_size())
    };
    write().map_err(|error| unwritable(path, &error, shard.file_size()))
}

fn write_text(path: &Path, text: &str) -> Result<(), Problems> {
    std::fs::write(path, text).map_err(|error| unwritable(path, &error, text.len() as u64))
}

fn unwritable(path: &Path, error: &std::io::Error, bytes: u64) -> Problems {
    Problem { place: path.display().to_string(), found: error.to_string(), expected: format!("to write {bytes} bytes") }
        .into()
}

/// A chunk of a tensor, and where it goes.
struct Job<'a> {
    shard: &'a Shard,
    path: &'a Path,
    tensor: usize,
    chunk: usize,
}

/// Draws and writes all chunks, in the order of the files.
fn fill(options: &InitOptions, plan: &Plan, dir: &Path, progress: Progress) -> Result<(), Problems> {
    let paths: Vec<PathBuf> = plan.shards.iter().map(|shard| dir.join(&shard.file)).collect();
    let jobs: Vec<Job> = plan
        .shards
        .iter()
        .zip(&paths)
        .flat_map(|(shard, path)| {
            shard.tensors.iter().enumerate().flat_map(move |(tensor, (spec, _))| {
                let chunks = spec.elements().div_ceil(CHUNK);
                (0..chunks).map(move |chunk| Job { shard, path, tensor, chunk })
            })
        })
        .collect();

    let total = plan.data_bytes();
    let next = AtomicUsize::new(0);
    let written = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let failure: Mutex<Option<Problems>> = Mutex::new(None);
    let work = || {
        let mut values = Vec::with_capacity(CHUNK);
        let mut bytes = Vec::with_capacity(CHUNK * 4);
        while !failed.load(Ordering::Relaxed) {
            let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            let (spec, offset) = &job.shard.tensors[job.tensor];
            let first = job.chunk * CHUNK;
            let count = CHUNK.min(spec.elements() - first);
            random::draw(spec, options.seed, job.chunk, count, &mut values);
            random::encode(&values, options.dtype, &mut bytes);
            let at = offset + (first * options.dtype.dtype().size()) as u64;
            if let Err(error) = write_at(job.path, at, &bytes) {
                failed.store(true, Ordering::Relaxed);
                let problem = unwritable(job.path, &error, job.shard.file_size());
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(problem);
                break;
            }
            let count = bytes.len() as u64;
            progress(written.fetch_add(count, Ordering::Relaxed) + count, total);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..options.threads.min(jobs.len()) {
            scope.spawn(work);
        }
        work();
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(problems) => Err(problems),
        None => Ok(()),
    }
}

/// Opens the file anew: positional writes through one handle differ between systems, and this costs nothing beside
/// a chunk.
fn write_at(path: &Path, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests;
