//! Autoencoders as SAELens saves them, one folder a layer.
//!
//! ```text
//! <name>/<any folder>/cfg.json
//! <name>/<any folder>/sae_weights.safetensors     W_enc [d_in, d_sae], W_dec [d_sae, d_in], b_enc, b_dec, threshold
//! <name>/<any folder>/sparsity.safetensors        optional: log10 of how often each latent fires
//! ```
//!
//! Files of version 6 name the hook in `metadata`, earlier ones beside the other settings, the earliest as
//! `hook_point`; all are read. Architectures `standard` (with ReLU), `topk` and `jumprelu` are known; any other, and
//! any setting that changes what is computed, is refused by name. A TopK that SAELens trained itself measures its
//! latents by the length of what they write; that is folded into the weights.
//!
//! SAELens takes activations from TransformerLens, which by default first centres what MLPs and attention write to the
//! residual stream. An autoencoder for `hook_mlp_out` or `hook_attn_out` fits here only if it was trained with
//! `center_writing_weights: false`, as SAELens does by default; one for `mlp.hook_post` always does.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use super::autoencoder;
use super::bytes::read_json;
use super::error::CheckpointError;
use super::safetensors_file::TensorFile;
use super::safetensors_writer::{Numbers, Precision, write, write_json};
use super::settings::Settings;
use super::table::{Entries, Order};
use crate::config::Config;
use crate::matrix::Matrix;
use crate::weights::{AutoencoderSite, AutoencoderWeights, LatentActivation, NamedAutoencoder};

const CONFIG: &str = "cfg.json";
const WEIGHTS: &str = "sae_weights.safetensors";
const SPARSITY: &str = "sparsity.safetensors";
/// A setting of TopK.
const RESCALE: &str = "rescale_acts_by_decoder_norm";

/// The folders that hold one layer each: `folder` itself, or its subfolders. Empty if this is not SAELens' layout.
pub(crate) fn layer_folders(folder: &Path) -> Vec<PathBuf> {
    if folder.join(CONFIG).is_file() {
        return vec![folder.to_owned()];
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|f| f.join(CONFIG).is_file()).collect();
    folders.sort();
    folders
}

/// Reads the autoencoders of all layers from the folder's subfolders.
///
/// # Errors
/// A setting that is not known or not implemented, a tensor that is missing or does not fit the model's shape, a layer
/// that is missing or there twice, layers with different sites.
pub fn load_autoencoder(folder: &Path, name: &str, config: &Config) -> Result<NamedAutoencoder, CheckpointError> {
    let mut layers: Vec<Option<AutoencoderWeights>> = vec![None; config.n_layers];
    let mut first_site = None;
    for folder in layer_folders(folder) {
        let (layer, site, weights) = read_layer(&folder, config)?;
        let path = folder.join(CONFIG);
        if *first_site.get_or_insert(site) != site {
            return Err(CheckpointError::unexpected(
                &path,
                "hook_name",
                "the same site in all layers",
                hook(layer, site),
            ));
        }
        if layers[layer].replace(weights).is_some() {
            return Err(CheckpointError::unexpected(&path, "hook_name", "one autoencoder a layer", hook(layer, site)));
        }
    }
    let missing = |layer| CheckpointError::missing(folder, format!("autoencoder of layer {layer}"));
    let site = first_site.ok_or_else(|| missing(0))?;
    let layers = layers.into_iter().enumerate().map(|(layer, weights)| weights.ok_or_else(|| missing(layer)));
    Ok(NamedAutoencoder { name: name.to_owned(), site, layers: layers.collect::<Result<_, _>>()? })
}

