//! Models as Hugging Face's `transformers` saves them.
//!
//! ```text
//! <model>/config.json
//! <model>/model.safetensors            or several files with model.safetensors.index.json
//!                                      or pytorch_model.bin, or several files with pytorch_model.bin.index.json
//! <model>/tokenizer.json               or vocab.json and merges.txt
//! ```
//!
//! A family of models is two things: how its `config.json` becomes a [`Config`], and a table of its tensors. A setting
//! or a tensor that the family does not have is refused: it would silently change what the model computes.

mod decoder;
mod gemma;
mod gpt2;
mod gpt_neo;
mod gpt_neox;
mod llama;
mod qwen;
mod rope;
mod settings;
mod tokenizer;

pub(super) use settings::{activation, local_or_global};

use std::path::Path;

use serde_json::{Map, Value as Json};

use super::Checkpoint;
use super::bytes::{Bytes, is_there, parse_json, read_json};
use super::error::CheckpointError;
use super::safetensors_file::TensorFile;
use super::settings::Settings;
use super::table::Entries;
use super::tensor_files::TensorFiles;
use crate::config::Config;
use crate::source::Weights;
use crate::tokenizer::Tokenizer;

/// What tells one family from another.
struct Family {
    /// The value of `model_type`.
    model_type: &'static str,
    config: fn(&Settings<'_>) -> Result<Config, CheckpointError>,
    /// All tensors but the unembedding, their keys without the prefix.
    tensors: fn(&Config) -> Entries,
    /// What may stand before these keys, and how the unembedding is called then.
    names: &'static [(&'static str, &'static str)],
    embedding: &'static str,
    /// Tensors of a layer that older versions saved although they follow from the settings.
    buffers: fn(layer: usize) -> Vec<String>,
    /// How the names of tensors begin that belong to parts which read no text.
    other_parts: &'static [&'static str],
}

const FAMILIES: [Family; 12] = [
    gpt2::FAMILY,
    gpt_neo::FAMILY,
    gpt_neox::FAMILY,
    llama::LLAMA,
    llama::MISTRAL,
    llama::SMOLLM3,
    qwen::QWEN2,
    qwen::QWEN3,
    gemma::GEMMA,
    gemma::GEMMA2,
    gemma::GEMMA3_TEXT,
    gemma::GEMMA3,
];

/// The names that most families have for what is below the unembedding, if it was not saved alone.
const MODEL: [(&str, &str); 2] = [("model.", "lm_head.weight"), ("", "lm_head.weight")];
/// Those of GPT-2 and its kin.
const TRANSFORMER: [(&str, &str); 2] = [("transformer.", "lm_head.weight"), ("", "lm_head.weight")];

/// How the names of tensors begin that other tasks add: classes, answers, values of reinforcement learning.
const HEADS: [&str; 6] = ["score.", "classifier.", "qa_outputs.", "multiple_choice_head.", "v_head.", "value_head."];

/// Reads a folder; matrices of 32-bit floats stay in its files.
///
/// # Errors
/// A setting, file or tensor that is missing, does not fit, or is not known, or an adapter beside the model.
pub fn load(folder: &Path) -> Result<Checkpoint, CheckpointError> {
    let adapter = folder.join("adapter_config.json");
    if is_there(&adapter) {
        let what = "an adapter changes what the model computes and is not read: merge it into the weights first \
                    (peft's `merge_and_unload`), or take it out of the folder";
        return Err(CheckpointError::damaged(&adapter, what));
    }
    let path = folder.join("config.json");
    let json = read_json(&path)?;
    let (family, config) = read_config(&Settings::new(&path, &json))?;
    let (weights, tokenizer) = rayon::join(
        || open_weights(family, &config, &TensorFiles::open(folder)?),
        || tokenizer::open(folder, family.model_type),
    );
    let origin = format!("{} (Hugging Face)", folder.display());
    let ((weights, notes), tokenizer) = (weights?, tokenizer?);
    let beginning = tokenizer::beginning(Some(folder), family.model_type, &tokenizer)?;
    Ok(Checkpoint { config, weights, tokenizer, beginning, origin, notes })
}

