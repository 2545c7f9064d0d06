//! Transcoder sets of circuit-tracer: `config.yaml` beside one file a layer.
//!
//! ```text
//! <name>/config.yaml             model_kind, feature_input_hook, feature_output_hook, perhaps activation and k
//! <name>/layer_3.safetensors     W_enc [L, d], W_dec [L, d], b_enc, b_dec, perhaps W_skip [d, d] and
//!                                activation_function.threshold [L] or k
//! ```
//!
//! `activation` is `relu`, `topk` (the `k` largest, as they are) or `jump_relu`; without it latents are JumpReLU where
//! the file has a threshold, else ReLU. Of YAML only lines `key: value` and lists of values are understood, which is
//! what circuit-tracer writes; any other line is refused.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::autoencoder::{self, Shape};
use super::bytes::read_text;
use super::error::CheckpointError;
use super::hooks;
use super::safetensors_file::TensorFile;
use super::settings::Settings;
use super::table::{Entries, Order};
use super::{DictionaryOptions, normalization_or_none};
use crate::config::Config;
use crate::weights::{AutoencoderSite, AutoencoderWeights, LatentActivation, NamedAutoencoder};

const CONFIG: &str = "config.yaml";
const THRESHOLD: &str = "activation_function.threshold";
/// Another way to say `k`.
const K: &str = "k";

/// The file that says that this is the layout.
pub(super) fn find(folder: &Path) -> Option<PathBuf> {
    Some(folder.join(CONFIG)).filter(|path| path.is_file())
}

pub(super) fn load(
    folder: &Path,
    name: &str,
    options: &DictionaryOptions,
    config: &Config,
) -> Result<NamedAutoencoder, CheckpointError> {
    let path = folder.join(CONFIG);
    let yaml = parse(&path, &read_text(&path)?)?;
    let settings = Settings::new(&path, &yaml);
    if settings.text("model_kind")? != "transcoder_set" {
        return Err(settings.unexpected("model_kind", "transcoder_set (latents that write in their own layer)"));
    }
    let site = site(&settings, config)?;
    let activation = match settings.get("activation").map(|_| settings.text("activation")).transpose()? {
        None => Function::OfFile,
        Some("jump_relu" | "jumprelu") => Function::JumpRelu,
        Some("relu") => Function::Relu,
        Some("topk") => Function::TopK(settings.size("k")?),
        Some(_) => return Err(settings.unexpected("activation", "relu, topk or jump_relu")),
    };
    let read: &[&str] = if matches!(activation, Function::TopK(_)) { &["activation", "k"] } else { &["activation"] };
    autoencoder::refuse_what_is_not_read(&settings, read, &[])?;
    let files = layer_files(folder)?;
    if files.is_empty() {
        return Err(CheckpointError::missing(folder, "layer_0.safetensors"));
    }
    check_list(&settings, &files)?;
    let read = |(layer, path): (usize, PathBuf)| {
        autoencoder::check_layer(&path, layer, config)?;
        Ok((layer, site, read_layer(&path, site, activation, options, config)?, path))
    };
    let layers = files.into_iter().map(read).collect::<Result<_, CheckpointError>>()?;
    autoencoder::of_layers(folder, name, layers)
}

#[derive(Clone, Copy)]
enum Function {
    Relu,
    TopK(usize),
    JumpRelu,
    /// JumpReLU where the file has a threshold, else ReLU.
    OfFile,
}

/// The settings of a YAML file in which each is one value or a list of values.
fn parse(path: &Path, text: &str) -> Result<Map<String, Value>, CheckpointError> {
    let mut settings = Map::new();
    // The setting whose list may follow, and how far the list is indented.
    let mut open: Option<(String, Option<usize>)> = None;
    for (number, line) in text.lines().enumerate() {
        let understood = match line.trim_start() {
            "" => Some(()),
            rest if rest.starts_with('#') => Some(()),
            "---" if settings.is_empty() && line == "---" => Some(()),
            rest if rest.starts_with("- ") => item(&mut settings, &mut open, line.len() - rest.len(), &rest[2..]),
            _ => setting(line).filter(|(key, _)| !settings.contains_key(key)).map(|(key, value)| {
                open = value.is_null().then(|| (key.clone(), None));
                settings.insert(key, value);
            }),
        };
        if understood.is_none() {
            let expected = "a comment, `key: value` with a key of its own, or an item of a list of values";
            return Err(CheckpointError::unexpected(path, format!("line {}", number + 1), expected, line));
        }
    }
    Ok(settings)
}

