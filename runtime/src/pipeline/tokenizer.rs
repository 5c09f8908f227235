//! A pipeline's tokenizer: a prompt to token ids, as transformers makes them of `tokenizer.json`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use s2dit_backends::input::read_file;
use serde_json::Value;
use tokenizers::normalizers::Precompiled;
use tokenizers::{Encoding, TruncationParams};

use super::Text;
use crate::{Error, HostTensor};

/// The file of a tokenizer, in the format of the library `tokenizers`.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// Far above any vocabulary: Gemma's has 34 MB.
const LARGEST: u64 = 256 << 20;

/// A tokenizer with the length of a pipeline's text.
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    text: Text,
}

/// A prompt as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// As many ids as the text has tokens: the prompt's and padding behind them.
    pub ids: Vec<u32>,
    /// The number of ids that are not padding: at least 1.
    pub counting: usize,
    /// What of the prompt was cut off.
    pub cut: Option<Cut>,
}

/// The end of a prompt that is too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Tokens that were left out.
    pub tokens: usize,
    /// The text that was kept.
    pub kept: String,
    /// The text that was left out.
    pub text: String,
}

/// Characters of a text that are shown on each side of a cut.
const SHOWN: usize = 24;

/// `3188 were left out, from "walks through the snow…" on, after "…a cat"`
impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kept, left) = (self.kept.chars().count(), self.text.chars().count());
        let before: String = self.kept.chars().skip(kept.saturating_sub(SHOWN)).collect();
        let after: String = self.text.chars().take(SHOWN).collect();
        let (dots_before, dots_after) = (if kept > SHOWN { "…" } else { "" }, if left > SHOWN { "…" } else { "" });
        let before = format!("{dots_before}{before}");
        write!(f, "{} were left out, from {:?} on, after {before:?}", self.tokens, format!("{after}{dots_after}"))
    }
}

impl Tokens {
    /// `tokens [1,L]`, what a text encoder takes.
    #[must_use]
    pub fn tensor(&self) -> HostTensor {
        HostTensor { shape: vec![1, self.ids.len()], data: self.ids.iter().map(|id| *id as f32).collect() }
    }

