//! The tokenizer's files of a pipeline folder, brought into the one form that hosts read.

use std::path::Path;

use anyhow::{Context, Result, bail};
use s2dit_backends::input::{LARGEST_JSON, read_file, read_text};
use s2dit_runtime::pipeline::{AssetFile, TOKENIZER_FILE, Text, Tokenizer, TokenizerAsset};
use serde_json::{Value, json};

/// The files that are written: the tokenizer, and what transformers says of it, as it lies there.
pub(super) const FILES: [&str; 3] = [TOKENIZER_FILE, CONFIG, SPECIAL];
const CONFIG: &str = "tokenizer_config.json";
const SPECIAL: &str = "special_tokens_map.json";
const VOCABULARY: &str = "vocab.json";
const MERGES: &str = "merges.txt";
/// A tokenizer of SentencePiece.
const PIECES: &str = "spiece.model";
/// Far above any vocabulary: Gemma's has 34 MB.
const LARGEST: u64 = 256 << 20;

/// A tokenizer that was read and checked, in the form that hosts read.
#[derive(Debug)]
pub struct TokenizerFiles {
    /// The class that transformers names.
    class: String,
    /// The files under their names.
    files: Vec<(&'static str, Vec<u8>)>,
}

impl TokenizerFiles {
    /// Reads the tokenizer of the folder `source`, checks it against the text encoder's vocabulary, and completes `text` with the token that pads.
    pub(super) fn read(source: &Path, text: &mut Text) -> Result<TokenizerFiles> {
        let config = config(source)?;
        let config_path = source.join(CONFIG);
        let shown = config_path.display();
        for side in ["padding_side", "truncation_side"] {
            if let Some(found) = config.get(side).and_then(Value::as_str).filter(|found| *found != "right") {
                bail!("`{shown}`: field `{side}`: found {found:?}, expected \"right\"");
            }
        }
        let mut files = vec![(TOKENIZER_FILE, tokenizer_json(source)?)];
        for file in [CONFIG, SPECIAL] {
            let there = source.join(file);
            if there.is_file() {
                files.push((
                    file,
                    read_file(&there, LARGEST).with_context(|| format!("cannot read `{}`", there.display()))?,
                ));
            }
        }
        let whole = source.join(TOKENIZER_FILE);
        let path = if whole.is_file() { whole } else { source.join(VOCABULARY) };
        let opened = Tokenizer::parse(&files[0].1, &path, text.clone())?;
        let padding = said(&config, "pad_token").or_else(|| said(&special(source)?, "pad_token"));
        let Some(padding) = padding else {
            bail!("`{shown}`: field `pad_token`: found none, expected the token that pads a text");
        };
        text.padding = opened.id(&padding).with_context(|| {
            format!("`{shown}`: field `pad_token`: found {padding:?}, expected a token of the tokenizer")
        })?;
        // transformers gives these tokens the ids that stand here.
        for (id, token) in config.get("added_tokens_decoder").and_then(Value::as_object).into_iter().flatten() {
            let content = token.get("content").and_then(Value::as_str).unwrap_or_default();
            if let Some(known) = opened.id(content).filter(|known| known.to_string() != *id) {
                bail!(
                    "`{shown}`: field `added_tokens_decoder`: found {id} for the token {content:?}, expected {known}, as `{}` has it",
                    path.display()
                );
            }
        }
        let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default().into();
        Ok(TokenizerFiles { class, files })
    }

    /// Writes the files to the new folder `name` in `dir`.
    pub(super) fn write(&self, dir: &Path, name: &str) -> Result<TokenizerAsset> {
        let to = dir.join(name);
        std::fs::create_dir(&to).with_context(|| format!("cannot write `{}`", to.display()))?;
        for (file, bytes) in &self.files {
            let place = to.join(file);
            std::fs::write(&place, bytes).with_context(|| format!("cannot write `{}`", place.display()))?;
        }
        let files = self.files.iter().map(|(file, _)| AssetFile::of(dir, &format!("{name}/{file}")));
        Ok(TokenizerAsset { path: name.into(), class: self.class.clone(), files: files.collect::<Result<_, _>>()? })
    }

