//! The reference's folders.
//!
//! ```text
//! <model>/config.json                            {"enc", "ctx_window", "d_model", "n_layers", "m_attn", "n_heads", "m_mlp"}
//! <model>/model_pieces/<name of tensor>.pt       one tensor a file
//! <model>/autoencoders/<name>/<layer>.pt         a state dict a layer
//! ```

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::{Map, Value as Json};

use super::Checkpoint;
use super::error::CheckpointError;
use super::pt::{Dict, Item, PtFile};
use super::settings::{Settings, check_size};
use super::source::read_json;
use super::tensor::NamedTensor;
use crate::tokenizer::Tokenizer;
use crate::weights::{
    AutoencoderSite, AutoencoderWeights, Config, LatentActivation, LayerNorm, LayerWeights, Linear, Weights,
};

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
    let expected = piece_names(&config);
    refuse_unknown_pieces(&pieces, &expected)?;
    let open = |name: &String| {
        let tensor = PtFile::open(&pieces.join(format!("{name}.pt")))?.tensor(name)?;
        Ok((name.clone(), tensor))
    };
    let read = || {
        // Collected in order, so that of several errors it is always the same one that is reported.
        let opened: Vec<Result<_, CheckpointError>> = expected.par_iter().map(open).collect();
        Pieces(opened.into_iter().collect::<Result<_, _>>()?).weights(config)
    };
    let (weights, tokenizer) = rayon::join(read, Tokenizer::gpt2);
    let source = format!("{} (pieces of torch.save)", folder.display());
    Ok(Checkpoint { weights: weights?, tokenizer, source })
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
    let n_heads = settings.size("n_heads")?;
    let d_attn = settings.scaled("m_attn", d_model)?;
    if d_attn % n_heads != 0 {
        let expected = format!("a divisor of the attention's width {d_attn}");
        return Err(settings.unexpected("n_heads", &expected));
    }
    Ok(Config {
        n_layers: settings.layers("n_layers")?,
        d_model,
        n_heads,
        d_head: d_attn / n_heads,
        d_ff: settings.scaled("m_mlp", d_model)?,
        ctx_window: settings.size("ctx_window")?,
        n_vocab: GPT2_VOCAB,
    })
}

fn piece_names(config: &Config) -> Vec<String> {
    let mut names: Vec<String> =
        ["tok_embed.weight", "pos_embed.weight", "final_ln.weight", "final_ln.bias", "unembed.weight"]
            .map(str::to_owned)
            .into();
    for layer in 0..config.n_layers {
        for part in [
            "attn.q_proj",
            "attn.k_proj",
            "attn.v_proj",
            "attn.out_proj",
            "mlp.in_layer",
            "mlp.out_layer",
            "ln_1",
            "ln_2",
        ] {
            names.push(format!("xf_layers.{layer}.{part}.weight"));
            names.push(format!("xf_layers.{layer}.{part}.bias"));
        }
    }
    names
}

/// A piece that belongs to no known part would silently change what the model is.
fn refuse_unknown_pieces(folder: &Path, expected: &[String]) -> Result<(), CheckpointError> {
    let read = |source| CheckpointError::Read { file: folder.to_owned(), source };
    let expected: HashSet<&str> = expected.iter().map(String::as_str).collect();
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let name = entry.map_err(read)?.file_name();
        let Some(key) = name.to_str().and_then(|name| name.strip_suffix(".pt")) else { continue };
        if !expected.contains(key) {
            return Err(CheckpointError::unknown(folder, key, format!("{} tensors", expected.len())));
        }
    }
    Ok(())
}

struct Pieces(HashMap<String, NamedTensor>);

impl Pieces {
    fn get(&self, key: &str) -> Result<&NamedTensor, CheckpointError> {
        self.0.get(key).ok_or_else(|| CheckpointError::missing(&PathBuf::from("model_pieces"), key))
    }

    fn linear(&self, prefix: &str, [out, inputs]: [usize; 2]) -> Result<Linear, CheckpointError> {
        Ok(Linear {
            weight: self.get(&format!("{prefix}.weight"))?.matrix([out, inputs])?,
            bias: self.get(&format!("{prefix}.bias"))?.vector(out)?,
        })
    }

