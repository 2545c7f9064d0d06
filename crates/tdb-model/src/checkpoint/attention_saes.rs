//! Autoencoders on the outputs of heads as Kissane, Krzyzanowski et al. (2024) published them.
//!
//! ```text
//! <name>/<any name>.pt           W_enc [d, L], W_dec [L, d], b_enc [L], b_dec [d]
//! <name>/<any name>_cfg.json     {"act_name": "blocks.0.attn.hook_z", "act_size": d, "dict_size": L, ...}
//! ```
//!
//! ReLU; the decoder's bias is subtracted from the input.

use std::path::{Path, PathBuf};

use serde_json::json;

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

/// How the names of files with settings end.
const SETTINGS: &str = "_cfg.json";

/// The first file with weights that has settings beside it.
pub(super) fn find(folder: &Path) -> Option<PathBuf> {
    files(folder, ".pt").into_iter().find(|path| settings_of(path).is_file())
}

fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut paths = autoencoder::entries(folder);
    paths.retain(|path| path.to_string_lossy().ends_with(end) && path.is_file());
    paths
}

fn settings_of(weights: &Path) -> PathBuf {
    let stem = weights.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    weights.with_file_name(format!("{stem}{SETTINGS}"))
}

/// Refuses weights without settings, and settings without weights.
fn refuse_incomplete(folder: &Path) -> Result<(), CheckpointError> {
    let of_settings = files(folder, SETTINGS).into_iter().map(|path| {
        let name = autoencoder::name_of(&path);
        path.with_file_name(name.replacen(SETTINGS, ".pt", 1))
    });
    let needed: Vec<PathBuf> = files(folder, ".pt").iter().map(|path| settings_of(path)).chain(of_settings).collect();
    match needed.iter().find(|path| !path.is_file()) {
        None => Ok(()),
        Some(missing) => Err(CheckpointError::missing(folder, autoencoder::name_of(missing))),
    }
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
    refuse_incomplete(folder)?;
    let layers = files(folder, ".pt").into_iter().map(read).collect::<Result<_, CheckpointError>>()?;
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
    if settings.get("layer").is_some_and(|found| found.as_u64() != Some(layer as u64)) {
        return Err(settings.unexpected("layer", &format!("{layer}, as act_name says")));
    }
    let does = [
        ("activation", json!("relu")),
        ("apply_b_dec_to_input", json!(true)),
        ("architecture", json!("standard")),
        ("subtract_b_dec", json!(true)),
    ];
    autoencoder::refuse_what_is_not_read(&settings, &[], &does)?;
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
