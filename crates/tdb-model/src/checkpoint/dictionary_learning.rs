//! Folders of dictionary_learning (Marks, Karvonen and Mueller): `ae.pt` beside `config.json`.
//!
//! `config.json` says in `trainer` the class, the layer, and in `submodule_name` where it stands. Latents are what the
//! library's `from_pretrained` and `encode` have given since January 2025: those of `AutoEncoder` are measured by the
//! length of what they write, those of all other classes are not, and BatchTopK works by its threshold. Before, it was
//! the other way round: gated and JumpReLU latents were measured by that length, `AutoEncoder`'s were not. Files do not
//! say which version wrote them, and reconstructions are the same.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::autoencoder::{self, Shape};
use super::bytes::read_json;
use super::error::CheckpointError;
use super::pt::{Dict, PtFile};
use super::settings::Settings;
use super::table::{Entries, Order};
use super::{DictionaryOptions, normalization_or_none};
use crate::config::Config;
use crate::weights::{AutoencoderSite, AutoencoderWeights, LatentActivation, NamedAutoencoder};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "ae.pt";
const CLASSES: &str = "AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder, AutoEncoderTopK, BatchTopKSAE \
                       or MatryoshkaBatchTopKSAE";

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

/// How a class names and uses its tensors.
struct Class {
    encoder: (&'static str, Order),
    latent_bias: &'static str,
    decoder: (&'static str, Order),
    decoder_bias: &'static str,
    subtracts_bias: bool,
    /// Tensors that are read apart from the table, or that only training needs.
    others: &'static [&'static str],
}

impl Class {
    fn named(name: &str) -> Option<Self> {
        let linear = Class {
            encoder: ("encoder.weight", Order::OutIn),
            latent_bias: "encoder.bias",
            decoder: ("decoder.weight", Order::OutIn),
            decoder_bias: "bias",
            subtracts_bias: true,
            others: &[],
        };
        let matrices = Class {
            encoder: ("W_enc", Order::InOut),
            latent_bias: "b_enc",
            decoder: ("W_dec", Order::InOut),
            decoder_bias: "b_dec",
            subtracts_bias: true,
            others: &[],
        };
        Some(match name {
            "AutoEncoder" => linear,
            "AutoEncoderNew" => Class { decoder_bias: "decoder.bias", subtracts_bias: false, ..linear },
            "GatedAutoEncoder" => Class {
                latent_bias: "mag_bias",
                decoder_bias: "decoder_bias",
                others: &["r_mag", "gate_bias"],
                ..linear
            },
            "AutoEncoderTopK" | "BatchTopKSAE" => {
                Class { decoder_bias: "b_dec", others: &["k", "threshold"], ..linear }
            }
            "JumpReluAutoEncoder" => Class { subtracts_bias: false, others: &["threshold"], ..matrices },
            "MatryoshkaBatchTopKSAE" => Class { others: &["k", "threshold", "group_sizes"], ..matrices },
            _ => return None,
        })
    }
}

fn read_layer(
    folder: &Path,
    options: &DictionaryOptions,
    config: &Config,
) -> Result<(usize, AutoencoderSite, AutoencoderWeights), CheckpointError> {
    let path = folder.join(CONFIG);
    let json = read_json(&path)?;
    let settings = Settings::new(&path, &json);
    let trainer = settings.object("trainer")?.ok_or_else(|| CheckpointError::missing(&path, "trainer"))?;
    let name = trainer.text("dict_class")?;
    let class = Class::named(name).ok_or_else(|| trainer.unexpected("dict_class", CLASSES))?;
    let layer = trainer.value("layer")?.as_u64().and_then(|layer| usize::try_from(layer).ok());
    let layer = layer.ok_or_else(|| trainer.unexpected("layer", "a whole number"))?;
    autoencoder::check_layer(&path, layer, config)?;
    autoencoder::refuse_what_is_not_read(&settings, &[], &[])?;
    if let Some(buffer) = settings.object("buffer")? {
        autoencoder::refuse_what_is_not_read(&buffer, &[], &[])?;
        if buffer.get("io").is_some_and(|io| io != "out") {
            return Err(buffer.unexpected("io", "\"out\""));
        }
    }
    let site = site(&trainer, layer, options, config)?;
    let shape = Shape::of(site, config, trainer.size("dict_size")?);
    if trainer.size("activation_dim")? != shape.inputs {
        return Err(trainer.unexpected("activation_dim", &format!("{}, the width of {}", shape.inputs, site.name())));
    }
    let file = PtFile::open(&folder.join(WEIGHTS))?;
    let dict = file.dict()?;
    let weights = read_weights(&folder.join(WEIGHTS), &dict, &trainer, name, &class, shape, options)?;
    Ok((layer, site, weights))
}

fn read_weights(
    path: &Path,
    dict: &Dict<'_>,
    trainer: &Settings<'_>,
    name: &str,
    class: &Class,
    shape: Shape,
    options: &DictionaryOptions,
) -> Result<AutoencoderWeights, CheckpointError> {
    let mut table = Entries::default();
    if class.subtracts_bias {
        table.tensor(class.decoder_bias, "encoder_pre_bias", [shape.inputs]);
    }
    table.matrix(class.encoder.0, "encoder.weight", [shape.latents, shape.inputs], class.encoder.1);
    table.tensor(class.latent_bias, "latent_bias", [shape.latents]);
    table.matrix(class.decoder.0, "decoder.weight", [shape.outputs, shape.latents], class.decoder.1);
    table.tensor(class.decoder_bias, "decoder_bias", [shape.outputs]);
    let others: Vec<String> = class.others.iter().map(|key| (*key).to_owned()).collect();
    let known: Vec<&str> = table.keys().chain(class.others.iter().copied()).collect();
    table.refuse_unknown(path, dict.keys(), &others, &known.join(", "))?;
    // BatchTopK was trained with k, and is computed with its threshold.
    let read: &[&str] = if class.others.contains(&"k") { &["k"] } else { &[] };
    let mut does = vec![("apply_b_dec_to_input", Value::Bool(class.subtracts_bias))];
    if class.others.is_empty() {
        does.push(("activation", json!("relu")));
    }
    autoencoder::refuse_what_is_not_read(trainer, read, &does)?;
    let activation = match name {
        "AutoEncoderTopK" => LatentActivation::TopK { k: k(dict, trainer, shape.latents)?, relu: true },
        "BatchTopKSAE" | "MatryoshkaBatchTopKSAE" => {
            LatentActivation::JumpRelu { threshold: vec![dict.tensor("threshold")?.scalar()?.max(0.0); shape.latents] }
        }
        "JumpReluAutoEncoder" => {
            let threshold = dict.tensor("threshold")?.vector(shape.latents)?;
            LatentActivation::JumpRelu { threshold: threshold.into_iter().map(|x| x.max(0.0)).collect() }
        }
        // The gate is folded in below.
        _ => LatentActivation::Relu,
    };
    let table = table.look_up(path, |key| dict.tensor(key))?;
    let mut weights = autoencoder::read(&table, shape, activation, normalization_or_none(options))?;
    if name == "GatedAutoEncoder" {
        let [r_mag, gate_bias] = ["r_mag", "gate_bias"].map(|key| dict.tensor(key)?.vector(shape.latents));
        autoencoder::fold_gate(&mut weights, path, &r_mag?, &gate_bias?)?;
    }
    if name == "AutoEncoder" {
        let norms = autoencoder::decoder_norms(&weights);
        // The library leaves them as they are, too.
        if norms.iter().any(|norm| (norm - 1.0).abs() > 1e-5) {
            autoencoder::fold_decoder_norms(&mut weights, &norms, path, class.decoder.0)?;
        }
    }
    Ok(weights)
}

/// That of the state dict, which `config.json` may not contradict; older files have it in `config.json` alone.
fn k(dict: &Dict<'_>, trainer: &Settings<'_>, latents: usize) -> Result<usize, CheckpointError> {
    let saved = dict.keys().any(|key| key == "k").then(|| dict.tensor("k")?.whole_number()).transpose()?;
    let said = trainer.get("k").and_then(Value::as_i64);
    if let Some(saved) = saved
        && trainer.get("k").is_some()
        && said != Some(saved)
    {
        return Err(trainer.unexpected("k", &format!("{saved}, as `k` of {WEIGHTS}")));
    }
    match saved.or(said).map(usize::try_from) {
        Some(Ok(k)) if (1..=latents).contains(&k) => Ok(k),
        _ => Err(trainer.unexpected("k", &format!("from 1 to the {latents} latents"))),
    }
}

/// `resid_post_layer_3`, `mlp_out_layer3` and the like, or what the caller says.
fn site(
    trainer: &Settings<'_>,
    layer: usize,
    options: &DictionaryOptions,
    config: &Config,
) -> Result<AutoencoderSite, CheckpointError> {
    let name = match trainer.get("submodule_name") {
        Some(_) => trainer.text("submodule_name")?,
        None => "",
    };
    let names = [
        ("resid_post", AutoencoderSite::ResidPostMlp),
        ("resid_out", AutoencoderSite::ResidPostMlp),
        ("resid_pre", AutoencoderSite::ResidPre),
        ("resid_mid", AutoencoderSite::ResidPostAttn),
        ("mlp_out", AutoencoderSite::ResidDeltaMlp),
        ("attn_out", AutoencoderSite::ResidDeltaAttn),
        ("attention_out", AutoencoderSite::ResidDeltaAttn),
    ];
    let named = names.into_iter().find(|(part, _)| name.contains(part)).map(|(_, site)| site);
    if named.is_some() && layer_of(name).is_some_and(|named| named != layer) {
        return Err(trainer.unexpected("submodule_name", &format!("that of layer {layer}, as `trainer.layer` says")));
    }
    // What such a module gives is normed before it is written to the residual stream.
    if config.post_norms && matches!(named, Some(AutoencoderSite::ResidDeltaMlp | AutoencoderSite::ResidDeltaAttn)) {
        let expected = "one of the residual stream: this model norms what its MLPs and attention give, and before the \
                        norm there is no site";
        return Err(trainer.unexpected("submodule_name", expected));
    }
    named.or(options.site).ok_or_else(|| {
        let expected = "a name with resid_pre, resid_mid, resid_post, mlp_out or attn_out in it; or give site=NAME";
        CheckpointError::unexpected(trainer.path(), "submodule_name", expected, format!("\"{name}\""))
    })
}

/// The number behind `layer` or `layer_` in a name.
fn layer_of(name: &str) -> Option<usize> {
    let (_, rest) = name.split_once("layer")?;
    let digits = rest.trim_start_matches('_');
    digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
}