/// Writes `<folder>/<hook name>/` for every layer, readable by SAELens from version 3 on. `model` is the name under
/// which TransformerLens knows the model.
///
/// # Errors
/// If an activation does not exist in SAELens (Identity, TopK without ReLU), or a file cannot be written.
pub fn save_autoencoder(folder: &Path, autoencoder: &NamedAutoencoder, model: &str) -> Result<(), CheckpointError> {
    for (index, layer) in autoencoder.layers.iter().enumerate() {
        let hook = hook(index, autoencoder.site);
        let folder = folder.join(&hook);
        let (architecture, function, arguments) = match &layer.activation {
            LatentActivation::Relu => ("standard", "relu", json!({})),
            LatentActivation::TopK { k, relu: true } => ("topk", "topk", json!({"k": k})),
            LatentActivation::JumpRelu { .. } => ("jumprelu", "relu", json!({})),
            other => {
                let expected = "ReLU, TopK with ReLU, or JumpReLU, which SAELens has";
                return Err(CheckpointError::unexpected(&folder, "activation", expected, format!("{other:?}")));
            }
        };
        // SAELens subtracts the decoder's bias from the input, or nothing.
        let subtracts = layer.encoder_pre_bias == layer.decoder_bias;
        if !subtracts && layer.encoder_pre_bias.iter().any(|&x| x != 0.0) {
            let expected = "the decoder's bias or zero, as in SAELens";
            return Err(CheckpointError::unexpected(&folder, "encoder_pre_bias", expected, "another vector"));
        }
        let kwargs = json!({"center_writing_weights": false});
        let mut config = json!({
            "architecture": architecture,
            "d_in": layer.encoder.cols(),
            "d_sae": layer.encoder.rows(),
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": subtracts,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "metadata": {
                "model_name": model,
                "hook_name": hook,
                "hook_head_index": null,
                "prepend_bos": false,
                "model_from_pretrained_kwargs": kwargs,
            },
            // What versions before 6 read.
            "model_name": model,
            "hook_name": hook,
            "hook_layer": index,
            "hook_head_index": null,
            "activation_fn_str": function,
            "activation_fn_kwargs": arguments,
            "finetuning_scaling_factor": false,
            "context_size": null,
            "prepend_bos": false,
            "dataset_path": null,
            "dataset_trust_remote_code": false,
            "sae_lens_training_version": null,
            "model_from_pretrained_kwargs": kwargs,
        });
        if let (LatentActivation::TopK { k, .. }, Some(config)) = (&layer.activation, config.as_object_mut()) {
            config.insert("k".to_owned(), json!(k));
        }
        write_json(&folder.join(CONFIG), &config)?;
        let (w_enc, w_dec) = (layer.encoder.transpose(), layer.decoder.transpose());
        let mut tensors = vec![
            ("W_enc", Numbers::Matrix(&w_enc)),
            ("W_dec", Numbers::Matrix(&w_dec)),
            ("b_enc", Numbers::Vector(&layer.latent_bias)),
            ("b_dec", Numbers::Vector(&layer.decoder_bias)),
        ];
        if let LatentActivation::JumpRelu { threshold } = &layer.activation {
            tensors.push(("threshold", Numbers::Vector(threshold)));
        }
        write(&folder.join(WEIGHTS), &[], &tensors, Precision::F32)?;
        if let Some(frequency) = &layer.activation_frequency {
            let sparsity: Vec<f32> = frequency.iter().map(|&x| x.max(1e-10).log10()).collect();
            write(&folder.join(SPARSITY), &[], &[("sparsity", Numbers::Vector(&sparsity))], Precision::F32)?;
        }
    }
    Ok(())
}

fn hook(layer: usize, site: AutoencoderSite) -> String {
    match site {
        AutoencoderSite::MlpPostAct => format!("blocks.{layer}.mlp.hook_post"),
        AutoencoderSite::ResidDeltaMlp => format!("blocks.{layer}.hook_mlp_out"),
        AutoencoderSite::ResidDeltaAttn => format!("blocks.{layer}.hook_attn_out"),
    }
}

fn parse_hook(name: &str) -> Option<(usize, AutoencoderSite)> {
    let (layer, rest) = name.strip_prefix("blocks.")?.split_once('.')?;
    let site = match rest {
        "mlp.hook_post" => AutoencoderSite::MlpPostAct,
        "hook_mlp_out" => AutoencoderSite::ResidDeltaMlp,
        "hook_attn_out" => AutoencoderSite::ResidDeltaAttn,
        _ => return None,
    };
    Some((layer.parse().ok()?, site))
}

