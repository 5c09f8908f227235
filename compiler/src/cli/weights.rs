//! How a checkpoint is read: the flags that every command has which takes one.

use std::path::{Path, PathBuf};

use anyhow::Result;
use s2dit_files::hub::{Fetching, Hub, RepositoryName};
use s2dit_files::problems::Problems;
use s2dit_files::size;
use s2dit_import::{Ask, Binding, GivenInput, GivenOutput};
use s2dit_models::checkpoint::{Checkpoint, Lora, Origin, Wanted, locate};

use super::progress::Progress;
use super::terminal::one_line;
use super::{Context, print_note};
use crate::errors::About as _;

/// How a checkpoint is read.
#[derive(clap::Args)]
pub(super) struct WeightArgs {
    /// Configuration in place of the one that lies with the weights [default: config.json beside them]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which dictionary of tensors to take of a PyTorch checkpoint with several, such as generator_ema
    /// [default: the only one with names of the model]
    #[arg(long, value_name = "NAME")]
    state_dict: Option<String>,
    /// Merge a LoRA file, or PEFT's folder with one, into the weights, SCALE times [default: 1]; repeatable
    #[arg(long, value_name = "FILE[:SCALE]")]
    lora: Vec<Lora>,
    /// Role of a graph's input: latent=x, time=t[:LOW:HIGH], text=y, text_mask=m, tokens=ids[:VOCABULARY], image=i, pooled=p,
    /// guidance=g or other=z; repeatable [default: guessed from names and shapes, which inspect shows]
    #[arg(long, value_name = "ROLE=NAME")]
    input: Vec<GivenInput>,
    /// Role of a graph's result: velocity=v, video=v, text=t, pooled=p, embedding=e or other=y; repeatable
    #[arg(long, value_name = "ROLE=NAME")]
    result: Vec<GivenOutput>,
    /// Value of a graph's symbolic size, such as s0=77; repeatable
    #[arg(long, value_name = "SIZE=N")]
    bind: Vec<Binding>,
    /// Fetch nothing: of the Hugging Face hub take only what its cache has
    #[arg(long)]
    offline: bool,
}

impl WeightArgs {
    /// The checkpoint at a path. Where nothing lies the path is the name of a repository on the Hugging Face hub: what is `wanted` of it is taken from
    /// the cache, or fetched.
    ///
    /// # Errors
    /// See [`locate`].
    pub(super) fn origin(&self, path: &Path, wanted: Wanted<'_>, context: Context) -> Result<Origin, Problems> {
        let path = match RepositoryName::of(path) {
            Some(name) => locate(&name, wanted, &Hub::from_env(self.offline), &mut watch(&name, context.quiet))?,
            None => path.to_owned(),
        };
        Ok(Origin {
            path,
            config: self.config.clone(),
            state_dict: self.state_dict.clone(),
            loras: self.lora.clone(),
            ask: Ask { inputs: self.input.clone(), outputs: self.result.clone(), bind: self.bind.clone() },
        })
    }

    /// Errors that name a LoRA file are about it: a command reads other files too.
    ///
    /// # Errors
    /// The error itself, with the same words.
    pub(super) fn about<T>(&self, result: Result<T>) -> Result<T> {
        self.lora.iter().fold(result, |result, lora| result.about_file(Some(&lora.path), "E0109"))
    }

    /// Whether any of the flags that say how was given.
    pub(super) fn is_given(&self) -> bool {
        self.says_more_than_loras() || !self.lora.is_empty()
    }

    /// Whether a flag was given that says more than which adapters are merged.
    pub(super) fn says_more_than_loras(&self) -> bool {
        let of_graphs = !self.input.is_empty() || !self.result.is_empty() || !self.bind.is_empty();
        self.config.is_some() || self.state_dict.is_some() || of_graphs
    }

    /// The files that the flags name.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.config.iter().chain(self.lora.iter().map(|lora| &lora.path))
    }
}

/// Fewer bytes are fetched without a word, if something was said before.
const LITTLE: u64 = 1_000_000;

/// Says on standard error what is fetched of a repository, and how far it is.
fn watch(name: &RepositoryName, quiet: bool) -> impl FnMut(Fetching<'_>) {
    let progress = Progress::bytes("fetching", quiet);
    let mut said = quiet;
    move |fetching| match fetching {
        Fetching::Bytes(done, total) => progress.set(done, total),
        Fetching::Begins { bytes, .. } if quiet || said && bytes < LITTLE => {}
        Fetching::Begins { files, bytes, from, to } => {
            said = true;
            let (bytes, to) = (size(bytes), to.display());
            progress.above(&format!("note: {name}: fetching {files} file(s), {bytes}, from {from} into `{to}`"));
        }
    }
}

/// Says on standard error how a checkpoint was read, if it was not read as diffusers writes it.
pub(super) fn note(checkpoint: &Checkpoint) {
    for lora in checkpoint.loras() {
        print_note(&format!("note: {} merged {} time(s) into {} tensors", lora.file, lora.scale, lora.tensors));
    }
    if let Some(graph) = checkpoint.model().graph() {
        let guessed = match graph.guessed() {
            [] => String::new(),
            names => format!("; guessed what is in {} (see s2ditc inspect)", names.join(", ")),
        };
        print_note(&format!("note: read {}{}", one_line(graph.format()), one_line(&guessed)));
        return;
    }
    let is_folder = checkpoint.path().is_dir();
    if !is_folder || !checkpoint.naming().is_plain() {
        print_note(&format!("note: read {}: {}", checkpoint.format(), checkpoint.naming()));
    }
}
