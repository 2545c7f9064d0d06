//! Settings that several families have.

use serde_json::Value;

use crate::checkpoint::CheckpointError;
use crate::checkpoint::settings::Settings;
use crate::config::Activation;

/// Settings that any configuration may have and that change nothing in what a model computes from a prompt: names, how
/// training and sampling go, dropout.
const NEUTRAL: [&str; 86] = [
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "_commit_hash",
    "_from_model_config",
    "_name_or_path",
    "_num_labels",
    "architectures",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_implementation",
    "attn_pdrop",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "cache_implementation",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "embd_pdrop",
    "embed_dropout",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "hidden_dropout_prob",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "is_composition",
    "is_decoder",
    "label2id",
    "language",
    "length_penalty",
    "license",
    "max_length",
    "min_length",
    "model_parallel",
    "name_or_path",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "resid_dropout",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "type_vocab_size",
    "typical_p",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
    "use_return_dict",
];

/// Refuses a setting that is set and neither one of the family's nor neutral: nobody knows what it changes.
pub(super) fn refuse_unknown(settings: &Settings<'_>, family: &[&str]) -> Result<(), CheckpointError> {
    if settings.flag("is_encoder_decoder", false)? {
        return Err(settings.unexpected("is_encoder_decoder", "false"));
    }
    if settings.get("quantization_config").is_some() {
        let expected = "absent: quantised weights are not read; take the checkpoint that was quantised";
        return Err(settings.unexpected("quantization_config", expected));
    }
    let known = |key: &str| family.contains(&key) || NEUTRAL.contains(&key) || key == "is_encoder_decoder";
    // Heads that were taken out, by layer; nearly every older file says that there are none.
    let no_heads =
        |key: &str| key == "pruned_heads" && settings.object(key).is_ok_and(|o| o.is_none_or(|o| o.is_empty()));
    match settings.keys().find(|key| !known(key) && !no_heads(key) && settings.get(key).is_some()) {
        None => Ok(()),
        Some(key) => Err(CheckpointError::unknown(settings.path(), key, family.join(", "))),
    }
}

/// The window of a layer that is said to be `"local"` or `"global"`; `None` if it is said to be something else.
pub(in crate::checkpoint) fn local_or_global(kind: &Value, window: usize) -> Option<Option<usize>> {
    match kind.as_str() {
        Some("global") => Some(None),
        Some("local") => Some(Some(window)),
        _ => None,
    }
}

/// As [`activation`]; `absent` where no setting says it.
pub(super) fn activation_or(
    settings: &Settings<'_>,
    key: &str,
    absent: Activation,
) -> Result<Activation, CheckpointError> {
    if settings.get(key).is_some() { activation(settings, key) } else { Ok(absent) }
}

/// A nonlinearity by the name that `transformers` has for it.
pub(in crate::checkpoint) fn activation(settings: &Settings<'_>, key: &str) -> Result<Activation, CheckpointError> {
    match settings.text(key)? {
        // Four ways of writing the same formula.
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_accurate" => Ok(Activation::GeluTanh),
        "gelu" | "gelu_python" => Ok(Activation::Gelu),
        "silu" | "swish" => Ok(Activation::Silu),
        "relu" => Ok(Activation::Relu),
        _ => {
            let known = "\"gelu\", \"gelu_new\", \"gelu_fast\", \"gelu_pytorch_tanh\", \"silu\", \"swish\" or \"relu\"";
            Err(settings.unexpected(key, known))
        }
    }
}

/// A positive number that stands in one or several of these places, everywhere the same; with the first that has it.
pub(super) fn agreed_number<'a, 'b>(
    places: &[(Settings<'a>, &'b str)],
) -> Result<(f64, (Settings<'a>, &'b str)), CheckpointError> {
    let mut agreed = None;
    for (settings, key) in places.iter().filter(|(settings, key)| settings.get(key).is_some()) {
        let number = settings.positive(key)?;
        let (first, _) = *agreed.get_or_insert((number, (*settings, *key)));
        if first != number {
            return Err(settings.unexpected(key, &format!("{first}, as elsewhere in the file")));
        }
    }
    let names = || places.iter().map(|(settings, key)| settings.name(key)).collect::<Vec<_>>().join("` or `");
    agreed.ok_or_else(|| CheckpointError::missing(places[0].0.path(), names()))
}