/// An item of the list that is open.
fn item(
    settings: &mut Map<String, Value>,
    open: &mut Option<(String, Option<usize>)>,
    indent: usize,
    text: &str,
) -> Option<()> {
    let (key, before) = open.as_mut()?;
    if *before.get_or_insert(indent) != indent {
        return None;
    }
    let value = value(text)?;
    match settings.get_mut(key)? {
        Value::Array(list) => list.push(value),
        empty => *empty = Value::Array(vec![value]),
    }
    Some(())
}

/// `key: value`, from the line's beginning.
fn setting(line: &str) -> Option<(String, Value)> {
    let (key, rest) = match quoted(line) {
        Some((key, rest)) => (key, rest.trim_start().strip_prefix(':')?),
        None => line.split_once(':').map(|(key, rest)| (key.trim_end(), rest))?,
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let is_key = key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.chars().all(is_plain);
    let is_apart = rest.is_empty() || rest.starts_with([' ', '\t']);
    (is_key && is_apart).then(|| value(rest).map(|value| (key.to_owned(), value)))?
}

/// One value, with a comment behind it if there is one.
fn value(text: &str) -> Option<Value> {
    let text = text.trim();
    if let Some((inside, rest)) = quoted(text) {
        let is_all = rest.is_empty() || rest.starts_with([' ', '\t']) && rest.trim_start().starts_with('#');
        return is_all.then(|| Value::String(inside.to_owned()));
    }
    let comment = text.find(" #").or_else(|| text.find("\t#")).unwrap_or(text.len());
    let text = if text.starts_with('#') { "" } else { text[..comment].trim_end() };
    // What begins a list, an object, an anchor, a tag or a text of several lines, or stands for another key.
    let is_more = text.starts_with(['[', ']', '{', '}', '&', '*', '!', '|', '>', '%', '@', '`', '"', '\'', '?', ','])
        || text == "-"
        || text.starts_with("- ")
        || text.ends_with(':')
        || text.contains(": ")
        || text.contains('\t');
    Some(match text {
        _ if is_more => return None,
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        // Numbers as JSON has them.
        _ => match serde_json::from_str::<serde_json::Number>(text) {
            Ok(number) => Value::Number(number),
            Err(_) => Value::String(text.to_owned()),
        },
    })
}

/// What stands in quotes at the beginning, and the rest. Nothing in them may be escaped.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let mark = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let (inside, rest) = text[1..].split_once(mark)?;
    (!inside.contains('\\') && !rest.starts_with(mark)).then_some((inside, rest))
}

/// `transcoders` names the file of each layer from 0 on: those that lie here, no others.
fn check_list(settings: &Settings<'_>, files: &[(usize, PathBuf)]) -> Result<(), CheckpointError> {
    let Some(list) = settings.get("transcoders") else { return Ok(()) };
    let here: Vec<Value> = files.iter().map(|(_, path)| Value::String(autoencoder::name_of(path))).collect();
    let is_numbered = files.iter().enumerate().all(|(i, (layer, _))| i == *layer);
    match is_numbered && list.as_array() == Some(&here) {
        true => Ok(()),
        false => {
            let expected = "the files layer_0.safetensors, layer_1.safetensors and so on that lie beside config.yaml";
            Err(settings.unexpected("transcoders", expected))
        }
    }
}

