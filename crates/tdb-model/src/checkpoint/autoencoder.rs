//! What the layouts of autoencoders have in common: a table with these names, one a layer.
//!
//! | name | shape | |
//! |---|---|---|
//! | `encoder.weight` | `[n_latents, n_inputs]` | |
//! | `latent_bias` | `[n_latents]` | zero where it is absent |
//! | `decoder.weight` | `[n_outputs, n_latents]` | |
//! | `encoder_pre_bias` | `[n_inputs]` | subtracted from the input; nothing is where it is absent |
//! | `decoder_bias` | `[n_outputs]` | zero where it is absent |
//! | `skip.weight` | `[n_outputs, n_inputs]` | optional |
//! | `activation_frequency` | `[n_latents]` | optional |

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::CheckpointError;
use super::settings::{Settings, check_size};
use super::table::Table;
use super::tensor::NamedTensor;
use crate::config::Config;
use crate::matrix::{Element, Matrix};
use crate::source::Source;
use crate::weights::{AutoencoderSite, AutoencoderWeights, LatentActivation, NamedAutoencoder, Normalization};

/// Numbers per token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub latents: usize,
    pub inputs: usize,
    pub outputs: usize,
}

impl Shape {
    pub fn of(site: AutoencoderSite, config: &Config, latents: usize) -> Self {
        Shape { latents, inputs: site.width(config), outputs: site.output_width(config) }
    }
}

/// The number of latents, as the bias of the latents has it.
pub(super) fn n_latents(path: &Path, latent_bias: &NamedTensor) -> Result<usize, CheckpointError> {
    let n_latents = latent_bias.tensor.shape().first().copied().unwrap_or(0);
    check_size(path, &latent_bias.key, n_latents)?;
    Ok(n_latents)
}

/// One layer's weights.
pub(super) fn read(
    table: &Table,
    Shape { latents, inputs, outputs }: Shape,
    activation: LatentActivation,
    normalization: Normalization,
) -> Result<AutoencoderWeights, CheckpointError> {
    let optional = |name: &str, len: usize| table.contains(name).then(|| table.vector(name, len)).transpose();
    let or_zero = |name: &str, len: usize| optional(name, len).map(|found| found.unwrap_or_else(|| vec![0.0; len]));
    // Latents are encoded for few tokens at a time, where converting would cost more than the product.
    let matrix = |name: &str, shape| table.matrix(name, shape).map(|found| found.stored_as(Element::F32));
    let skip = table.contains("skip.weight").then(|| matrix("skip.weight", [outputs, inputs]));
    Ok(AutoencoderWeights {
        normalization,
        activation_frequency: optional("activation_frequency", latents)?,
        encoder_pre_bias: or_zero("encoder_pre_bias", inputs)?,
        encoder: matrix("encoder.weight", [latents, inputs])?,
        latent_bias: or_zero("latent_bias", latents)?,
        activation,
        decoder: matrix("decoder.weight", [outputs, latents])?,
        decoder_bias: or_zero("decoder_bias", outputs)?,
        skip: skip.transpose()?,
    })
}

/// Settings by which one library or another says what its dictionaries compute.
const COMPUTES: [&str; 35] = [
    "activation",
    "activation_fn",
    "activation_fn_kwargs",
    "activation_fn_str",
    "activation_function",
    "affine_connection",
    "apply_b_dec_to_input",
    "apply_decoder_bias_to_pre_encoder",
    "architecture",
    "center_activations",
    "finetuning_scaling_factor",
    "input_scale",
    "jump_relu_threshold",
    "k",
    "norm_activation",
    "normalize",
    "normalize_activations",
    "normalize_inputs",
    "normalize_io",
    "output_scale",
    "post_encoder_scale",
    "rescale_acts",
    "rescale_acts_by_decoder_norm",
    "reshape_activations",
    "scale",
    "scaling_factor",
    "signed",
    "skip_connection",
    "sparsity_include_decoder_norm",
    "subtract_b_dec",
    "threshold",
    "top_k",
    "topk",
    "transcode",
    "type",
];

/// Refuses a setting of [`COMPUTES`] that this layout's reader does not look at, unless it says what the reader does.
/// `read`: the settings that it looks at. `does`: what others have to say; those that are not there have to be off. All
/// other settings (of training, of names, of devices) may say what they want.
pub(super) fn refuse_what_is_not_read(
    settings: &Settings<'_>,
    read: &[&str],
    does: &[(&str, Value)],
) -> Result<(), CheckpointError> {
    for key in COMPUTES.into_iter().filter(|key| !read.contains(key)) {
        let Some(found) = settings.get(key) else { continue };
        match does.iter().find(|(of, _)| *of == key) {
            Some((_, same)) if found == same => {}
            Some((_, same)) => return Err(settings.unexpected(key, &format!("{same}, as this layout is computed"))),
            None if is_off(key, found) => {}
            None => return Err(settings.unexpected(key, "absent or off: what it changes is not computed here")),
        }
    }
    Ok(())
}