    /// `text_mask [1,L]`: 1 where a token counts, 0 where it is padding.
    #[must_use]
    pub fn mask(&self) -> HostTensor {
        crate::text_mask::of_first(&[1, self.ids.len()], self.counting)
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Opens the file `path`, a `tokenizer.json`; `text` is the pipeline's.
    ///
    /// # Errors
    /// A file that cannot be read, or is no tokenizer; ids that the text encoder does not know; padding that is no token; a text too short for the
    /// tokens around a prompt.
    pub fn open(path: &Path, text: Text) -> Result<Tokenizer, Error> {
        let opened = || {
            let bytes = read_file(path, LARGEST).with_context(|| format!("cannot read `{}`", path.display()))?;
            let tokenizer = Tokenizer::of(&bytes, path, text)?;
            let padding = tokenizer.text.padding;
            if tokenizer.inner.id_to_token(padding).is_none() {
                bail!(
                    "`{}`: found no token of the id {padding}, expected one, as `text.padding` of the pipeline says: the tokenizer is of another pipeline",
                    path.display()
                );
            }
            Ok(tokenizer)
        };
        opened().map_err(Error::artifact)
    }

    /// Reads the contents of a `tokenizer.json`, for which the padding of `text` is not known yet; `path` is for errors.
    ///
    /// # Errors
    /// See [`Tokenizer::open`].
    pub fn parse(bytes: &[u8], path: &Path, text: Text) -> Result<Tokenizer, Error> {
        Tokenizer::of(bytes, path, text).map_err(Error::artifact)
    }

    fn of(bytes: &[u8], path: &Path, text: Text) -> Result<Tokenizer> {
        let shown = path.display();
        let (mut inner, value) = parsed(bytes).with_context(|| format!("`{shown}`: not a tokenizer"))?;
        if let Some((token, id)) = beyond(&inner, text.vocabulary) {
            bail!(
                "`{shown}`: found the token {token:?} with id {id}, expected ids below {}, as the text encoder knows them: the tokenizer is of another model",
                text.vocabulary
            );
        }
        check_added(&value, &inner).with_context(|| format!("`{shown}`"))?;
        inner.with_padding(None);
        let around =
            quietly(|| inner.encode("", true).map(|encoding| encoding.len())).with_context(|| format!("`{shown}`"))?;
        if around >= text.tokens {
            bail!(
                "`{shown}`: found {around} tokens around a prompt, expected fewer than the {} of the text",
                text.tokens
            );
        }
        let cut = TruncationParams { max_length: text.tokens, ..TruncationParams::default() };
        if let Err(error) = inner.with_truncation(Some(cut)) {
            bail!("`{shown}`: {error}");
        }
        Ok(Tokenizer { path: path.into(), inner, text })
    }

    /// The id of a token.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token ids of a prompt, cleaned as the pipeline does, with the tokens around it, cut or padded to the length of the text.
    ///
    /// # Errors
    /// A tokenizer that fails on the prompt, or makes nothing of it.
    pub fn encode(&self, prompt: &str) -> Result<Tokens, Error> {
        self.encoded(prompt).with_context(|| format!("`{}`", self.path.display())).map_err(Error::input)
    }

    fn encoded(&self, prompt: &str) -> Result<Tokens> {
        let prompt = self.text.cleaning.clean(prompt);
        let encoding = quietly(|| self.inner.encode(prompt.as_str(), true))?;
        let mut ids = encoding.get_ids().to_vec();
        let counting = ids.len();
        if counting == 0 {
            bail!("found no token in the prompt {prompt:?}, expected at least one");
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.text.vocabulary) {
            bail!(
                "found the token id {id}, expected ids below {}, as the text encoder knows them",
                self.text.vocabulary
            );
        }
        ids.resize(self.text.tokens, self.text.padding);
        let left = encoding.get_overflowing();
        let own =
            |encoding: &Encoding| encoding.get_special_tokens_mask().iter().filter(|&&special| special == 0).count();
        let tokens: usize = left.iter().map(own).sum();
        let start = left.iter().find_map(|encoding| {
            let own = encoding.get_special_tokens_mask().iter().position(|&special| special == 0)?;
            encoding.get_offsets().get(own).map(|(start, _)| *start)
        });
        let (kept, text) = start.and_then(|start| prompt.split_at_checked(start)).unwrap_or((&prompt, ""));
        let cut = Cut { tokens, kept: kept.trim().to_owned(), text: text.trim().to_owned() };
        Ok(Tokens { ids, counting, cut: (tokens > 0).then_some(cut) })
    }
}

/// The token of the greatest id, if a text encoder of so many ids does not know it. Vocabularies may have fewer ids than the encoder.
fn beyond(tokenizer: &tokenizers::Tokenizer, vocabulary: usize) -> Option<(String, u32)> {
    let last = tokenizer.get_vocab(true).into_iter().max_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)))?;
    (last.1 as usize >= vocabulary).then_some(last)
}

/// Parses a tokenizer, also as JSON. The library panics on some damage, which is looked for first.
fn parsed(bytes: &[u8]) -> Result<(tokenizers::Tokenizer, Value)> {
    let value: Value = serde_json::from_slice(bytes).context("not JSON")?;
    check_tables(&value)?;
    Ok((quietly(|| tokenizers::Tokenizer::from_bytes(bytes))?, value))
}

/// Checks that tokens which are added to the vocabulary have the ids that the file says: the library gives them others without a word.
fn check_added(value: &Value, tokenizer: &tokenizers::Tokenizer) -> Result<()> {
    let added = value.get("added_tokens").and_then(Value::as_array);
    for (index, token) in added.into_iter().flatten().enumerate() {
        let Some((id, content)) = token.get("id").zip(token.get("content").and_then(Value::as_str)) else { continue };
        let known = tokenizer.token_to_id(content);
        if known.map(u64::from) != id.as_u64() {
            let known = known.map_or("none".to_owned(), |known| known.to_string());
            bail!(
                "field `added_tokens[{index}].id`: found {id} for the token {content:?}, expected {known}, its id in the vocabulary"
            );
        }
    }
    Ok(())
}

/// Checks the tables of characters in a value and all inside it.
fn check_tables(value: &Value) -> Result<()> {
    match value {
        Value::Object(fields) => {
            if fields.get("type").is_some_and(|kind| kind == "Precompiled") {
                serde_json::from_str::<Precompiled>(&value.to_string()).context("a damaged table of characters")?;
            }
            fields.values().try_for_each(check_tables)
        }
        Value::Array(values) => values.iter().try_for_each(check_tables),
        _ => Ok(()),
    }
}

/// Calls the library, whose panics become errors.
fn quietly<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(done) => done.map_err(|error| anyhow!("{error}")),
        Err(_) => bail!("the tokenizer library does not take it"),
    }
}
