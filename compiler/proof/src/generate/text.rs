//! Prompts as a pipeline's transformer takes them: tokenized and encoded, with the text encoder in memory no longer than that.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use s2dit_ir::interface::OutputRole;
use s2dit_runtime::pipeline::{EncoderMask, Part, Pipeline};
use s2dit_runtime::{Artifact, HostTensor, RunOptions};

use super::{Report, Stage, Watch, timed};
use crate::stream::clip::Prompt;

/// Prompts that were encoded, under their texts.
pub(super) struct Texts(BTreeMap<String, Prompt>);

impl Texts {
    /// Encodes prompts, each once.
    pub(super) fn encoded<'p>(
        pipeline: &Pipeline,
        prompts: impl IntoIterator<Item = &'p str>,
        run: &RunOptions,
        watch: Watch<'_>,
        report: &mut Report,
    ) -> Result<Texts> {
        let text = &pipeline.contract().text;
        let path = pipeline.part(Part::TextEncoder)?;
        let tokenizer = pipeline.tokenizer()?;
        let mut tokens = BTreeMap::new();
        for prompt in prompts {
            if tokens.contains_key(prompt) {
                continue;
            }
            let made = tokenizer.encode(prompt)?;
            if let Some(cut) = &made.cut {
                report.notes.push(format!("a prompt was cut to {} tokens: {cut}", text.tokens));
            }
            tokens.insert(prompt.to_owned(), made);
        }
        drop(tokenizer);
        let mut stage = Stage::new(Part::TextEncoder);
        let total = tokens.len() as u64;
        watch(Part::TextEncoder, 0, total);
        let artifact = Artifact::open(&path)?;
        let interface = artifact.interface()?;
        // An encoder of fp16 keeps its numbers as the engine stores them if that was asked for.
        let fp16 = run.fp16 && artifact.has_fp16();
        let mut session =
            timed(&mut stage.load_seconds, || Ok(artifact.session(&RunOptions { fp16, ..run.clone() })?))?;
        let mut prompts = BTreeMap::new();
        for (prompt, tokens) in tokens {
            let mask = match text.encoder_mask {
                EncoderMask::None => None,
                EncoderMask::Tokens => Some(tokens.mask()),
                EncoderMask::Ones => {
                    let ones = tokens.mask();
                    Some(HostTensor { data: vec![1.0; ones.data.len()], shape: ones.shape })
                }
            };
            let name = |role: Option<&str>, what: &str| {
                role.map(str::to_owned).with_context(|| format!("`{}`: no input that is {what}", path.display()))
            };
            let mut inputs = BTreeMap::from([(name(interface.tokens(), "token ids")?, tokens.tensor())]);
            if let Some(mask) = mask {
                inputs.insert(name(interface.text_mask(), "a text mask")?, mask);
            }
            let mut made = timed(&mut stage.seconds, || Ok(session.run(&inputs)?))?;
            stage.calls += 1;
            let mut take = |role: OutputRole| {
                let output = interface.outputs.iter().find(|output| output.role == role)?;
                made.remove(&output.name)
            };
            let embeddings = take(OutputRole::Text).with_context(|| format!("`{}` returns no text", path.display()))?;
            let shape = [1, text.tokens, text.width];
            if embeddings.shape != shape {
                bail!(
                    "`{}`: found text {:?}, expected {shape:?}, as the pipeline says: a part of another compile",
                    path.display(),
                    embeddings.shape
                );
            }
            if embeddings.data.iter().any(|x| !x.is_finite()) {
                bail!("`{}`: the embeddings of {prompt:?} have NaN or infinite elements", path.display());
            }
            let pooled = if text.pooled { take(OutputRole::Pooled) } else { None };
            let mask = text.step_mask.then(|| tokens.mask());
            watch(Part::TextEncoder, stage.calls as u64, total);
            prompts.insert(prompt, Prompt { text: embeddings, mask, pooled });
        }
        report.stages.push(stage);
        Ok(Texts(prompts))
    }

    /// A prompt that was encoded.
    pub(super) fn of(&self, prompt: &str) -> Result<Prompt> {
        self.0.get(prompt).cloned().with_context(|| format!("the prompt {prompt:?} was not encoded"))
    }
}
