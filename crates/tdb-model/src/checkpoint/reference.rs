//! The reference's folders.
//!
//! ```text
//! <model>/config.json                            {"enc", "ctx_window", "d_model", "n_layers", "m_attn", "n_heads", "m_mlp"}
//! <model>/model_pieces/<name of tensor>.pt       one tensor a file
//! <model>/autoencoders/<name>/<layer>.pt         a state dict a layer
//! ```

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use super::autoencoder::Shape;
use super::bytes::read_json;
use super::error::CheckpointError;
use super::pt::{Dict, Item, PtFile};
use super::settings::Settings;
use super::table::{Entries, Order};
use super::{Checkpoint, autoencoder};
use crate::config::Config;
use crate::parallel;
use crate::tokenizer::{END_OF_TEXT, Tokenizer};
use crate::weights::{AutoencoderSite, AutoencoderWeights, LatentActivation, NamedAutoencoder, Normalization};

/// The only tokenizer that the reference's models name.
const GPT2_VOCAB: usize = 50257;

/// Reads `config.json` and every piece of the model, in parallel; matrices stay in their files.
///
/// # Errors
/// A setting, file or tensor that is missing, of another shape or type than the configuration asks for, or not known.
pub fn load(folder: &Path) -> Result<Checkpoint, CheckpointError> {
    let path = folder.join("config.json");
    let config = read_config(&path, &read_json(&path)?)?;
    let pieces = folder.join("model_pieces");
    let table = tensors(&config);
    refuse_unknown_pieces(&pieces, &table)?;
    let find = |key: &str| PtFile::open(&pieces.join(format!("{key}.pt")))?.tensor(key);
    let (table, tokenizer) = rayon::join(|| table.look_up(&pieces, find), Tokenizer::gpt2);
    let origin = format!("{} (pieces of torch.save)", folder.display());
    let beginning = tokenizer.added(END_OF_TEXT);
    Ok(Checkpoint { config, weights: table?.into(), beginning, tokenizer, origin, notes: Vec::new() })
}

/// Is this object the reference's kind of `config.json`?
pub(crate) fn is_config(config: &Map<String, Json>) -> bool {
    config.contains_key("enc") && config.contains_key("m_mlp")
}

fn read_config(path: &Path, json: &Map<String, Json>) -> Result<Config, CheckpointError> {
    let settings = Settings::new(path, json);
    settings.only(&["enc", "ctx_window", "d_model", "n_layers", "m_attn", "n_heads", "m_mlp"])?;
    if settings.text("enc")? != "gpt2" {
        return Err(settings.unexpected("enc", "\"gpt2\""));
    }
    let d_model = settings.size("d_model")?;
    let d_attn = settings.scaled("m_attn", d_model)?;
    let n_heads = settings.divisor("n_heads", "the attention's width", d_attn)?;
    let (n_layers, d_ff) = (settings.layers("n_layers")?, settings.scaled("m_mlp", d_model)?);
    // The heads together may be of another width than the residual stream.
    let mut config = Config::gpt2(n_layers, d_attn, n_heads, d_ff, settings.size("ctx_window")?, GPT2_VOCAB);
    config.d_model = d_model;
    config.tied = false;
    Ok(config)
}

fn tensors(config: &Config) -> Entries {
    let (d, d_ff, d_attn) = (config.d_model, config.d_ff, config.n_heads * config.d_head);
    let mut table = Entries::default();
    table.tensor("tok_embed.weight", "embed.weight", [config.n_vocab, d]);
    table.tensor("pos_embed.weight", "positions.weight", [config.ctx_window, d]);
    table.norm("final_ln", "final_norm", d);
    table.tensor("unembed.weight", "unembed.weight", [config.n_vocab, d]);
    for layer in 0..config.n_layers {
        table.block(layer, &format!("xf_layers.{layer}"));
        table.norm("ln_1", "attn_norm", d);
        for part in ["q", "k", "v"] {
            let name = format!("attn.{part}");
            table.linear(&format!("{name}_proj"), &[&name], [d_attn, d], Order::OutIn, true);
        }
        table.linear("attn.out_proj", &["attn.o"], [d, d_attn], Order::OutIn, true);
        table.norm("ln_2", "mlp_norm", d);
        table.linear("mlp.in_layer", &["mlp.in"], [d_ff, d], Order::OutIn, true);
        table.linear("mlp.out_layer", &["mlp.out"], [d, d_ff], Order::OutIn, true);
    }
    table
}

/// Every piece has to be one of the table's.
fn refuse_unknown_pieces(folder: &Path, table: &Entries) -> Result<(), CheckpointError> {
    let read = |source| CheckpointError::Read { file: folder.to_owned(), source };
    let names = std::fs::read_dir(folder).map_err(read)?.map(|entry| entry.map(|entry| entry.file_name()));
    let names: Vec<_> = names.collect::<Result<_, _>>().map_err(read)?;
    let pieces = names.iter().filter_map(|name| name.to_str()?.strip_suffix(".pt"));
    table.refuse_unknown(folder, pieces, &[], &format!("{} tensors", table.keys().count()))
}

/// Entries that every state dict of an autoencoder has.
const WEIGHTS: [&str; 4] = ["pre_bias", "latent_bias", "encoder.weight", "decoder.weight"];
/// How often each latent fired in training.
const FREQUENCY: &str = "latents_activation_frequency";
/// Statistics of its training.
const STATISTICS: [&str; 3] = ["stats_last_nonzero", FREQUENCY, "latents_mean_square"];

