//! EleutherAI's sparsify: a folder for each hook, named after the module.
//!
//! ```text
//! <name>/layers.3.mlp/cfg.json           {"d_in", "num_latents" or "expansion_factor", "k", "transcode", ...}
//! <name>/layers.3.mlp/sae.safetensors    encoder.weight [L, d], encoder.bias [L], W_dec [L, d], b_dec [d], W_skip [d, d]
//! ```
//!
//! TopK after ReLU; `signed`, the largest of either sign, is refused. `transcode` says that the module's output is made
//! from its input; then nothing is subtracted from it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::autoencoder::{self, Shape};
use super::bytes::read_json;
use super::error::CheckpointError;
use super::hooks;
use super::safetensors_file::TensorFile;
use super::settings::Settings;
use super::table::{Entries, Order};
use super::{DictionaryOptions, normalization_or_none};
use crate::config::Config;
use crate::weights::{AutoencoderSite, AutoencoderWeights, LatentActivation, NamedAutoencoder};

const CONFIG: &str = "cfg.json";
const WEIGHTS: &str = "sae.safetensors";

/// The first file with weights in this layout.
pub(super) fn find(folder: &Path) -> Option<PathBuf> {
    autoencoder::find(folder, [CONFIG, WEIGHTS])
}

pub(super) fn load(
    folder: &Path,
    name: &str,
    options: &DictionaryOptions,
    config: &Config,
) -> Result<NamedAutoencoder, CheckpointError> {
    let read = |folder: &Path| read_layer(folder, options, config);
    autoencoder::of_folders(folder, name, [CONFIG, WEIGHTS], read)
}

fn read_layer(
    folder: &Path,
    options: &DictionaryOptions,
    config: &Config,
) -> Result<(usize, AutoencoderSite, AutoencoderWeights), CheckpointError> {
    let path = folder.join(CONFIG);
    let json = read_json(&path)?;
    let settings = Settings::new(&path, &json);
    let transcodes = settings.flag("transcode", false)?;
    let (layer, site) = place(folder, transcodes, options, config)?;
    autoencoder::check_layer(&path, layer, config)?;
    let activation = match settings.get("activation") {
        None => "topk",
        Some(_) => settings.text("activation")?,
    };
    if activation != "topk" {
        return Err(settings.unexpected("activation", "\"topk\""));
    }
    if settings.flag("signed", false)? {
        return Err(settings.unexpected("signed", "false: the latents that are largest by magnitude are not computed"));
    }
    let skips = settings.flag("skip_connection", false)?;
    if skips && !transcodes {
        return Err(settings.unexpected("skip_connection", "false without transcode"));
    }
    let read = ["activation", "k", "signed", "skip_connection", "transcode"];
    autoencoder::refuse_what_is_not_read(&settings, &read, &[("apply_b_dec_to_input", Value::Bool(!transcodes))])?;
    let file = TensorFile::open(&folder.join(WEIGHTS))?;
    let shape = Shape::of(site, config, autoencoder::n_latents(file.path(), &file.tensor("encoder.weight")?)?);
    if settings.size("d_in")? != shape.inputs {
        return Err(settings.unexpected("d_in", &format!("{}, the width of {}", shape.inputs, site.name())));
    }
    // 0 is written where it follows from the expansion factor.
    if settings.get("num_latents").is_some_and(|n| ![0, shape.latents as u64].map(Some).contains(&n.as_u64())) {
        return Err(settings.unexpected("num_latents", &format!("0 or {}, as the weights have", shape.latents)));
    }
    let k = settings.size("k")?;
    if k > shape.latents {
        return Err(settings.unexpected("k", &format!("at most the {} latents", shape.latents)));
    }
    let activation = LatentActivation::TopK { k, relu: true };
    let mut table = Entries::default();
    if !transcodes {
        table.tensor("b_dec", "encoder_pre_bias", [shape.inputs]);
    }
    table.matrix("encoder.weight", "encoder.weight", [shape.latents, shape.inputs], Order::OutIn);
    table.tensor("encoder.bias", "latent_bias", [shape.latents]);
    table.matrix("W_dec", "decoder.weight", [shape.outputs, shape.latents], Order::InOut);
    table.tensor("b_dec", "decoder_bias", [shape.outputs]);
    if skips {
        table.tensor("W_skip", "skip.weight", [shape.outputs, shape.inputs]);
    }
    let known = "encoder.weight, encoder.bias, W_dec, b_dec and, with transcode and skip_connection, W_skip";
    table.refuse_unknown(file.path(), file.names().iter().map(String::as_str), &[], known)?;
    let table = table.look_up(file.path(), |key| file.tensor(key))?;
    Ok((layer, site, autoencoder::read(&table, shape, activation, normalization_or_none(options))?))
}

/// What the folder's name says, or the caller.
fn place(
    folder: &Path,
    transcodes: bool,
    options: &DictionaryOptions,
    config: &Config,
) -> Result<(usize, AutoencoderSite), CheckpointError> {
    let name = autoencoder::name_of(folder);
    let named = hooks::parse(&name, config, false).and_then(|(layer, site)| match (transcodes, site) {
        (false, site) => Some((layer, site)),
        // From the module's input to its output.
        (true, AutoencoderSite::ResidDeltaMlp) => Some((layer, AutoencoderSite::MlpTranscoder)),
        (true, _) => None,
    });
    match (named, options.layer, options.site) {
        (Some(named), ..) => Ok(named),
        (None, Some(layer), Some(site)) => Ok((layer, site)),
        _ => {
            let expected = match transcodes {
                true => "that of an MLP, such as layers.3.mlp",
                false => "that of a module, such as layers.3, layers.3.mlp or h.3.attn; or give site=NAME,layer=NUMBER",
            };
            Err(CheckpointError::unexpected(folder, "the folder's name", expected, format!("\"{name}\"")))
        }
    }
}