fn read_layer(folder: &Path, config: &Config) -> Result<(usize, AutoencoderSite, AutoencoderWeights), CheckpointError> {
    let path = folder.join(CONFIG);
    let json = flatten(read_json(&path)?);
    let settings = Settings::new(&path, &json);
    refuse_what_is_not_computed(&settings)?;
    let name = settings.text("hook_name")?;
    let (layer, site) = parse_hook(name).ok_or_else(|| {
        let known = "blocks.<layer>.mlp.hook_post, blocks.<layer>.hook_mlp_out or blocks.<layer>.hook_attn_out";
        settings.unexpected("hook_name", known)
    })?;
    if layer >= config.n_layers {
        return Err(settings.unexpected("hook_name", &format!("a layer from 0 to {}", config.n_layers - 1)));
    }
    if settings.get("hook_layer").is_some_and(|found| found.as_u64() != Some(layer as u64)) {
        return Err(settings.unexpected("hook_layer", &format!("{layer}, as hook_name says")));
    }
    let n_inputs = settings.size("d_in")?;
    let n_latents = settings.size("d_sae")?;
    if n_inputs != site.width(config) {
        return Err(settings.unexpected("d_in", &format!("{}, the width of {name}", site.width(config))));
    }
    let file = TensorFile::open(&folder.join(WEIGHTS))?;
    let activation = read_activation(&settings, &file, n_latents)?;
    let jumps = matches!(activation, LatentActivation::JumpRelu { .. });
    let subtracts = settings.flag("apply_b_dec_to_input", true)?;
    let mut table = Entries::default();
    if subtracts {
        table.tensor("b_dec", "encoder_pre_bias", [n_inputs]);
    }
    table.tensor("b_dec", "decoder_bias", [n_inputs]);
    table.matrix("W_enc", "encoder.weight", [n_latents, n_inputs], Order::InOut);
    table.tensor("b_enc", "latent_bias", [n_latents]);
    table.matrix("W_dec", "decoder.weight", [n_inputs, n_latents], Order::InOut);
    let ignored = [Some("scaling_factor"), jumps.then_some("threshold")];
    let ignored: Vec<String> = ignored.into_iter().flatten().map(str::to_owned).collect();
    let known = "W_enc, W_dec, b_enc, b_dec and, for jumprelu, threshold";
    table.refuse_unknown(file.path(), file.names().iter().map(String::as_str), &ignored, known)?;
    // For a time SAELens saved a factor of ones with every file.
    if file.contains("scaling_factor")
        && file.tensor("scaling_factor")?.vector(n_latents)?.iter().any(|x| (x - 1.0).abs() > 1e-5)
    {
        return Err(CheckpointError::unexpected(file.path(), "scaling_factor", "absent or all ones", "other numbers"));
    }
    let table = table.look_up(file.path(), |key| file.tensor(key))?;
    let mut weights = autoencoder::read(&table, [n_latents, n_inputs], activation)?;
    weights.activation_frequency = read_frequency(&folder.join(SPARSITY), n_latents)?;
    if settings.get(RESCALE) == Some(&Json::Bool(true)) {
        fold_decoder_norms(&mut weights);
    }
    Ok((layer, site, weights))
}

/// SAELens trains TopK so that a latent is chosen by, and has as its value, what it writes in length: the encoder's
/// result times the length of the latent's direction, which the decoder then divides by. The same with directions of length 1.
fn fold_decoder_norms(weights: &mut AutoencoderWeights) {
    let directions = weights.decoder.transpose();
    let (n, width) = (directions.rows(), directions.cols());
    let (mut encoder, mut decoder) = (Vec::with_capacity(n * width), Vec::with_capacity(n * width));
    for latent in 0..n {
        let direction = directions.row(latent);
        let norm = direction.iter().map(|x| x * x).sum::<f32>().sqrt();
        encoder.extend(weights.encoder.row(latent).iter().map(|x| x * norm));
        weights.latent_bias[latent] *= norm;
        // A direction of length 0 stays; its latent is always 0.
        decoder.extend(direction.iter().map(|x| if norm > 0.0 { x / norm } else { *x }));
    }
    weights.encoder = Matrix::from_vec(n, width, encoder);
    weights.decoder = Matrix::from_vec(n, width, decoder).transpose();
}

