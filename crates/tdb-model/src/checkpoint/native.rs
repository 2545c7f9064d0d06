//! Our own layout.
//!
//! A model is a folder of Hugging Face's layout ([`super::hugging_face`]), so that other tools read it too. An
//! autoencoder is a folder with one `safetensors` file a layer:
//!
//! ```text
//! <model>/autoencoders/<name>/<layer>.safetensors
//! ```
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `encoder` | `[n_latents, n_inputs]` | a latent's row is what it reads |
//! | `decoder` | `[n_latents, n_outputs]` | a latent's row is what it writes |
//! | `latent_bias` | `[n_latents]` | |
//! | `encoder_pre_bias` | `[n_inputs]` | subtracted from the input |
//! | `decoder_bias` | `[n_outputs]` | added to the reconstruction |
//! | `skip` | `[n_outputs, n_inputs]` | transcoders only, optional |
//! | `threshold` | `[n_latents]` | for `jump_relu` only |
//! | `activation_frequency` | `[n_latents]` | optional: how often each latent fired in training |
//!
//! Numbers are 32- or 16-bit floats. The header's `__metadata__` says `format` (`tdb-autoencoder`), `version` (`1`, or
//! `2` with a normalisation or a skip connection), `site` (a name of [`AutoencoderSite`]), `layer`, `activation`
//! (`relu`, `identity`, `topk` or `jump_relu`), for `topk`, `k` and `post_activation` (`relu` or `identity`), and in
//! version 2 `normalization` (a name of [`Normalization`]) and, for `layer-norm`, `epsilon`.

use std::path::{Path, PathBuf};

use super::autoencoder::{self, Shape};
use super::bytes::Bytes;
use super::error::CheckpointError;
use super::safetensors_file::TensorFile;
use super::safetensors_writer::{Numbers, Precision, write};
use super::table::{Entries, Order};
use crate::config::Config;
use crate::parallel;
use crate::weights::{AutoencoderSite, AutoencoderWeights, LatentActivation, NamedAutoencoder, Normalization};

pub use super::hugging_face::from_bytes;

const FORMAT: &str = "tdb-autoencoder";
const VERSION: &str = "1";
const VERSION_WITH_NORMALIZATION: &str = "2";
const TENSORS: &str = "encoder, decoder, latent_bias, encoder_pre_bias, decoder_bias, activation_frequency, skip and, \
                       for jump_relu, threshold";

/// Reads every `<folder>/<layer>.safetensors`.
///
/// # Errors
/// A file, tensor or setting that is missing, does not fit the model's shape, or is not known.
pub fn load_autoencoder(folder: &Path, name: &str, config: &Config) -> Result<NamedAutoencoder, CheckpointError> {
    let read = |(layer, path): &(usize, PathBuf)| {
        autoencoder::check_layer(path, *layer, config)?;
        let (site, weights) = read_layer(&TensorFile::open(path)?, *layer, config)?;
        Ok((*layer, site, weights, path.clone()))
    };
    let files = autoencoder::numbered_files(folder, "safetensors");
    autoencoder::of_layers(folder, name, parallel::try_map(files.len(), |i| read(&files[i]))?)
}

