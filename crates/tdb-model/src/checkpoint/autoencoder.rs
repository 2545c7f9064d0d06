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

use super::error::CheckpointError;
use super::settings::check_size;
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

/// The folders with one layer each, which have all of these files: `folder` itself, or its subfolders.
pub(super) fn layer_folders(folder: &Path, files: [&str; 2]) -> Vec<PathBuf> {
    folders_with(folder, |folder| files.iter().all(|file| folder.join(file).is_file()))
}

/// The dictionaries of several layers, each read from a folder of its own, as one. `settings`: the file that says what a
/// folder's dictionary is.
pub(super) fn of_folders(
    folder: &Path,
    name: &str,
    folders: Vec<PathBuf>,
    settings: &str,
    read: impl Fn(&Path) -> Result<(usize, AutoencoderSite, AutoencoderWeights), CheckpointError>,
) -> Result<NamedAutoencoder, CheckpointError> {
    let read = |folder: PathBuf| {
        let (layer, site, weights) = read(&folder)?;
        Ok((layer, site, weights, folder.join(settings)))
    };
    of_layers(folder, name, folders.into_iter().map(read).collect::<Result<_, CheckpointError>>()?)
}

/// The folder itself if it is one of a layer, else those of its subfolders that are.
pub(super) fn folders_with(folder: &Path, is_layer: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    if is_layer(folder) {
        return vec![folder.to_owned()];
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|folder| is_layer(folder)).collect();
    folders.sort();
    folders
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
pub(super) fn fold_input_factor(weights: &mut AutoencoderWeights, factor: f32) {
    let times = |matrix: &Matrix, factor: f32| {
        let numbers = matrix.to_vec().into_iter().map(|x| x * factor).collect();
        Matrix::from_vec(matrix.rows(), matrix.cols(), numbers)
    };
    weights.encoder = times(&weights.encoder, factor);
    weights.decoder = times(&weights.decoder.transpose(), 1.0 / factor).transpose();
    weights.encoder_pre_bias.iter_mut().chain(&mut weights.decoder_bias).for_each(|x| *x /= factor);
}

/// `z = 1[g + b_gate > 0] · ReLU(exp(r) g + b_mag)` with `g = W_gate x` (Rajamanoharan et al. 2024), as a jump:
/// `y = exp(r) g + b_mag` is positive and above `b_mag - exp(r) b_gate`.
pub(super) fn fold_gate(weights: &mut AutoencoderWeights, rescaling: &[f32], gate_bias: &[f32]) {
    let (rows, cols) = (weights.encoder.rows(), weights.encoder.cols());
    let mut encoder = weights.encoder.to_vec();
    let mut threshold = Vec::with_capacity(rows);
    for ((row, (r, gate)), magnitude) in
        encoder.chunks_exact_mut(cols).zip(rescaling.iter().zip(gate_bias)).zip(&weights.latent_bias)
    {
        let factor = r.exp();
        row.iter_mut().for_each(|x| *x *= factor);
        threshold.push((magnitude - factor * gate).max(0.0));
    }
    weights.encoder = Matrix::from_vec(rows, cols, encoder);
    weights.activation = LatentActivation::JumpRelu { threshold };
}

/// Some are trained so that a latent is chosen by, and has as its value, what it writes in length: the encoder's result
/// times the length of the latent's direction, which the decoder then divides by. The same with directions of length 1.
pub(super) fn fold_decoder_norms(weights: &mut AutoencoderWeights) {
    let directions = weights.decoder.transpose();
    let (n, width) = (directions.rows(), directions.cols());
    let (mut encoder, mut decoder) = (Vec::with_capacity(n * width), Vec::with_capacity(n * width));
    for latent in 0..n {
        let direction = directions.row(latent);
        let norm = direction.iter().map(|x| x * x).sum::<f32>().sqrt();
        encoder.extend(weights.encoder.row(latent).iter().map(|x| x * norm));
        weights.latent_bias[latent] *= norm;
        if let LatentActivation::JumpRelu { threshold } = &mut weights.activation {
            threshold[latent] *= norm;
        }
        // A direction of length 0 stays; its latent is always 0.
        decoder.extend(direction.iter().map(|x| if norm > 0.0 { x / norm } else { *x }));
    }
    weights.encoder = Matrix::from_vec(n, width, encoder);
    weights.decoder = Matrix::from_vec(n, width, decoder).transpose();
}