/// Reads a model whose three files are in memory, such as the one inside the program; `name` names it in errors.
///
/// # Errors
/// As [`load`].
pub fn from_bytes(
    name: &str,
    config: &[u8],
    safetensors: &'static [u8],
    tokenizer: &[u8],
) -> Result<Checkpoint, CheckpointError> {
    let folder = Path::new(name);
    let path = folder.join("config.json");
    let json = parse_json(&path, config)?;
    let (family, config) = read_config(&Settings::new(&path, &json))?;
    let file = TensorFile::from_bytes(&folder.join("model.safetensors"), Bytes::Static(safetensors))?;
    let (weights, notes) = open_weights(family, &config, &TensorFiles::single(file)?)?;
    let tokenizer = Tokenizer::from_bytes(&folder.join("tokenizer.json"), tokenizer)?;
    let beginning = tokenizer::beginning(None, family.model_type, &tokenizer)?;
    let origin = format!("{name} (inside the program)");
    Ok(Checkpoint { config, weights, tokenizer, beginning, origin, notes })
}

/// Is this object the kind of `config.json` that `transformers` writes?
pub(crate) fn is_config(config: &Map<String, Json>) -> bool {
    config.contains_key("model_type") || config.contains_key("n_embd") || config.contains_key("architectures")
}

fn read_config(settings: &Settings<'_>) -> Result<(&'static Family, Config), CheckpointError> {
    // The first files do not say what they are; the names of their settings do.
    let first_files = ["n_embd", "n_head", "n_layer"].iter().all(|key| settings.get(key).is_some());
    let model_type = match settings.get("model_type") {
        None if first_files => gpt2::FAMILY.model_type,
        _ => settings.text("model_type")?,
    };
    let family = FAMILIES.iter().find(|family| family.model_type == model_type).ok_or_else(|| {
        let known: Vec<&str> = FAMILIES.iter().map(|family| family.model_type).collect();
        settings.unexpected("model_type", &format!("one of {}", known.join(", ")))
    })?;
    Ok((family, (family.config)(settings)?))
}

/// The tensors, and what a person should know about those that were left out.
fn open_weights(
    family: &Family,
    config: &Config,
    files: &TensorFiles,
) -> Result<(Weights, Vec<String>), CheckpointError> {
    let shape = [config.n_vocab, config.d_model];
    let is_here = |names: &&(&str, &str)| files.contains(&format!("{}{}", names.0, family.embedding));
    let (prefix, unembedding) = *family.names.iter().find(is_here).unwrap_or(&family.names[0]);
    let prefixed = |key: String| format!("{prefix}{key}");
    let mut table = (family.tensors)(config);
    table.prefix_keys(prefix);
    let mut ignored: Vec<String> = (0..config.n_layers).flat_map(family.buffers).map(prefixed).collect();
    match config.tied {
        true => ignored.push(unembedding.to_owned()),
        false => table.tensor(unembedding, "unembed.weight", shape),
    }
    let is_other = |key: &str| HEADS.iter().chain(family.other_parts).any(|start| key.starts_with(start));
    let (others, ours): (Vec<&str>, Vec<&str>) = files.names().partition(|key| is_other(key));
    let known = format!("the tensors of a {} of {} layers", family.model_type, config.n_layers);
    table.refuse_unknown(files.path(), ours, &ignored, &known)?;
    let table = table.look_up(files.path(), |key| files.tensor(key))?;
    if config.tied && files.contains(unembedding) {
        let embedding = format!("{prefix}{}", family.embedding);
        expect_tied(files, unembedding, &embedding, shape)?;
    }
    let note = |first: &&str| {
        let count = others.len();
        format!("{}: {count} tensors of other tasks (`{first}` …) are left out", files.path().display())
    };
    Ok((table.into(), others.first().map(note).into_iter().collect()))
}

/// An unembedding that was saved although it is the token embedding has to be that.
fn expect_tied(files: &TensorFiles, key: &str, embedding: &str, shape: [usize; 2]) -> Result<(), CheckpointError> {
    let unembedding = files.tensor(key)?;
    unembedding.expect_shape(&shape)?;
    if unembedding.tensor.same_numbers(&files.tensor(embedding)?.tensor) {
        return Ok(());
    }
    let expected = format!("the same as `{embedding}`, since tie_word_embeddings is not false");
    Err(CheckpointError::unexpected(files.path(), key, expected, "another matrix"))
}