    fn layer_norm(&self, prefix: &str, width: usize) -> Result<LayerNorm, CheckpointError> {
        Ok(LayerNorm {
            gain: self.get(&format!("{prefix}.weight"))?.vector(width)?,
            bias: self.get(&format!("{prefix}.bias"))?.vector(width)?,
        })
    }

    fn weights(&self, config: Config) -> Result<Weights, CheckpointError> {
        let (d, vocab) = (config.d_model, config.n_vocab);
        let d_attn = config.n_heads * config.d_head;
        let layer = |index: usize| {
            let part = |name: &str| format!("xf_layers.{index}.{name}");
            Ok(LayerWeights {
                ln_1: self.layer_norm(&part("ln_1"), d)?,
                query: self.linear(&part("attn.q_proj"), [d_attn, d])?,
                key: self.linear(&part("attn.k_proj"), [d_attn, d])?,
                value: self.linear(&part("attn.v_proj"), [d_attn, d])?,
                out: self.linear(&part("attn.out_proj"), [d, d_attn])?,
                ln_2: self.layer_norm(&part("ln_2"), d)?,
                mlp_in: self.linear(&part("mlp.in_layer"), [config.d_ff, d])?,
                mlp_out: self.linear(&part("mlp.out_layer"), [d, config.d_ff])?,
            })
        };
        Ok(Weights {
            tok_embed: self.get("tok_embed.weight")?.matrix([vocab, d])?,
            pos_embed: self.get("pos_embed.weight")?.matrix([config.ctx_window, d])?,
            layers: (0..config.n_layers).map(layer).collect::<Result<_, CheckpointError>>()?,
            ln_f: self.layer_norm("final_ln", d)?,
            unembed: self.get("unembed.weight")?.matrix([vocab, d])?,
            config,
        })
    }
}

/// Entries that every state dict of an autoencoder has.
const WEIGHTS: [&str; 4] = ["pre_bias", "latent_bias", "encoder.weight", "decoder.weight"];
/// Statistics of its training.
const STATISTICS: [&str; 3] = ["stats_last_nonzero", "latents_activation_frequency", "latents_mean_square"];

/// Reads `<folder>/<layer>.pt` for every layer of the model.
///
/// # Errors
/// A layer's file or tensor that is missing, of another shape or type than the site asks for, or not known; an
/// activation that is not known; layers of different width.
pub fn load_autoencoder(
    folder: &Path,
    site: AutoencoderSite,
    config: &Config,
) -> Result<Vec<AutoencoderWeights>, CheckpointError> {
    let layer = |index: usize| read_autoencoder(&folder.join(format!("{index}.pt")), site, config);
    let layers: Vec<Result<_, CheckpointError>> = (0..config.n_layers).into_par_iter().map(layer).collect();
    layers.into_iter().collect()
}

fn read_autoencoder(
    path: &Path,
    site: AutoencoderSite,
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
    let latent_bias = dict.tensor("latent_bias")?;
    let n_latents = latent_bias.tensor.shape().first().copied().unwrap_or(0);
    check_size(path, "latent_bias", n_latents)?;
    let activation = read_activation(path, &dict, n_latents)?;
    let frequency = match dict.get("latents_activation_frequency")? {
        None => None,
        Some(_) => Some(dict.tensor("latents_activation_frequency")?.vector(n_latents)?),
    };
    let pre_bias = dict.tensor("pre_bias")?.vector(n_inputs)?;
    Ok(AutoencoderWeights {
        encoder_pre_bias: pre_bias.clone(),
        encoder: dict.tensor("encoder.weight")?.matrix([n_latents, n_inputs])?,
        latent_bias: latent_bias.vector(n_latents)?,
        activation,
        decoder: dict.tensor("decoder.weight")?.matrix([n_inputs, n_latents])?,
        decoder_bias: pre_bias,
        activation_frequency: frequency,
    })
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