fn is_off(key: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => key.contains("scal") && number.as_f64() == Some(1.0),
        Value::String(text) => text.is_empty() || text == "none",
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
    }
}

/// The folders with one layer each, which have all of these files: `folder` itself, or its subfolders.
pub(super) fn layer_folders(folder: &Path, files: [&str; 2]) -> Vec<PathBuf> {
    folders_with(folder, |folder| files.iter().all(|file| folder.join(file).is_file()))
}

/// The first file with weights of a layout that has these two files, settings and weights, in a folder for each layer.
pub(super) fn find(folder: &Path, files: [&str; 2]) -> Option<PathBuf> {
    layer_folders(folder, files).first().map(|folder| folder.join(files[1]))
}

/// The last part of a path.
pub(super) fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The dictionaries of several layers, each read from a folder of its own, as one. `files`: that with the settings,
/// which says what a folder's dictionary is, and that with the weights.
pub(super) fn of_folders(
    folder: &Path,
    name: &str,
    files: [&str; 2],
    read: impl Fn(&Path) -> Result<(usize, AutoencoderSite, AutoencoderWeights), CheckpointError>,
) -> Result<NamedAutoencoder, CheckpointError> {
    let folders = layer_folders(folder, files);
    if folders != [folder] {
        refuse_incomplete(&entries(folder), files)?;
    }
    let read = |folder: PathBuf| {
        let (layer, site, weights) = read(&folder)?;
        Ok((layer, site, weights, folder.join(files[0])))
    };
    of_layers(folder, name, folders.into_iter().map(read).collect::<Result<_, CheckpointError>>()?)
}

/// Refuses a folder that has one of the two files and not the other: a layer that would be left out without a word.
pub(super) fn refuse_incomplete(folders: &[PathBuf], files: [&str; 2]) -> Result<(), CheckpointError> {
    for folder in folders {
        let [first, second] = files.map(|file| folder.join(file).is_file());
        if first != second {
            let missing = if first { files[1] } else { files[0] };
            return Err(CheckpointError::missing(folder, missing));
        }
    }
    Ok(())
}

/// The folder itself if it is one of a layer, else those of its subfolders that are.
pub(super) fn folders_with(folder: &Path, is_layer: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    if is_layer(folder) {
        return vec![folder.to_owned()];
    }
    entries(folder).into_iter().filter(|folder| is_layer(folder)).collect()
}

/// What lies in a folder, in order.
pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    let found = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = found.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// The layers that a folder has a file `<layer>.<extension>` for, ascending.
pub(super) fn numbered_files(folder: &Path, extension: &str) -> Vec<(usize, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let numbered = |path: &Path| {
        let name = path.file_name()?.to_str()?.strip_suffix(extension)?.strip_suffix('.')?;
        // "07" would be another file than "7".
        name.parse().ok().filter(|layer: &usize| layer.to_string() == name)
    };
    let mut found: Vec<_> = entries.filter_map(|entry| Some((numbered(&entry.path())?, entry.path()))).collect();
    found.sort();
    found
}

/// Refuses a layer that the model lacks.
pub(super) fn check_layer(path: &Path, layer: usize, config: &Config) -> Result<(), CheckpointError> {
    match layer < config.n_layers {
        true => Ok(()),
        false => {
            let expected = format!("from 0 to {}, the model's layers", config.n_layers - 1);
            Err(CheckpointError::unexpected(path, "layer", expected, layer))
        }
    }
}

/// The dictionaries of several layers as one. `found`: the layer, its site, its weights and its file.
pub(super) fn of_layers(
    folder: &Path,
    name: &str,
    mut found: Vec<(usize, AutoencoderSite, AutoencoderWeights, PathBuf)>,
) -> Result<NamedAutoencoder, CheckpointError> {
    found.sort_by_key(|(layer, ..)| *layer);
    let Some(site) = found.first().map(|(_, site, ..)| *site) else {
        return Err(CheckpointError::missing(folder, "a layer's dictionary"));
    };
    if let Some((_, other, _, file)) = found.iter().find(|(_, other, ..)| *other != site) {
        let expected = format!("{}, the same site in all layers", site.name());
        return Err(CheckpointError::unexpected(file, "site", expected, other.name()));
    }
    if let Some(pair) = found.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let what = format!("another one for layer {}", pair[1].0);
        return Err(CheckpointError::unexpected(&pair[1].3, "layer", "one dictionary a layer", what));
    }
    let (indices, layers) = found.into_iter().map(|(layer, _, weights, _)| (layer, weights)).unzip();
    Ok(NamedAutoencoder { name: name.to_owned(), site, layers, indices })
}