/// Reads an autoencoder whose files, one a layer, are in memory; `name` names it in errors.
///
/// # Errors
/// As [`load_autoencoder`].
pub fn autoencoder_from_bytes(
    name: &str,
    files: &[&'static [u8]],
    config: &Config,
) -> Result<NamedAutoencoder, CheckpointError> {
    let folder = Path::new(name);
    if files.len() != config.n_layers {
        let expected = format!("{}, as the model has", config.n_layers);
        return Err(CheckpointError::unexpected(folder, "number of layers", expected, files.len()));
    }
    let read = |(layer, &bytes): (usize, &&'static [u8])| {
        let path = layer_path(folder, layer);
        let (site, weights) = read_layer(&TensorFile::from_bytes(&path, Bytes::Static(bytes))?, layer, config)?;
        Ok((layer, site, weights, path))
    };
    let layers = files.iter().enumerate().map(read).collect::<Result<_, CheckpointError>>()?;
    autoencoder::of_layers(folder, name, layers)
}

/// Writes one file a layer into `folder`, which is made if it is missing.
///
/// # Errors
/// If a file cannot be written.
pub fn save_autoencoder(
    folder: &Path,
    autoencoder: &NamedAutoencoder,
    precision: Precision,
) -> Result<(), CheckpointError> {
    for (&index, layer) in autoencoder.indices.iter().zip(&autoencoder.layers) {
        let is_plain = layer.normalization == Normalization::None && layer.skip.is_none();
        let version = if is_plain { VERSION } else { VERSION_WITH_NORMALIZATION };
        let mut metadata = vec![
            ("format", FORMAT.to_owned()),
            ("version", version.to_owned()),
            ("site", autoencoder.site.name().to_owned()),
            ("layer", index.to_string()),
        ];
        let directions = layer.decoder.transpose();
        let mut tensors = vec![
            ("encoder", Numbers::Matrix(&layer.encoder)),
            ("decoder", Numbers::Matrix(&directions)),
            ("latent_bias", Numbers::Vector(&layer.latent_bias)),
            ("encoder_pre_bias", Numbers::Vector(&layer.encoder_pre_bias)),
            ("decoder_bias", Numbers::Vector(&layer.decoder_bias)),
        ];
        let activation = match &layer.activation {
            LatentActivation::Relu => "relu",
            LatentActivation::Identity => "identity",
            LatentActivation::TopK { k, relu } => {
                metadata.push(("k", k.to_string()));
                metadata.push(("post_activation", if *relu { "relu" } else { "identity" }.to_owned()));
                "topk"
            }
            LatentActivation::JumpRelu { threshold } => {
                tensors.push(("threshold", Numbers::Vector(threshold)));
                "jump_relu"
            }
        };
        metadata.push(("activation", activation.to_owned()));
        if !is_plain {
            metadata.push(("normalization", layer.normalization.name().to_owned()));
        }
        if let Normalization::LayerNorm { epsilon } = layer.normalization {
            metadata.push(("epsilon", epsilon.to_string()));
        }
        if let Some(skip) = &layer.skip {
            tensors.push(("skip", Numbers::Matrix(skip)));
        }
        if let Some(frequency) = &layer.activation_frequency {
            tensors.push(("activation_frequency", Numbers::Vector(frequency)));
        }
        write(&layer_path(folder, index), &metadata, &tensors, precision)?;
    }
    Ok(())
}

fn layer_path(folder: &Path, layer: usize) -> PathBuf {
    folder.join(format!("{layer}.safetensors"))
}

fn read_layer(
    file: &TensorFile,
    layer: usize,
    config: &Config,
) -> Result<(AutoencoderSite, AutoencoderWeights), CheckpointError> {
    let text = |key: &str| file.text(key).ok_or_else(|| CheckpointError::missing(file.path(), key));
    let unexpected = |key: &str, expected: &str, found: &str| {
        CheckpointError::unexpected(file.path(), key, expected, format!("\"{found}\""))
    };
    for (key, expected) in [("format", FORMAT), ("layer", &layer.to_string())] {
        let found = text(key)?;
        if found != expected {
            return Err(unexpected(key, expected, found));
        }
    }
    let refuse = |key: &str, expected: &str| match file.text(key) {
        None => Ok(()),
        Some(found) => Err(unexpected(key, expected, found)),
    };
    let normalization = match text("version")? {
        VERSION => {
            refuse("normalization", "absent in version 1")?;
            Normalization::None
        }
        VERSION_WITH_NORMALIZATION => read_normalization(file)?,
        other => return Err(unexpected("version", "1 or 2", other)),
    };
    let site = text("site")?;
    let site = AutoencoderSite::named(site).ok_or_else(|| unexpected("site", &AutoencoderSite::names(), site))?;
    let n_latents = autoencoder::n_latents(file.path(), &file.tensor("latent_bias")?)?;
    let activation = match text("activation")? {
        "relu" => LatentActivation::Relu,
        "identity" => LatentActivation::Identity,
        "topk" => LatentActivation::TopK {
            k: match text("k")?.parse() {
                Ok(k) if (1..=n_latents).contains(&k) => k,
                _ => return Err(unexpected("k", &format!("a whole number from 1 to {n_latents}"), text("k")?)),
            },
            relu: match text("post_activation")? {
                "relu" => true,
                "identity" => false,
                other => return Err(unexpected("post_activation", "relu or identity", other)),
            },
        },
        "jump_relu" => LatentActivation::JumpRelu { threshold: file.tensor("threshold")?.vector(n_latents)? },
        other => return Err(unexpected("activation", "relu, identity, topk or jump_relu", other)),
    };
    if !matches!(activation, LatentActivation::TopK { .. }) {
        refuse("k", "absent but for topk")?;
        refuse("post_activation", "absent but for topk")?;
    }
    if !matches!(normalization, Normalization::LayerNorm { .. }) {
        refuse("epsilon", "absent but for layer-norm")?;
    }
    let shape = Shape::of(site, config, n_latents);
    let mut table = Entries::default();
    table.tensor("encoder_pre_bias", "encoder_pre_bias", [shape.inputs]);
    table.tensor("encoder", "encoder.weight", [n_latents, shape.inputs]);
    table.tensor("latent_bias", "latent_bias", [n_latents]);
    table.matrix("decoder", "decoder.weight", [shape.outputs, n_latents], Order::InOut);
    table.tensor("decoder_bias", "decoder_bias", [shape.outputs]);
    if file.contains("skip") && site.is_transcoder() {
        table.tensor("skip", "skip.weight", [shape.outputs, shape.inputs]);
    }
    if file.contains("activation_frequency") {
        table.tensor("activation_frequency", "activation_frequency", [n_latents]);
    }
    let jumps = matches!(activation, LatentActivation::JumpRelu { .. });
    let threshold: Vec<String> = jumps.then(|| "threshold".to_owned()).into_iter().collect();
    table.refuse_unknown(file.path(), file.names().iter().map(String::as_str), &threshold, TENSORS)?;
    let table = table.look_up(file.path(), |key| file.tensor(key))?;
    Ok((site, autoencoder::read(&table, shape, activation, normalization)?))
}

fn read_normalization(file: &TensorFile) -> Result<Normalization, CheckpointError> {
    let text = |key: &str| file.text(key).ok_or_else(|| CheckpointError::missing(file.path(), key));
    let unexpected =
        |key: &str, expected: &str| CheckpointError::unexpected(file.path(), key, expected, text(key).unwrap_or("?"));
    match Normalization::named(text("normalization")?) {
        None => Err(unexpected("normalization", "none, centered, layer-norm or constant-norm")),
        Some(Normalization::LayerNorm { .. }) => match text("epsilon")?.parse() {
            Ok(epsilon) if (0.0..1.0).contains(&epsilon) => Ok(Normalization::LayerNorm { epsilon }),
            _ => Err(unexpected("epsilon", "a number from 0 on, below 1")),
        },
        Some(other) => Ok(other),
    }
}
