//! Transcoder sets of circuit-tracer: `config.yaml` beside one file a layer.
//!
//! ```text
//! <name>/config.yaml             model_kind, feature_input_hook, feature_output_hook, perhaps activation and k
//! <name>/layer_3.safetensors     W_enc [L, d], W_dec [L, d], b_enc, b_dec, perhaps W_skip [d, d] and
//!                                activation_function.threshold [L]
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::autoencoder::{self, Shape};
use super::bytes::read_text;
use super::error::CheckpointError;
use super::hooks;
use super::safetensors_file::TensorFile;
use super::table::{Entries, Order};
use super::{DictionaryOptions, normalization_or_none};
use crate::config::Config;
use crate::weights::{AutoencoderSite, AutoencoderWeights, LatentActivation, NamedAutoencoder};

const CONFIG: &str = "config.yaml";
const THRESHOLD: &str = "activation_function.threshold";

/// Whether this is the layout.
pub(super) fn is(folder: &Path) -> bool {
    folder.join(CONFIG).is_file()
}

pub(super) fn load(
    folder: &Path,
    name: &str,
    options: &DictionaryOptions,
    config: &Config,
) -> Result<NamedAutoencoder, CheckpointError> {
    let path = folder.join(CONFIG);
    let settings = settings(&read_text(&path)?);
    let value = |key: &str| settings.get(key).map(String::as_str).ok_or_else(|| CheckpointError::missing(&path, key));
    let unexpected = |key: &str, expected: &str, found: &str| CheckpointError::unexpected(&path, key, expected, found);
    let kind = value("model_kind")?;
    if kind != "transcoder_set" {
        return Err(unexpected("model_kind", "transcoder_set (latents that write in their own layer)", kind));
    }
    let site = site(&path, value("feature_input_hook")?, value("feature_output_hook")?, config)?;
    let activation = match settings.get("activation").map(String::as_str) {
        None | Some("" | "jump_relu" | "jumprelu") => Function::OfFile,
        Some("relu") => Function::Relu,
        Some("topk") => match value("k")?.parse() {
            Ok(k) if k > 0 => Function::TopK(k),
            _ => return Err(unexpected("k", "a whole number from 1 on", value("k")?)),
        },
        Some(other) => return Err(unexpected("activation", "relu, topk or jump_relu", other)),
    };
    let files = layer_files(folder);
    if files.is_empty() {
        return Err(CheckpointError::missing(folder, "layer_0.safetensors"));
    }
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
    /// JumpReLU where the file has a threshold, else ReLU.
    OfFile,
}

/// The settings at the top of the file that are a single value.
fn settings(text: &str) -> HashMap<String, String> {
    let line = |line: &str| {
        let (key, value) = line.split_once(':')?;
        let is_top = !key.is_empty() && !key.starts_with([' ', '\t', '-', '#']);
        let value = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
        let value = if matches!(value, "null" | "~") { "" } else { value };
        is_top.then(|| (key.trim().to_owned(), value.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

fn site(path: &Path, input: &str, output: &str, config: &Config) -> Result<AutoencoderSite, CheckpointError> {
    let reads = hooks::site_of_hook(input, config, false);
    let site = match reads {
        Some(AutoencoderSite::MlpIn) => AutoencoderSite::MlpTranscoder,
        Some(AutoencoderSite::MlpTranscoderOfNormalized) => AutoencoderSite::MlpTranscoderOfNormalized,
        _ => {
            let expected = "mlp.hook_in or ln2.hook_normalized";
            return Err(CheckpointError::unexpected(path, "feature_input_hook", expected, input));
        }
    };
    match hooks::site_of_hook(output, config, false) {
        Some(AutoencoderSite::ResidDeltaMlp) => Ok(site),
        _ => Err(CheckpointError::unexpected(path, "feature_output_hook", "hook_mlp_out or mlp.hook_out", output)),
    }
}

fn layer_files(folder: &Path) -> Vec<(usize, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let layer = |path: &Path| {
        path.file_name()?.to_str()?.strip_prefix("layer_")?.strip_suffix(".safetensors")?.parse::<usize>().ok()
    };
    let mut files: Vec<_> = entries.filter_map(|entry| Some((layer(&entry.path())?, entry.path()))).collect();
    files.sort();
    files
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
    let ignored = [THRESHOLD.to_owned(), "k".to_owned()];
    let known = "W_enc, W_dec, b_enc, b_dec, W_skip and activation_function.threshold";
    table.refuse_unknown(path, file.names().iter().map(String::as_str), &ignored, known)?;
    let activation = match function {
        Function::TopK(k) if k > shape.latents => {
            let expected = format!("at most the {} latents", shape.latents);
            return Err(CheckpointError::unexpected(path, "k", expected, k));
        }
        Function::TopK(k) => LatentActivation::TopK { k, relu: true },
        Function::OfFile if file.contains(THRESHOLD) => {
            let threshold = file.tensor(THRESHOLD)?.vector(shape.latents)?;
            LatentActivation::JumpRelu { threshold: threshold.into_iter().map(|x| x.max(0.0)).collect() }
        }
        _ => LatentActivation::Relu,
    };
    let table = table.look_up(path, |key| file.tensor(key))?;
    autoencoder::read(&table, shape, activation, normalization_or_none(options))
}
