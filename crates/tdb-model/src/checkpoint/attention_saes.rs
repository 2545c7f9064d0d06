//! Autoencoders on the outputs of heads as Kissane, Krzyzanowski et al. (2024) published them.
//!
//! ```text
//! <name>/<any name>.pt           W_enc [d, L], W_dec [L, d], b_enc [L], b_dec [d]
//! <name>/<any name>_cfg.json     {"act_name": "blocks.0.attn.hook_z", "act_size": d, "dict_size": L, ...}
//! ```
//!
//! ReLU; the decoder's bias is subtracted from the input.

use std::path::{Path, PathBuf};

use super::autoencoder::{self, Shape};
use super::bytes::read_json;
use super::error::CheckpointError;
use super::hooks;
use super::pt::PtFile;
use super::settings::Settings;
use super::table::{Entries, Order};
use super::{DictionaryOptions, normalization_or_none};
use crate::config::Config;
use crate::weights::{AutoencoderSite, AutoencoderWeights, LatentActivation, NamedAutoencoder};

/// The files with weights that have settings beside them.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let has_settings = |path: &PathBuf| path.extension().is_some_and(|e| e == "pt") && settings_of(path).is_file();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(has_settings).collect();
    files.sort();
    files
}

fn settings_of(weights: &Path) -> PathBuf {
    let stem = weights.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    weights.with_file_name(format!("{stem}_cfg.json"))
}

pub(super) fn load(
    folder: &Path,
    name: &str,
    options: &DictionaryOptions,
    config: &Config,
) -> Result<NamedAutoencoder, CheckpointError> {
    let read = |path: PathBuf| {
        let (layer, site, weights) = read_layer(&path, options, config)?;
        Ok((layer, site, weights, path))
    };
    let layers = files(folder).into_iter().map(read).collect::<Result<_, CheckpointError>>()?;
    autoencoder::of_layers(folder, name, layers)
}

fn read_layer(
    path: &Path,
    options: &DictionaryOptions,
    config: &Config,
) -> Result<(usize, AutoencoderSite, AutoencoderWeights), CheckpointError> {
    let settings_path = settings_of(path);
    let json = read_json(&settings_path)?;
    let settings = Settings::new(&settings_path, &json);
    let found = hooks::parse(settings.text("act_name")?, config, false)
        .filter(|(_, site)| *site != AutoencoderSite::MlpTranscoderOfNormalized);
    let (layer, site) = found.ok_or_else(|| settings.unexpected("act_name", hooks::KNOWN))?;
    autoencoder::check_layer(&settings_path, layer, config)?;
    let shape = Shape::of(site, config, settings.size("dict_size")?);
    if settings.size("act_size")? != shape.inputs {
        return Err(settings.unexpected("act_size", &format!("{}, the width of {}", shape.inputs, site.name())));
    }
    let file = PtFile::open(path)?;
    let dict = file.dict()?;
    let mut table = Entries::default();
    table.tensor("b_dec", "encoder_pre_bias", [shape.inputs]);
    table.tensor("b_dec", "decoder_bias", [shape.outputs]);
    table.matrix("W_enc", "encoder.weight", [shape.latents, shape.inputs], Order::InOut);
    table.tensor("b_enc", "latent_bias", [shape.latents]);
    table.matrix("W_dec", "decoder.weight", [shape.outputs, shape.latents], Order::InOut);
    table.refuse_unknown(path, dict.keys(), &[], "W_enc, W_dec, b_enc and b_dec")?;
    let table = table.look_up(path, |key| dict.tensor(key))?;
    let weights = autoencoder::read(&table, shape, LatentActivation::Relu, normalization_or_none(options))?;
    Ok((layer, site, weights))
}