/// The settings of all versions as one flat object, under the names of versions 3 to 5.
fn flatten(mut json: Map<String, Json>) -> Map<String, Json> {
    if let Some(Json::Object(metadata)) = json.remove("metadata") {
        for (key, value) in metadata {
            json.entry(key).or_insert(value);
        }
    }
    for (old, new) in [
        ("hook_point", "hook_name"),
        ("hook_point_layer", "hook_layer"),
        ("hook_point_head_index", "hook_head_index"),
        ("activation_fn", "activation_fn_str"),
    ] {
        if let Some(value) = json.remove(old) {
            json.entry(new).or_insert(value);
        }
    }
    json
}

fn refuse_what_is_not_computed(settings: &Settings<'_>) -> Result<(), CheckpointError> {
    let plain = |value: &Json| *value == Json::Bool(false) || value == "none";
    for key in ["normalize_activations", "reshape_activations", "finetuning_scaling_factor", "hook_head_index"] {
        if settings.get(key).is_some_and(|value| !plain(value)) {
            return Err(settings.unexpected(key, "absent, \"none\" or false"));
        }
    }
    // Centred weights write without the mean over the channels of the residual stream; neurons are the same.
    let centred = settings.get("model_from_pretrained_kwargs").and_then(|kwargs| kwargs.get("center_writing_weights"));
    let reads_neurons =
        settings.get("hook_name").and_then(Json::as_str).is_some_and(|hook| hook.ends_with("hook_post"));
    if centred == Some(&Json::Bool(true)) && !reads_neurons {
        let key = "model_from_pretrained_kwargs.center_writing_weights";
        return Err(CheckpointError::unexpected(
            settings.path(),
            key,
            "absent or false: centring is not computed",
            true,
        ));
    }
    let topk = settings.get("architecture").is_some_and(|value| value == "topk");
    if settings.get(RESCALE).is_some_and(|value| !(plain(value) || topk && value == &Json::Bool(true))) {
        return Err(settings.unexpected(RESCALE, "absent or false, or for topk true"));
    }
    Ok(())
}

fn read_activation(
    settings: &Settings<'_>,
    file: &TensorFile,
    n_latents: usize,
) -> Result<LatentActivation, CheckpointError> {
    let architecture = if settings.get("architecture").is_some() { settings.text("architecture")? } else { "standard" };
    let function = if settings.get("activation_fn_str").is_some() { settings.text("activation_fn_str")? } else { "" };
    match (architecture, function) {
        ("standard", "relu" | "") => Ok(LatentActivation::Relu),
        ("topk", "topk" | "") | ("standard", "topk") => {
            let arguments = settings.get("activation_fn_kwargs").and_then(|arguments| arguments.get("k"));
            let k = settings.get("k").or(arguments).ok_or_else(|| CheckpointError::missing(settings.path(), "k"))?;
            match k.as_u64().and_then(|k| usize::try_from(k).ok()) {
                Some(k) if (1..=n_latents).contains(&k) => Ok(LatentActivation::TopK { k, relu: true }),
                _ => {
                    let expected = format!("a whole number from 1 to {n_latents}");
                    Err(CheckpointError::unexpected(settings.path(), "k", expected, k))
                }
            }
        }
        ("jumprelu", "relu" | "") => {
            // SAELens applies ReLU before it compares, so that a negative threshold lets nothing negative through.
            let threshold = file.tensor("threshold")?.vector(n_latents)?;
            Ok(LatentActivation::JumpRelu { threshold: threshold.into_iter().map(|x| x.max(0.0)).collect() })
        }
        ("standard" | "topk" | "jumprelu", _) => {
            Err(settings.unexpected("activation_fn_str", "\"relu\", or \"topk\" for topk"))
        }
        _ => Err(settings.unexpected("architecture", "\"standard\", \"topk\" or \"jumprelu\"")),
    }
}

fn read_frequency(path: &Path, n_latents: usize) -> Result<Option<Vec<f32>>, CheckpointError> {
    if !path.is_file() {
        return Ok(None);
    }
    let sparsity = TensorFile::open(path)?.tensor("sparsity")?.vector(n_latents)?;
    Ok(Some(sparsity.into_iter().map(|x| 10f32.powf(x)).collect()))
}
