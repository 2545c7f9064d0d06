//! Autoencoders as SAELens saves them, one folder a layer.
//!
//! ```text
//! <name>/<any folder>/cfg.json
//! <name>/<any folder>/sae_weights.safetensors     W_enc [d_in, d_sae], W_dec [d_sae, d_in], b_enc, b_dec, threshold
//! <name>/<any folder>/sparsity.safetensors        optional: log10 of how often each latent fires
//! ```
//!
//! Files of version 6 name the hook in `metadata`, earlier ones beside the other settings, the earliest as
//! `hook_point`; all are read, and what stands in two of these places has to be the same.
//!
//! What is computed: architectures `standard` (with ReLU), `topk`, `jumprelu` (as which `batchtopk` and
//! `matryoshka_batchtopk` are saved), `gated`, `transcoder` and `skip_transcoder` with ReLU and as `jumprelu_`;
//! `normalize_activations` of every kind but `covariance_whitening`. Any other, and any setting that changes what is
//! computed, is refused by name. A TopK that SAELens trained itself measures its latents by the length of what they
//! write; that is folded into the weights.
//!
//! SAELens takes activations from TransformerLens. `center_writing_weights` means that what is written to the residual
//! stream was centred first: such a dictionary reads inputs without their mean here ([`Normalization::Centered`]). In a
//! model whose norms do not subtract the mean TransformerLens centres nothing, whatever the setting says.
//! `expected_average_only_in` needs its factor, which stands with the release, not in its files.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use super::DictionaryOptions;
use super::autoencoder::{self, Shape};
use super::bytes::{is_there, read_json};
use super::error::CheckpointError;
use super::hooks;
use super::safetensors_file::TensorFile;
use super::safetensors_writer::{Numbers, Precision, write, write_json};
use super::settings::Settings;
use super::table::{Entries, Order};
use crate::config::Config;
use crate::slot::Slot;
use crate::weights::{AutoencoderSite, AutoencoderWeights, LatentActivation, NamedAutoencoder, Normalization};

const CONFIG: &str = "cfg.json";
const WEIGHTS: &str = "sae_weights.safetensors";
const SPARSITY: &str = "sparsity.safetensors";
/// A setting of TopK.
const RESCALE: &str = "rescale_acts_by_decoder_norm";

/// The first file with weights in this layout.
pub(super) fn find(folder: &Path) -> Option<PathBuf> {
    autoencoder::find(folder, [CONFIG, WEIGHTS])
}

/// Reads the dictionaries from the folder or its subfolders. What the files do not say: the factor of
/// `expected_average_only_in`, and that what is written to the residual stream was centred.
///
/// # Errors
/// A setting that is not known or not implemented, a tensor that is missing or does not fit the model's shape, a layer
/// that is there twice or that the model lacks, layers with different sites.
pub fn load_autoencoder(
    folder: &Path,
    name: &str,
    options: &DictionaryOptions,
    config: &Config,
) -> Result<NamedAutoencoder, CheckpointError> {
    let read = |folder: &Path| read_layer(folder, options, config);
    autoencoder::of_folders(folder, name, [CONFIG, WEIGHTS], read)
}

