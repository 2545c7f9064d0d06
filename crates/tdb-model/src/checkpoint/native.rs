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
//! | `decoder` | `[n_latents, n_inputs]` | a latent's row is what it writes |
//! | `latent_bias` | `[n_latents]` | |
//! | `encoder_pre_bias` | `[n_inputs]` | subtracted from the input |
//! | `decoder_bias` | `[n_inputs]` | added to the reconstruction |
//! | `threshold` | `[n_latents]` | for `jump_relu` only |
//! | `activation_frequency` | `[n_latents]` | optional: how often each latent fired in training |
//!
//! Numbers are 32- or 16-bit floats. The header's `__metadata__` says `format` (`tdb-autoencoder`), `version` (`1`),
//! `site` (`mlp_post_act`, `resid_delta_mlp` or `resid_delta_attn`), `layer`, `activation` (`relu`, `identity`, `topk`
//! or `jump_relu`) and, for `topk`, `k` and `post_activation` (`relu` or `identity`).

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::autoencoder;
use super::bytes::Bytes;
use super::error::CheckpointError;
use super::safetensors_file::TensorFile;
use super::safetensors_writer::{Numbers, Precision, write};
use super::table::{Entries, Order};
use crate::config::Config;
use crate::weights::{AutoencoderSite, AutoencoderWeights, LatentActivation, NamedAutoencoder};

pub use super::hugging_face::from_bytes;

const FORMAT: &str = "tdb-autoencoder";
const VERSION: &str = "1";
const TENSORS: &str = "encoder, decoder, latent_bias, encoder_pre_bias, decoder_bias, activation_frequency and, for \
                       jump_relu, threshold";

/// Reads `<folder>/<layer>.safetensors` for every layer of the model.
///
/// # Errors
/// A file, tensor or setting that is missing, does not fit the model's shape, or is not known.
pub fn load_autoencoder(folder: &Path, name: &str, config: &Config) -> Result<NamedAutoencoder, CheckpointError> {
    let open = |layer: usize| TensorFile::open(&layer_path(folder, layer));
    let layers: Vec<Result<_, CheckpointError>> =
        (0..config.n_layers).into_par_iter().map(|layer| read_layer(&open(layer)?, layer, config)).collect();
    same_site(folder, name, layers.into_iter().collect::<Result<_, _>>()?)
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
        read_layer(&TensorFile::from_bytes(&layer_path(folder, layer), Bytes::Static(bytes))?, layer, config)
    };
    let layers = files.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    same_site(folder, name, layers)
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
    for (index, layer) in autoencoder.layers.iter().enumerate() {
        let mut metadata = vec![
            ("format", FORMAT.to_owned()),
            ("version", VERSION.to_owned()),
            ("site", site_name(autoencoder.site).to_owned()),
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

fn site_name(site: AutoencoderSite) -> &'static str {
    match site {
        AutoencoderSite::MlpPostAct => "mlp_post_act",
        AutoencoderSite::ResidDeltaMlp => "resid_delta_mlp",
        AutoencoderSite::ResidDeltaAttn => "resid_delta_attn",
    }
}

fn same_site(
    folder: &Path,
    name: &str,
    layers: Vec<(AutoencoderSite, AutoencoderWeights)>,
) -> Result<NamedAutoencoder, CheckpointError> {
    // A model has at least one layer, see `Config`.
    let site = layers.first().map_or(AutoencoderSite::ResidDeltaMlp, |(site, _)| *site);
    if let Some(layer) = layers.iter().position(|(other, _)| *other != site) {
        let expected = format!("{}, as in layer 0", site_name(site));
        return Err(CheckpointError::unexpected(
            &layer_path(folder, layer),
            "site",
            expected,
            site_name(layers[layer].0),
        ));
    }
    Ok(NamedAutoencoder { name: name.to_owned(), site, layers: layers.into_iter().map(|(_, layer)| layer).collect() })
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
    for (key, expected) in [("format", FORMAT), ("version", VERSION), ("layer", &layer.to_string())] {
        let found = text(key)?;
        if found != expected {
            return Err(unexpected(key, expected, found));
        }
    }
    let site = match text("site")? {
        "mlp_post_act" => AutoencoderSite::MlpPostAct,
        "resid_delta_mlp" => AutoencoderSite::ResidDeltaMlp,
        "resid_delta_attn" => AutoencoderSite::ResidDeltaAttn,
        other => return Err(unexpected("site", "mlp_post_act, resid_delta_mlp or resid_delta_attn", other)),
    };
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
    let n_inputs = site.width(config);
    let mut table = Entries::default();
    table.tensor("encoder_pre_bias", "encoder_pre_bias", [n_inputs]);
    table.tensor("encoder", "encoder.weight", [n_latents, n_inputs]);
    table.tensor("latent_bias", "latent_bias", [n_latents]);
    table.matrix("decoder", "decoder.weight", [n_inputs, n_latents], Order::InOut);
    table.tensor("decoder_bias", "decoder_bias", [n_inputs]);
    if file.contains("activation_frequency") {
        table.tensor("activation_frequency", "activation_frequency", [n_latents]);
    }
    let jumps = matches!(activation, LatentActivation::JumpRelu { .. });
    let threshold: Vec<String> = jumps.then(|| "threshold".to_owned()).into_iter().collect();
    table.refuse_unknown(file.path(), file.names().iter().map(String::as_str), &threshold, TENSORS)?;
    let table = table.look_up(file.path(), |key| file.tensor(key))?;
    Ok((site, autoencoder::read(&table, [n_latents, n_inputs], activation)?))
}