fn site(settings: &Settings<'_>, config: &Config) -> Result<AutoencoderSite, CheckpointError> {
    let named = |key: &str| Ok(hooks::site_of_hook(settings.text(key)?, config, false));
    let site = match named("feature_input_hook")? {
        Some(AutoencoderSite::MlpIn) => AutoencoderSite::MlpTranscoder,
        Some(AutoencoderSite::MlpTranscoderOfNormalized) => AutoencoderSite::MlpTranscoderOfNormalized,
        _ => return Err(settings.unexpected("feature_input_hook", "mlp.hook_in or ln2.hook_normalized")),
    };
    match named("feature_output_hook")? {
        Some(AutoencoderSite::ResidDeltaMlp) => Ok(site),
        _ => Err(settings.unexpected("feature_output_hook", "hook_mlp_out or mlp.hook_out")),
    }
}

fn layer_files(folder: &Path) -> Result<Vec<(usize, PathBuf)>, CheckpointError> {
    let mut files = Vec::new();
    for path in autoencoder::entries(folder) {
        let name = autoencoder::name_of(&path);
        let Some(number) = name.strip_prefix("layer_").and_then(|name| name.strip_suffix(".safetensors")) else {
            continue;
        };
        match number.parse::<usize>() {
            Ok(layer) if layer.to_string() == number => files.push((layer, path)),
            _ => return Err(CheckpointError::unexpected(folder, &name, "layer_NUMBER.safetensors", number)),
        }
    }
    files.sort();
    Ok(files)
}

fn read_layer(
    path: &Path,
    site: AutoencoderSite,
    function: Function,
    options: &DictionaryOptions,
    config: &Config,
) -> Result<AutoencoderWeights, CheckpointError> {
    let file = TensorFile::open(path)?;
    let shape = Shape::of(site, config, autoencoder::n_latents(path, &file.tensor("b_enc")?)?);
    let mut table = Entries::default();
    table.matrix("W_enc", "encoder.weight", [shape.latents, shape.inputs], Order::OutIn);
    table.matrix("W_dec", "decoder.weight", [shape.outputs, shape.latents], Order::InOut);
    table.tensor("b_enc", "latent_bias", [shape.latents]);
    table.tensor("b_dec", "decoder_bias", [shape.outputs]);
    if file.contains("W_skip") {
        table.tensor("W_skip", "skip.weight", [shape.outputs, shape.inputs]);
    }
    // Those of the activation are as it says.
    let (jumps, own) = match function {
        Function::JumpRelu => (true, THRESHOLD),
        Function::OfFile => (file.contains(THRESHOLD), THRESHOLD),
        Function::TopK(_) => (false, K),
        Function::Relu => (false, ""),
    };
    if let Some(other) = [THRESHOLD, K].into_iter().find(|key| *key != own && file.contains(key)) {
        let expected = "absent: it belongs to another activation than config.yaml says";
        return Err(CheckpointError::unexpected(path, other, expected, "there"));
    }
    let known = "W_enc, W_dec, b_enc, b_dec, W_skip, activation_function.threshold and k";
    table.refuse_unknown(path, file.names().iter().map(String::as_str), &[own.to_owned()], known)?;
    let activation = match function {
        Function::TopK(k) if k > shape.latents => {
            let expected = format!("at most the {} latents", shape.latents);
            return Err(CheckpointError::unexpected(path, "k", expected, k));
        }
        Function::TopK(k) => {
            let saved = file.contains(K).then(|| file.tensor(K)?.whole_number()).transpose()?;
            if let Some(saved) = saved.filter(|&saved| usize::try_from(saved) != Ok(k)) {
                return Err(CheckpointError::unexpected(path, K, format!("{k}, as config.yaml says"), saved));
            }
            LatentActivation::TopK { k, relu: false }
        }
        _ if jumps => {
            let threshold = file.tensor(THRESHOLD)?.vector(shape.latents)?;
            // circuit-tracer applies no ReLU: negative latents would be let through.
            if let Some(index) = threshold.iter().position(|&x| x < 0.0) {
                let found = format!("{} at index {index}", threshold[index]);
                return Err(CheckpointError::unexpected(path, THRESHOLD, "at least 0", found));
            }
            LatentActivation::JumpRelu { threshold }
        }
        _ => LatentActivation::Relu,
    };
    let table = table.look_up(path, |key| file.tensor(key))?;
    autoencoder::read(&table, shape, activation, normalization_or_none(options))
}
