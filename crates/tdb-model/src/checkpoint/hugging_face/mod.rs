//! Models as Hugging Face's `transformers` saves them.
//!
//! ```text
//! <model>/config.json
//! <model>/model.safetensors            or several files with model.safetensors.index.json
//! <model>/tokenizer.json
//! ```
//!
//! A family of models is two things: how its `config.json` becomes a [`Config`], and a table of its tensors. A setting
//! or a tensor that the family does not have is refused: it would silently change what the model computes.

mod gpt2;
mod gpt_neox;
mod settings;

use std::path::Path;

use serde_json::{Map, Value as Json};

use super::Checkpoint;
use super::bytes::{Bytes, parse_json, read_json};
use super::error::CheckpointError;
use super::safetensors_file::{TensorFile, TensorFiles};
use super::settings::Settings;
use super::table::Entries;
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
    /// What stands before these keys, unless only the part below the unembedding was saved.
    prefix: &'static str,
    embedding: &'static str,
    unembedding: &'static str,
    /// Tensors of a layer that older versions saved although they follow from the settings.
    buffers: fn(layer: usize) -> Vec<String>,
}

const FAMILIES: [Family; 2] = [gpt2::FAMILY, gpt_neox::FAMILY];

/// Reads a folder; matrices of 32-bit floats stay in its files.
///
/// # Errors
/// A setting, file or tensor that is missing, does not fit, or is not known.
pub fn load(folder: &Path) -> Result<Checkpoint, CheckpointError> {
    let path = folder.join("config.json");
    let json = read_json(&path)?;
    let (family, config) = read_config(&Settings::new(&path, &json))?;
    let (weights, tokenizer) = rayon::join(
        || open_weights(family, &config, &TensorFiles::open(folder, "model")?),
        || Tokenizer::from_file(&folder.join("tokenizer.json")),
    );
    let origin = format!("{} (Hugging Face)", folder.display());
    Ok(Checkpoint { config, weights: weights?, tokenizer: tokenizer?, origin })
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
    let weights = open_weights(family, &config, &TensorFiles::single(file)?)?;
    let tokenizer = Tokenizer::from_bytes(&folder.join("tokenizer.json"), tokenizer)?;
    Ok(Checkpoint { config, weights, tokenizer, origin: format!("{name} (inside the program)") })
}

/// Is this object the kind of `config.json` that `transformers` writes?
pub(crate) fn is_config(config: &Map<String, Json>) -> bool {
    config.contains_key("model_type") || config.contains_key("n_embd") || config.contains_key("architectures")
}

fn read_config(settings: &Settings<'_>) -> Result<(&'static Family, Config), CheckpointError> {
    let model_type = settings.text("model_type")?;
    let family = FAMILIES.iter().find(|family| family.model_type == model_type).ok_or_else(|| {
        let known: Vec<String> = FAMILIES.iter().map(|family| format!("\"{}\"", family.model_type)).collect();
        settings.unexpected("model_type", &known.join(" or "))
    })?;
    Ok((family, (family.config)(settings)?))
}

fn open_weights(family: &Family, config: &Config, files: &TensorFiles) -> Result<Weights, CheckpointError> {
    let shape = [config.n_vocab, config.d_model];
    let embedding = format!("{}{}", family.prefix, family.embedding);
    let prefix = if files.contains(&embedding) { family.prefix } else { "" };
    let prefixed = |key: String| format!("{prefix}{key}");
    let mut table = (family.tensors)(config);
    table.prefix_keys(prefix);
    let mut ignored: Vec<String> = (0..config.n_layers).flat_map(family.buffers).map(prefixed).collect();
    match config.tied {
        true => ignored.push(family.unembedding.to_owned()),
        false => table.tensor(family.unembedding, "unembed.weight", shape),
    }
    let known = format!("the tensors of a {} of {} layers", family.model_type, config.n_layers);
    table.refuse_unknown(files.path(), files.names(), &ignored, &known)?;
    let table = table.look_up(files.path(), |key| files.tensor(key))?;
    if config.tied && files.contains(family.unembedding) {
        let embedding = format!("{prefix}{}", family.embedding);
        expect_tied(files, family.unembedding, &embedding, shape)?;
    }
    Ok(table.into())
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
