//! How a checkpoint is read: the flags that every command has which takes one.

use std::path::{Path, PathBuf};

use s2dit_models::checkpoint::{Checkpoint, Lora, Origin};

use super::print_note;

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
}

impl WeightArgs {
    /// The checkpoint at a path.
    pub(super) fn origin(&self, path: &Path) -> Origin {
        Origin {
            path: path.to_owned(),
            config: self.config.clone(),
            state_dict: self.state_dict.clone(),
            loras: self.lora.clone(),
        }
    }

    /// Whether any of the flags was given.
    pub(super) fn is_given(&self) -> bool {
        self.config.is_some() || self.state_dict.is_some() || !self.lora.is_empty()
    }

    /// The files that the flags name.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.config.iter().chain(self.lora.iter().map(|lora| &lora.path))
    }
}

/// Says on standard error how a checkpoint was read, if it was not read as diffusers writes it.
pub(super) fn note(checkpoint: &Checkpoint) {
    for lora in checkpoint.loras() {
        print_note(&format!("note: {} merged {} time(s) into {} tensors", lora.file, lora.scale, lora.tensors));
    }
    let is_folder = checkpoint.path().is_dir();
    if !is_folder || !checkpoint.naming().is_plain() {
        print_note(&format!("note: read {}: {}", checkpoint.format(), checkpoint.naming()));
    }
}
