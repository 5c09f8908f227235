//! The `config.json` of transformers, which has more fields than an encoder's forward pass asks for.

use serde_json::Value;

/// Fields that every configuration of transformers may have, of today's versions and of older ones, and that do not change what an encoder
/// computes: names, training, and the sampling of text.
const IDLE: &[&str] = &[
    "add_cross_attention",
    "architectures",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
];

/// The entries of a configuration that are left for an encoder: without [`IDLE`] fields and those of its class in `training` that its
/// forward pass does not ask for, unless it `reads` them.
pub(crate) fn entries_of_encoder(
    entries: Vec<(String, Value)>,
    reads: &[&str],
    training: &[&str],
) -> Vec<(String, Value)> {
    let idle = |name: &str| !reads.contains(&name) && (IDLE.contains(&name) || training.contains(&name));
    entries.into_iter().filter(|(name, _)| !idle(name)).collect()
}