    /// The files under their names, and the blake3 of each in hexadecimal digits.
    pub fn hashes(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.files.iter().map(|(file, bytes)| (*file, blake3::hash(bytes).to_hex().to_string()))
    }
}

/// The `tokenizer.json` of a folder of transformers: as it lies there, or built of CLIP's vocabulary and merges.
///
/// # Errors
/// Neither; files that cannot be read; a tokenizer of another class without the file.
pub fn tokenizer_json(source: &Path) -> Result<Vec<u8>> {
    let shown = source.display();
    let tokenizer = source.join(TOKENIZER_FILE);
    if tokenizer.is_file() {
        return read_file(&tokenizer, LARGEST).with_context(|| format!("cannot read `{}`", tokenizer.display()));
    }
    if source.join(VOCABULARY).is_file() && source.join(MERGES).is_file() {
        return byte_pairs(source, &config(source)?);
    }
    let found = if source.join(PIECES).is_file() { PIECES } else { "no file of a tokenizer" };
    bail!(
        "`{shown}`: found {found}, expected {TOKENIZER_FILE}, or {VOCABULARY} with {MERGES}; write it with: python -c \"from transformers import AutoTokenizer; AutoTokenizer.from_pretrained('{shown}').save_pretrained('{shown}')\""
    );
}

fn json_of(path: &Path) -> Result<Value> {
    let text = read_text(path, LARGEST_JSON).with_context(|| format!("cannot read `{}`", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("`{}`: not JSON", path.display()))
}

fn config(source: &Path) -> Result<Value> {
    let path = source.join(CONFIG);
    if path.is_file() { json_of(&path) } else { Ok(Value::Null) }
}

fn special(source: &Path) -> Option<Value> {
    json_of(&source.join(SPECIAL)).ok()
}

/// A token that a configuration names: as a text, or as an object with its `content`.
fn said(config: &Value, field: &str) -> Option<String> {
    let value = config.get(field)?;
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}

/// CLIP's tokenizer of its vocabulary and merges, as transformers builds it.
fn byte_pairs(source: &Path, config: &Value) -> Result<Vec<u8>> {
    let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or("CLIPTokenizer");
    if !class.starts_with("CLIPTokenizer") {
        bail!(
            "`{}`: field `tokenizer_class`: found {class:?} without {TOKENIZER_FILE}, expected CLIPTokenizer, which is built from {VOCABULARY} and {MERGES}",
            source.join(CONFIG).display()
        );
    }
    let vocabulary = source.join(VOCABULARY);
    let text = read_file(&vocabulary, LARGEST).with_context(|| format!("cannot read `{}`", vocabulary.display()))?;
    let vocab: Value =
        serde_json::from_slice(&text).with_context(|| format!("`{}`: not JSON", vocabulary.display()))?;
    if !vocab.is_object() {
        bail!("`{}`: found no JSON object, expected one of tokens and their ids", vocabulary.display());
    }
    let merges = source.join(MERGES);
    let lines = read_text(&merges, LARGEST).with_context(|| format!("cannot read `{}`", merges.display()))?;
    let mut pairs = Vec::new();
    for (i, line) in lines.lines().enumerate().filter(|(_, line)| !line.starts_with("#version") && !line.is_empty()) {
        let known = |token: &str| !token.is_empty() && vocab.get(token).is_some();
        if !line.split_once(' ').is_some_and(|(a, b)| known(a) && known(b) && known(&format!("{a}{b}"))) {
            bail!(
                "`{}`: line {}: found {line:?}, expected two tokens of {VOCABULARY} with a space between, which together are a token too (is the file cut short?)",
                merges.display(),
                i + 1
            );
        }
        pairs.push(line);
    }
    let token = |field: &str, usual: &str| said(config, field).unwrap_or_else(|| usual.to_owned());
    let (start, end) = (token("bos_token", "<|startoftext|>"), token("eos_token", "<|endoftext|>"));
    let (unknown, padding) = (token("unk_token", "<|endoftext|>"), token("pad_token", "<|endoftext|>"));
    let id = |token: &str| {
        vocab.get(token).and_then(Value::as_u64).with_context(|| {
            format!("`{}`: found no token {token:?}, expected one, as `{CONFIG}` names it", vocabulary.display())
        })
    };
    let mut added: Vec<(u64, &str)> = Vec::new();
    for token in [&start, &end, &unknown, &padding] {
        let entry = (id(token)?, token.as_str());
        if !added.contains(&entry) {
            added.push(entry);
        }
    }
    added.sort_unstable();
    let added: Vec<Value> = added
        .into_iter()
        .map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let built = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {
                "type": "Split",
                "pattern": {"Regex": r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"},
                "behavior": "Removed",
                "invert": true,
            },
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [end, id(&end)?],
            "cls": [start, id(&start)?],
            "trim_offsets": false,
            "add_prefix_space": false,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "fuse_unk": false,
            "byte_fallback": false,
            "vocab": vocab,
            "merges": pairs,
        },
    });
    Ok((serde_json::to_string_pretty(&built)? + "\n").into_bytes())
}