/// `s x` is encoded instead of `x`: the factor in the weights.
///
/// # Errors
/// If a number becomes larger than any; `path` names the weights.
pub(super) fn fold_input_factor(
    weights: &mut AutoencoderWeights,
    path: &Path,
    factor: f32,
) -> Result<(), CheckpointError> {
    let times = |matrix: &Matrix, factor: f32| {
        let numbers = matrix.to_vec().into_iter().map(|x| x * factor).collect();
        Matrix::from_vec(matrix.rows(), matrix.cols(), numbers)
    };
    weights.encoder = times(&weights.encoder, factor);
    weights.decoder = times(&weights.decoder.transpose(), 1.0 / factor).transpose();
    weights.encoder_pre_bias.iter_mut().chain(&mut weights.decoder_bias).for_each(|x| *x /= factor);
    let are_finite = [&weights.encoder, &weights.decoder].iter().all(|matrix| matrix.first_not_finite().is_none())
        && weights.encoder_pre_bias.iter().chain(&weights.decoder_bias).all(|x| x.is_finite());
    match are_finite {
        true => Ok(()),
        false => Err(CheckpointError::unexpected(path, "factor", "one that leaves all weights finite", factor)),
    }
}

/// What a gate's sum may lose by rounding, as a part of the length of its row.
const GATE_SHARPNESS: f32 = 1.0 / 1024.0;

/// `z = 1[g + b_gate > 0] · ReLU(exp(r) g + b_mag)` with `g = W_gate x` (Rajamanoharan et al. 2024), as a jump:
/// `y = exp(r) g + b_mag` is positive and above `b_mag - exp(r) b_gate`. `rescaling` is `r`, `[n_latents]`, and so is
/// `gate_bias`.
///
/// # Errors
/// If `exp(r)` is so large that weights become infinite, or so small that beside `b_mag` rounding loses the gate;
/// `path` names the weights.
pub(super) fn fold_gate(
    weights: &mut AutoencoderWeights,
    path: &Path,
    rescaling: &[f32],
    gate_bias: &[f32],
) -> Result<(), CheckpointError> {
    let (rows, cols) = (weights.encoder.rows(), weights.encoder.cols());
    let mut encoder = weights.encoder.to_vec();
    let mut threshold = Vec::with_capacity(rows);
    for (latent, row) in encoder.chunks_exact_mut(cols).enumerate() {
        let (r, magnitude) = (rescaling[latent], weights.latent_bias[latent]);
        let (factor, length) = (r.exp(), row.iter().map(|x| x * x).sum::<f32>().sqrt());
        row.iter_mut().for_each(|x| *x *= factor);
        let least = (magnitude - factor * gate_bias[latent]).max(0.0);
        let is_lost = magnitude * f32::EPSILON > GATE_SHARPNESS * factor * length;
        if is_lost || !least.is_finite() || row.iter().any(|x| !x.is_finite()) {
            let expected =
                "such that its exponential leaves the weights finite and the gate above what b_mag rounds away";
            return Err(CheckpointError::unexpected(path, "r_mag", expected, format!("{r} at index {latent}")));
        }
        threshold.push(least);
    }
    weights.encoder = Matrix::from_vec(rows, cols, encoder);
    weights.activation = LatentActivation::JumpRelu { threshold };
    Ok(())
}

/// The length of what each latent writes, `[n_latents]`.
pub(super) fn decoder_norms(weights: &AutoencoderWeights) -> Vec<f64> {
    let directions = weights.decoder.transpose();
    let norm = |latent: usize| directions.row(latent).iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    (0..directions.rows()).map(norm).collect()
}

/// Some are trained so that a latent is chosen by, and has as its value, what it writes in length: the encoder's result
/// times the length of the latent's direction, which the decoder then divides by. The same with directions of length 1.
/// `norms` are those lengths, [`decoder_norms`]. Only for activations without thresholds.
///
/// # Errors
/// If a number becomes larger than any; `path` and `key` name the decoder.
pub(super) fn fold_decoder_norms(
    weights: &mut AutoencoderWeights,
    norms: &[f64],
    path: &Path,
    key: &str,
) -> Result<(), CheckpointError> {
    let directions = weights.decoder.transpose();
    let (n, width) = (directions.rows(), directions.cols());
    let (mut encoder, mut decoder) = (Vec::with_capacity(n * width), Vec::with_capacity(n * width));
    for (latent, &norm) in norms.iter().enumerate() {
        let times = |x: f32| (f64::from(x) * norm) as f32;
        encoder.extend(weights.encoder.row(latent).iter().map(|&x| times(x)));
        weights.latent_bias[latent] = times(weights.latent_bias[latent]);
        // A direction of length 0 stays; its latent is always 0.
        let over = if norm > 0.0 { norm } else { 1.0 };
        decoder.extend(directions.row(latent).iter().map(|&x| (f64::from(x) / over) as f32));
        if encoder[latent * width..].iter().chain([&weights.latent_bias[latent]]).any(|x| !x.is_finite()) {
            let expected = "such that the encoder stays finite when it is multiplied with the lengths of directions";
            let found = format!("a direction of length {norm} at index {latent}");
            return Err(CheckpointError::unexpected(path, key, expected, found));
        }
    }
    weights.encoder = Matrix::from_vec(n, width, encoder);
    weights.decoder = Matrix::from_vec(n, width, decoder).transpose();
    Ok(())
}
