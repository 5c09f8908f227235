//! The model of the demo: a trained pipeline folder and what PyTorch makes with it, both inside the program.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use s2dit_backends::input::read_file;
use serde_json::{Map, Value};

/// A file inside the program: its name in the demo's folder, and its bytes.
type Embedded = (&'static str, &'static [u8]);

macro_rules! pipeline {
    ($($name:literal),* $(,)?) => {
        [$((concat!("toyworld/", $name), include_bytes!(concat!("../../../../examples/toyworld/weights/toyworld/", $name)))),*]
    };
}

/// The pipeline folder of the toy world, as `examples/toyworld` trained it.
const PIPELINE: &[Embedded] = &pipeline![
    "model_index.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];

/// The pipeline folder in the demo's.
pub(super) const PIPELINE_NAME: &str = "toyworld";
/// The golden in the demo's folder.
pub(super) const GOLDEN_NAME: &str = "golden.safetensors";
/// A caption of the toy world.
pub(super) const PROMPT: &str = "three small cyan squares moving up on a black background";
/// Another one.
pub(super) const ANOTHER_PROMPT: &str = "a large red circle moving up on a black background";

/// Recorded noise, a prompt's embedding, and the chunks that the PyTorch reference makes of them in float64.
const GOLDEN: Embedded = (GOLDEN_NAME, include_bytes!("../../../../examples/toyworld/weights/golden.safetensors"));

/// Rows and columns of the pipeline's pixels.
pub(super) const PIXELS: [usize; 2] = [64, 64];

/// Whether a run of the demo has begun in a folder: there is the first file that it writes.
pub(super) fn is_begun(folder: &Path) -> bool {
    PIPELINE.first().is_some_and(|(name, _)| folder.join(name).exists())
}

/// The words of a prompt that are no words of the toy world: its vocabulary has each of them as one token.
///
/// # Errors
/// A damaged vocabulary in the program.
pub(super) fn strange_words(prompt: &str) -> Result<Vec<&str>> {
    let vocabulary = PIPELINE.iter().find(|(name, _)| name.ends_with("/vocab.json"));
    let vocabulary = vocabulary.map_or(b"{}".as_slice(), |(_, bytes)| bytes);
    let vocabulary: Map<String, Value> = serde_json::from_slice(vocabulary)?;
    let words = prompt.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    // Each letter is a token too.
    let known = |word: &str| match word.chars().count() {
        1 => word == "a",
        _ => vocabulary.contains_key(&format!("{word}</w>")),
    };
    Ok(words.filter(|word| !known(&word.to_lowercase())).collect())
}

/// Writes the pipeline folder and the golden into the demo's folder. Returns the bytes.
///
/// # Errors
/// A file there of the same name that is another one; a folder that cannot be written.
pub(super) fn write(folder: &Path) -> Result<u64> {
    let all = || PIPELINE.iter().chain([&GOLDEN]);
    for (name, bytes) in all() {
        let path = folder.join(name);
        if path.exists() && read_file(&path, bytes.len() as u64).ok().as_deref() != Some(*bytes) {
            bail!(
                "`{}` is not the demo's: expected an empty folder, or that of another run of this demo; name one with -o",
                path.display()
            );
        }
    }
    for (name, bytes) in all() {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make `{}`", parent.display()))?;
        }
        std::fs::write(&path, bytes).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(PIPELINE.iter().map(|(_, bytes)| bytes.len() as u64).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_outside_the_toy_world_are_found() {
        for prompt in [PROMPT, ANOTHER_PROMPT, "Three SMALL blue triangles, spinning on a white background."] {
            assert!(strange_words(prompt).unwrap().is_empty(), "{prompt}");
        }
        assert_eq!(strange_words("a red dragon, x flying on a black background").unwrap(), ["dragon", "x", "flying"]);
    }
}