/// Writes `<folder>/<hook name>/` for every layer, readable by SAELens from version 3 on. `model` is the name under
/// which TransformerLens knows the model.
///
/// # Errors
/// If an activation does not exist in SAELens (Identity, TopK without ReLU), or a file cannot be written.
pub fn save_autoencoder(folder: &Path, autoencoder: &NamedAutoencoder, model: &str) -> Result<(), CheckpointError> {
    for (&index, layer) in autoencoder.indices.iter().zip(&autoencoder.layers) {
        let (hook, output) = hooks::name(index, autoencoder.site);
        let folder = folder.join(&hook);
        let is_transcoder = autoencoder.site.is_transcoder();
        let (kind, function, arguments) = match &layer.activation {
            LatentActivation::Relu if is_transcoder => ("transcoder", "relu", json!({})),
            LatentActivation::JumpRelu { .. } if is_transcoder => ("jumprelu_transcoder", "relu", json!({})),
            LatentActivation::Relu => ("standard", "relu", json!({})),
            LatentActivation::TopK { k, relu: true } if !is_transcoder => ("topk", "topk", json!({"k": k})),
            LatentActivation::JumpRelu { .. } => ("jumprelu", "relu", json!({})),
            other => {
                let expected = match is_transcoder {
                    true => "ReLU or JumpReLU, which SAELens' transcoders have",
                    false => "ReLU, TopK with ReLU, or JumpReLU, which SAELens has",
                };
                return Err(CheckpointError::unexpected(&folder, "activation", expected, format!("{other:?}")));
            }
        };
        let architecture = match layer.skip {
            Some(_) => kind.replace("transcoder", "skip_transcoder"),
            None => kind.to_owned(),
        };
        let normalization = match layer.normalization {
            Normalization::None | Normalization::Centered => "none",
            other @ Normalization::LayerNorm { .. } if other == Normalization::LAYER_NORM => "layer_norm",
            Normalization::ConstantNorm => "constant_norm_rescale",
            Normalization::LayerNorm { epsilon } => {
                return Err(CheckpointError::unexpected(&folder, "epsilon", "1e-5, as in SAELens", epsilon));
            }
        };
        // SAELens subtracts the decoder's bias from the input, or nothing.
        let subtracts = !is_transcoder && layer.encoder_pre_bias == layer.decoder_bias;
        if !subtracts && layer.encoder_pre_bias.iter().any(|&x| x != 0.0) {
            let expected = "the decoder's bias or zero, as in SAELens";
            return Err(CheckpointError::unexpected(&folder, "encoder_pre_bias", expected, "another vector"));
        }
        let kwargs = json!({"center_writing_weights": layer.normalization == Normalization::Centered});
        let mut config = json!({
            "architecture": architecture,
            "d_in": layer.encoder.cols(),
            "d_sae": layer.encoder.rows(),
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": subtracts,
            "normalize_activations": normalization,
            "reshape_activations": if autoencoder.site == AutoencoderSite::AttnVOut { "hook_z" } else { "none" },
            "metadata": {
                "model_name": model,
                "hook_name": hook,
                "hook_name_out": output,
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
        if let Some(config) = config.as_object_mut() {
            if let LatentActivation::TopK { k, .. } = &layer.activation {
                config.insert("k".to_owned(), json!(k));
            }
            if is_transcoder {
                config.insert("d_out".to_owned(), json!(layer.decoder.rows()));
                config.insert("hook_name_out".to_owned(), json!(output));
            }
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
        if let Some(skip) = &layer.skip {
            tensors.push(("W_skip", Numbers::Matrix(skip)));
        }
        write(&folder.join(WEIGHTS), &[], &tensors, Precision::F32)?;
        if let Some(frequency) = &layer.activation_frequency {
            let sparsity: Vec<f32> = frequency.iter().map(|&x| x.max(1e-10).log10()).collect();
            write(&folder.join(SPARSITY), &[], &[("sparsity", Numbers::Vector(&sparsity))], Precision::F32)?;
        }
    }
    Ok(())
}

/// What a layer's settings say, after they were checked.
struct Description {
    layer: usize,
    site: AutoencoderSite,
    shape: Shape,
    normalization: Normalization,
    /// What inputs are multiplied with.
    factor: Option<f32>,
    architecture: Architecture,
}

/// Which tensors there are, and how they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Architecture {
    jumps: bool,
    gated: bool,
    transcoder: bool,
    skip: bool,
}

impl Architecture {
    fn named(name: &str) -> Option<Self> {
        let plain = Architecture { jumps: false, gated: false, transcoder: false, skip: false };
        Some(match name {
            "standard" | "topk" => plain,
            "jumprelu" => Architecture { jumps: true, ..plain },
            "gated" => Architecture { gated: true, ..plain },
            "transcoder" => Architecture { transcoder: true, ..plain },
            "skip_transcoder" => Architecture { transcoder: true, skip: true, ..plain },
            "jumprelu_transcoder" => Architecture { transcoder: true, jumps: true, ..plain },
            "jumprelu_skip_transcoder" => Architecture { transcoder: true, skip: true, jumps: true, ..plain },
            _ => return None,
        })
    }

    /// The tensors that only some architectures have.
    fn own_tensors(self) -> Vec<String> {
        let of = [(self.jumps, &["threshold"] as &[&str]), (self.gated, &["b_gate", "r_mag"])];
        of.into_iter()
            .filter(|(has, _)| *has)
            .flat_map(|(_, names)| names.iter().map(|name| (*name).to_owned()))
            .collect()
    }
}

const ARCHITECTURES: &str = "\"standard\", \"topk\", \"jumprelu\", \"gated\", \"transcoder\", \"skip_transcoder\", \
                             \"jumprelu_transcoder\" or \"jumprelu_skip_transcoder\"";

fn read_layer(
    folder: &Path,
    options: &DictionaryOptions,
    config: &Config,
) -> Result<(usize, AutoencoderSite, AutoencoderWeights), CheckpointError> {
    let path = folder.join(CONFIG);
    let json = flatten(&path, read_json(&path)?)?;
    let settings = Settings::new(&path, &json);
    let Description { layer, site, shape, normalization, factor, architecture } = describe(&settings, options, config)?;
    let file = TensorFile::open(&folder.join(WEIGHTS))?;
    let activation = read_activation(&settings, architecture, &file, shape.latents)?;
    let subtracts = settings.flag("apply_b_dec_to_input", !architecture.transcoder)?;
    if subtracts && architecture.transcoder {
        return Err(settings.unexpected("apply_b_dec_to_input", "false for a transcoder"));
    }
    let mut table = Entries::default();
    if subtracts {
        table.tensor("b_dec", "encoder_pre_bias", [shape.inputs]);
    }
    table.tensor("b_dec", "decoder_bias", [shape.outputs]);
    table.matrix("W_enc", "encoder.weight", [shape.latents, shape.inputs], Order::InOut);
    table.tensor(if architecture.gated { "b_mag" } else { "b_enc" }, "latent_bias", [shape.latents]);
    table.matrix("W_dec", "decoder.weight", [shape.outputs, shape.latents], Order::InOut);
    if architecture.skip {
        table.tensor("W_skip", "skip.weight", [shape.outputs, shape.inputs]);
    }
    let mut ignored = architecture.own_tensors();
    ignored.push("scaling_factor".to_owned());
    let known = "W_enc, W_dec, b_enc, b_dec and, by architecture, threshold, W_skip, or b_gate, b_mag and r_mag";
    table.refuse_unknown(file.path(), file.names().iter().map(String::as_str), &ignored, known)?;
    // For a time SAELens saved a factor of ones with every file.
    if file.contains("scaling_factor")
        && file.tensor("scaling_factor")?.vector(shape.latents)?.iter().any(|x| (x - 1.0).abs() > 1e-5)
    {
        return Err(CheckpointError::unexpected(file.path(), "scaling_factor", "absent or all ones", "other numbers"));
    }
    let table = table.look_up(file.path(), |key| file.tensor(key))?;
    let mut weights = autoencoder::read(&table, shape, activation, normalization)?;
    weights.activation_frequency = read_frequency(&folder.join(SPARSITY), shape.latents)?;
    if architecture.gated {
        let [r_mag, b_gate] = ["r_mag", "b_gate"].map(|key| file.tensor(key)?.vector(shape.latents));
        autoencoder::fold_gate(&mut weights, file.path(), &r_mag?, &b_gate?)?;
    }
    // SAELens measures the directions after it folded the factor.
    if let Some(factor) = factor {
        autoencoder::fold_input_factor(&mut weights, file.path(), factor)?;
    }
    if settings.get(RESCALE) == Some(&Json::Bool(true)) {
        let norms = autoencoder::decoder_norms(&weights);
        autoencoder::fold_decoder_norms(&mut weights, &norms, file.path(), "W_dec")?;
    }
    Ok((layer, site, weights))
}

fn describe(
    settings: &Settings<'_>,
    options: &DictionaryOptions,
    config: &Config,
) -> Result<Description, CheckpointError> {
    let architecture = match settings.get("architecture") {
        None => "standard",
        Some(_) => settings.text("architecture")?,
    };
    let architecture =
        Architecture::named(architecture).ok_or_else(|| settings.unexpected("architecture", ARCHITECTURES))?;
    let kwargs = settings.object("model_from_pretrained_kwargs")?;
    let of_model = |key: &str| kwargs.map_or(Ok(false), |kwargs| kwargs.flag(key, false));
    let folded = of_model("fold_ln")?;
    // Releases before the setting was saved say it elsewhere.
    let said = options.normalization == Some(Normalization::Centered);
    let centred = match kwargs.and_then(|kwargs| kwargs.get("center_writing_weights")) {
        Some(_) => of_model("center_writing_weights")?,
        None => said,
    };
    let name = settings.text("hook_name")?;
    let found = match architecture.transcoder {
        true => hooks::parse_transcoder(name, settings.text("hook_name_out")?, config, folded),
        false => {
            hooks::parse(name, config, folded).filter(|(_, site)| *site != AutoencoderSite::MlpTranscoderOfNormalized)
        }
    };
    let (layer, site) = found.ok_or_else(|| match architecture.transcoder {
        true => settings.unexpected(
            "hook_name",
            "blocks.<layer>.mlp.hook_in or ln2.hook_normalized, with hook_name_out blocks.<the same layer>.hook_mlp_out",
        ),
        false => settings.unexpected("hook_name", hooks::KNOWN),
    })?;
    if layer >= config.n_layers {
        return Err(settings.unexpected("hook_name", &format!("a layer from 0 to {}", config.n_layers - 1)));
    }
    if settings.get("hook_layer").is_some_and(|found| found.as_u64() != Some(layer as u64)) {
        return Err(settings.unexpected("hook_layer", &format!("{layer}, as hook_name says")));
    }
    refuse_what_is_not_computed(settings, site, architecture)?;
    let shape = Shape::of(site, config, settings.size("d_sae")?);
    if settings.size("d_in")? != shape.inputs {
        return Err(settings.unexpected("d_in", &format!("{}, the width of {name}", shape.inputs)));
    }
    if (architecture.transcoder || settings.get("d_out").is_some()) && settings.size("d_out")? != shape.outputs {
        return Err(settings.unexpected("d_out", &format!("{}, the width of what it writes", shape.outputs)));
    }
    if !architecture.transcoder && settings.get("hook_name_out").is_some_and(|output| output != name) {
        return Err(settings.unexpected("hook_name_out", &format!("\"{name}\", as hook_name, or absent")));
    }
    if said && !config.norm.centers() {
        let expected = "another: TransformerLens centres nothing in a model whose norms do not subtract the mean";
        return Err(CheckpointError::unexpected(settings.path(), "normalization", expected, "centered"));
    }
    let centred = centred && is_centred(site) && config.norm.centers();
    let (normalization, factor) = read_normalization(settings, options.factor, architecture, centred)?;
    Ok(Description { layer, site, shape, normalization, factor, architecture })
}

/// Whether centring what is written to the residual stream changes the activation at this site.
fn is_centred(site: AutoencoderSite) -> bool {
    match Slot::of(site) {
        Slot::Residual => true,
        _ => matches!(site, AutoencoderSite::ResidDeltaAttn | AutoencoderSite::ResidDeltaMlp),
    }
}

/// What is done to inputs, and what they are multiplied with first.
fn read_normalization(
    settings: &Settings<'_>,
    factor: Option<f32>,
    architecture: Architecture,
    centred: bool,
) -> Result<(Normalization, Option<f32>), CheckpointError> {
    const KEY: &str = "normalize_activations";
    let average = json!("expected_average_only_in");
    let plain = if centred { Normalization::Centered } else { Normalization::None };
    let found = match settings.get(KEY) {
        None => plain,
        Some(Json::Bool(false)) => plain,
        Some(found) if found == "none" => plain,
        // The mean is subtracted by the norm itself.
        Some(found) if found == "layer_norm" => Normalization::LAYER_NORM,
        Some(found) if found == "constant_norm_rescale" && !centred => Normalization::ConstantNorm,
        Some(found) if (*found == average || *found == Json::Bool(true)) && !architecture.transcoder => {
            return match factor {
                Some(factor) => Ok((plain, Some(factor))),
                None => Err(settings.unexpected(
                    KEY,
                    "accompanied by the release's factor, which its files do not hold: give it as factor=NUMBER",
                )),
            };
        }
        Some(_) => {
            let known = "\"none\", \"layer_norm\", \"constant_norm_rescale\" (not with centred writes) or, for \
                         autoencoders, \"expected_average_only_in\"";
            return Err(settings.unexpected(KEY, known));
        }
    };
    match factor {
        None => Ok((found, None)),
        Some(factor) => {
            let given = format!("factor={factor} was given, which only \"expected_average_only_in\" takes");
            Err(CheckpointError::unexpected(settings.path(), KEY, given, found.name()))
        }
    }
}

/// Settings that are read, under the names of versions 3 to 5.
const SETTINGS: [&str; 18] = [
    "activation_fn_kwargs",
    "activation_fn_str",
    "apply_b_dec_to_input",
    "architecture",
    "d_in",
    "d_out",
    "d_sae",
    "finetuning_scaling_factor",
    "hook_head_index",
    "hook_head_index_out",
    "hook_layer",
    "hook_name",
    "hook_name_out",
    "k",
    "model_from_pretrained_kwargs",
    "normalize_activations",
    "reshape_activations",
    RESCALE,
];

/// The settings of all versions as one flat object, under the names of versions 3 to 5.
///
/// # Errors
/// If one of [`SETTINGS`] stands in two places that differ.
fn flatten(path: &Path, mut json: Map<String, Json>) -> Result<Map<String, Json>, CheckpointError> {
    match json.remove("metadata") {
        None | Some(Json::Null) => {}
        Some(Json::Object(metadata)) => {
            for (key, value) in metadata {
                let place = format!("metadata.{key}");
                put(path, &mut json, &key, &place, value)?;
            }
        }
        Some(other) => return Err(CheckpointError::unexpected(path, "metadata", "an object", other)),
    }
    for (old, new) in [
        ("hook_point", "hook_name"),
        ("hook_point_layer", "hook_layer"),
        ("hook_point_head_index", "hook_head_index"),
        ("activation_fn", "activation_fn_str"),
    ] {
        if let Some(value) = json.remove(old) {
            put(path, &mut json, new, old, value)?;
        }
    }
    Ok(json)
}

/// Puts a setting that the file has at `place` under `key`, unless it stands there already.
fn put(path: &Path, json: &mut Map<String, Json>, key: &str, place: &str, value: Json) -> Result<(), CheckpointError> {
    match json.get(key).filter(|found| !found.is_null()) {
        None => {
            json.insert(key.to_owned(), value);
            Ok(())
        }
        Some(found) if !value.is_null() && *found != value && SETTINGS.contains(&key) => {
            Err(CheckpointError::unexpected(path, place, format!("{found}, as `{key}`"), value))
        }
        Some(_) => Ok(()),
    }
}

fn refuse_what_is_not_computed(
    settings: &Settings<'_>,
    site: AutoencoderSite,
    kind: Architecture,
) -> Result<(), CheckpointError> {
    let plain = |value: &Json| *value == Json::Bool(false) || value == "none";
    for key in ["finetuning_scaling_factor", "hook_head_index", "hook_head_index_out"] {
        if settings.get(key).is_some_and(|value| !plain(value)) {
            return Err(settings.unexpected(key, "absent or false"));
        }
    }
    let side_by_side = |value: &Json| site == AutoencoderSite::AttnVOut && value == "hook_z";
    if settings.get("reshape_activations").is_some_and(|value| !plain(value) && !side_by_side(value)) {
        return Err(settings.unexpected("reshape_activations", "absent, \"none\" or, for attn.hook_z, \"hook_z\""));
    }
    let topk = settings.get("architecture").is_some_and(|value| value == "topk");
    if settings.get(RESCALE).is_some_and(|value| !(plain(value) || topk && value == &Json::Bool(true))) {
        return Err(settings.unexpected(RESCALE, "absent or false, or for topk true"));
    }
    let is_topk = topk || settings.get("activation_fn_str").is_some_and(|value| value == "topk");
    // BatchTopK is saved as JumpReLU, perhaps with the number that it was trained with.
    let has_k = is_topk || kind.jumps;
    if let Some(arguments) = settings.object("activation_fn_kwargs")?
        && let Some(key) = arguments.keys().find(|key| !(*key == "k" && has_k) && arguments.get(key).is_some())
    {
        return Err(arguments.unexpected(key, "absent: it is no argument of this activation"));
    }
    let read: Vec<&str> = SETTINGS.into_iter().filter(|key| *key != "k" || has_k).collect();
    autoencoder::refuse_what_is_not_read(settings, &read, &[])
}

fn read_activation(
    settings: &Settings<'_>,
    kind: Architecture,
    file: &TensorFile,
    n_latents: usize,
) -> Result<LatentActivation, CheckpointError> {
    let architecture = if settings.get("architecture").is_some() { settings.text("architecture")? } else { "standard" };
    let function = if settings.get("activation_fn_str").is_some() { settings.text("activation_fn_str")? } else { "" };
    match (architecture, function) {
        ("standard", "relu" | "") => Ok(LatentActivation::Relu),
        ("topk", "topk" | "") | ("standard", "topk") => {
            let arguments = settings.object("activation_fn_kwargs")?.and_then(|arguments| arguments.get("k"));
            if let (Some(k), Some(other)) = (settings.get("k"), arguments)
                && k != other
            {
                return Err(settings.unexpected("k", &format!("{other}, as `activation_fn_kwargs.k`")));
            }
            let k = settings.get("k").or(arguments).ok_or_else(|| CheckpointError::missing(settings.path(), "k"))?;
            match k.as_u64().and_then(|k| usize::try_from(k).ok()) {
                Some(k) if (1..=n_latents).contains(&k) => Ok(LatentActivation::TopK { k, relu: true }),
                _ => {
                    let expected = format!("a whole number from 1 to {n_latents}");
                    Err(CheckpointError::unexpected(settings.path(), "k", expected, k))
                }
            }
        }
        (_, "relu" | "") if kind.jumps => {
            // SAELens applies ReLU before it compares, so that a negative threshold lets nothing negative through.
            let threshold = file.tensor("threshold")?.vector(n_latents)?;
            Ok(LatentActivation::JumpRelu { threshold: threshold.into_iter().map(|x| x.max(0.0)).collect() })
        }
        // The gate is folded in when the weights are there.
        (_, "relu" | "") if kind.gated || kind.transcoder => Ok(LatentActivation::Relu),
        _ => Err(settings.unexpected("activation_fn_str", "\"relu\", or \"topk\" for topk")),
    }
}

fn read_frequency(path: &Path, n_latents: usize) -> Result<Option<Vec<f32>>, CheckpointError> {
    if !is_there(path) {
        return Ok(None);
    }
    let sparsity = TensorFile::open(path)?.tensor("sparsity")?.vector(n_latents)?;
    Ok(Some(sparsity.into_iter().map(|x| 10f32.powf(x)).collect()))
}