/// Reads every `<folder>/<layer>.pt`. What is done to the inputs first stands nowhere in these files.
///
/// # Errors
/// A file or tensor that is of another shape or type than the site asks for, or not known; an activation that is not
/// known; a layer that the model lacks; layers of different width.
pub fn load_autoencoder(
    folder: &Path,
    name: &str,
    site: AutoencoderSite,
    normalization: Normalization,
    config: &Config,
) -> Result<NamedAutoencoder, CheckpointError> {
    let files = autoencoder::numbered_files(folder, "pt");
    let read = |(layer, path): &(usize, PathBuf)| {
        autoencoder::check_layer(path, *layer, config)?;
        Ok((*layer, site, read_autoencoder(path, site, normalization, config)?, path.clone()))
    };
    autoencoder::of_layers(folder, name, parallel::try_map(files.len(), |i| read(&files[i]))?)
}

fn read_autoencoder(
    path: &Path,
    site: AutoencoderSite,
    normalization: Normalization,
    config: &Config,
) -> Result<AutoencoderWeights, CheckpointError> {
    let file = PtFile::open(path)?;
    let dict = file.dict()?;
    for key in dict.keys() {
        let known = WEIGHTS.iter().chain(&STATISTICS).chain(&["activation", "activation_state_dict"]);
        if !known.clone().any(|known| *known == key) {
            let known: Vec<&str> = known.copied().collect();
            return Err(CheckpointError::unknown(path, key, known.join(", ")));
        }
    }
    let n_inputs = site.width(config);
    let n_latents = autoencoder::n_latents(path, &dict.tensor("latent_bias")?)?;
    let activation = read_activation(path, &dict, n_latents)?;
    let mut table = Entries::default();
    if dict.get(FREQUENCY)?.is_some() {
        table.tensor(FREQUENCY, "activation_frequency", [n_latents]);
    }
    for name in ["encoder_pre_bias", "decoder_bias"] {
        table.tensor("pre_bias", name, [n_inputs]);
    }
    table.matrix("encoder.weight", "encoder.weight", [n_latents, n_inputs], Order::OutIn);
    table.tensor("latent_bias", "latent_bias", [n_latents]);
    table.matrix("decoder.weight", "decoder.weight", [n_inputs, n_latents], Order::OutIn);
    let table = table.look_up(path, |key| dict.tensor(key))?;
    autoencoder::read(&table, Shape::of(site, config, n_latents), activation, normalization)
}

/// The activation's name and its settings. Only the release of December 2023 names none and means ReLU: it has the
/// weights, one statistic and nothing else.
fn read_activation(path: &Path, dict: &Dict<'_>, n_latents: usize) -> Result<LatentActivation, CheckpointError> {
    let name = match dict.get("activation")? {
        Some(Item::Str(name)) => name,
        Some(other) => {
            return Err(CheckpointError::unexpected(path, "activation", "a name", other.describe()));
        }
        None => {
            let mut keys: Vec<&str> = dict.keys().collect();
            keys.sort_unstable();
            let first_release = ["decoder.weight", "encoder.weight", "latent_bias", "pre_bias", "stats_last_nonzero"];
            if keys == first_release {
                return Ok(LatentActivation::Relu);
            }
            return Err(CheckpointError::missing(path, "activation"));
        }
    };
    let state = match dict.get("activation_state_dict")? {
        Some(Item::Dict(state)) => Some(state),
        None => None,
        Some(other) => {
            return Err(CheckpointError::unexpected(path, "activation_state_dict", "a dict", other.describe()));
        }
    };
    let only = |known: &[&str]| match state.iter().flat_map(Dict::keys).find(|key| !known.contains(key)) {
        None => Ok(()),
        Some(key) => Err(CheckpointError::unknown(path, &format!("activation_state_dict.{key}"), format!("{known:?}"))),
    };
    match name {
        "ReLU" => only(&[]).map(|()| LatentActivation::Relu),
        "Identity" => only(&[]).map(|()| LatentActivation::Identity),
        "TopK" => {
            only(&["k", "postact_fn"])?;
            let entry = |key: &str| -> Result<Item<'_>, CheckpointError> {
                let found = state.map(|state| state.get(key)).transpose()?.flatten();
                found.ok_or_else(|| CheckpointError::missing(path, format!("activation_state_dict.{key}")))
            };
            let wrong = |key: &str, expected: String, found: &Item<'_>| {
                CheckpointError::unexpected(path, format!("activation_state_dict.{key}"), expected, found.describe())
            };
            let k = match entry("k")? {
                Item::Int(k) if (1..=n_latents as i64).contains(&k) => k as usize,
                other => return Err(wrong("k", format!("a whole number from 1 to {n_latents}"), &other)),
            };
            let relu = match entry("postact_fn")? {
                Item::Str("ReLU") => true,
                Item::Str("Identity") => false,
                other => return Err(wrong("postact_fn", "\"ReLU\" or \"Identity\"".to_owned(), &other)),
            };
            Ok(LatentActivation::TopK { k, relu })
        }
        other => {
            let found = format!("\"{other}\"");
            Err(CheckpointError::unexpected(path, "activation", "\"ReLU\", \"Identity\" or \"TopK\"", found))
        }
    }
}
