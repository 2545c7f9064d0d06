//! Reading models and autoencoders from disk, in the layouts that exist.
//!
//! Everything in a file is checked before it is used: an unknown type, name or shape is a [`CheckpointError`] that
//! names the file, the key and what was found. Nothing in a file is executed, and no size that a file claims is
//! believed before it was compared with the file's own size. Matrices are mapped, not copied, where the file holds
//! 32-bit floats at a fitting address.

mod autoencoder;
mod bytes;
mod dead_latents;
mod error;
pub mod hugging_face;
pub mod native;
mod pickle;
mod pt;
pub mod reference;
pub mod sae_lens;
mod safetensors_file;
mod safetensors_writer;
mod settings;
mod table;
mod tensor;
mod tensor_files;
mod zip_directory;

use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_nn::VarBuilder;

pub(crate) use bytes::read_text;
pub use dead_latents::drop_dead_latents;
pub use error::CheckpointError;
pub use safetensors_writer::Precision;

use crate::config::Config;
use crate::source::Weights;
use crate::tokenizer::Tokenizer;
use crate::weights::{AutoencoderSite, LatentActivation, NamedAutoencoder};

/// A model as it came from disk.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its sizes and settings.
    pub config: Config,
    /// Its tensors; their numbers are read when they are asked for.
    pub weights: Weights,
    /// Its tokenizer. It may have fewer tokens than the model has rows, or more, which the model then refuses.
    pub tokenizer: Tokenizer,
    /// The token that texts begin with in the way of this kind of model, if there is one. It is never put there by itself.
    pub beginning: Option<u32>,
    /// Which layout was read from where, for a person.
    pub origin: String,
    /// What a person should know about how it was read, such as tensors that were left out.
    pub notes: Vec<String>,
}

impl Checkpoint {
    /// The tensors for whoever takes a `VarBuilder`, as 32-bit floats on `device`, under the names of
    /// [`source`](crate::source).
    pub fn var_builder(&self, device: &Device) -> VarBuilder<'static> {
        self.weights.var_builder(device)
    }
}

/// Opens the model in `folder`, whichever layout it has. Settings, names, types and shapes are checked here; that all
/// numbers are finite, where they are read.
///
/// # Errors
/// If no layout fits (the error says what was looked for and found), or the files are not what they should be.
pub fn open(folder: &Path) -> Result<Checkpoint, CheckpointError> {
    let config_path = folder.join("config.json");
    if config_path.is_file() {
        let config = bytes::read_json(&config_path)?;
        if reference::is_config(&config) {
            return reference::load(folder);
        }
        if hugging_face::is_config(&config) {
            return hugging_face::load(folder);
        }
        let keys: Vec<String> = config.keys().take(12).map(|key| error::shorten(key)).collect();
        return Err(CheckpointError::NoLayout {
            folder: folder.to_owned(),
            looked_for: "a config.json with `enc` and `m_mlp` (the reference) or `model_type` (Hugging Face)"
                .to_owned(),
            found: if keys.is_empty() { "an empty object".to_owned() } else { keys.join(", ") },
        });
    }
    Err(CheckpointError::NoLayout {
        folder: folder.to_owned(),
        looked_for: "config.json, beside model_pieces/*.pt (the reference) or model.safetensors and tokenizer.json \
                     (Hugging Face)"
            .to_owned(),
        found: list(folder),
    })
}

/// Reads the autoencoder in `folder` for every layer of a model of this shape.
///
/// Our own files and those of SAELens say their site; for the reference's it is what the caller says, or what the
/// folder's name says (`mlp-post-act`, `resid-delta-mlp`, `resid-delta-attn` in it, with `-` or `_`).
///
/// # Errors
/// If no layout fits, the site is not known or not the one that the caller says, or the files are not what they should
/// be.
pub fn open_autoencoder(
    folder: &Path,
    site: Option<AutoencoderSite>,
    config: &Config,
) -> Result<NamedAutoencoder, CheckpointError> {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let autoencoder = if folder.join("0.safetensors").is_file() {
        native::load_autoencoder(folder, &name, config)?
    } else if folder.join("0.pt").is_file() {
        let site = site.or_else(|| AutoencoderSite::from_name(&name)).ok_or_else(|| {
            let expected = format!("given, or named in the folder's name ({SITE_NAMES})");
            CheckpointError::unexpected(folder, "site", expected, format!("a folder named \"{name}\""))
        })?;
        let autoencoder = NamedAutoencoder { site, layers: reference::load_autoencoder(folder, site, config)?, name };
        refuse_normalised_inputs(folder, &autoencoder)?;
        autoencoder
    } else if !sae_lens::layer_folders(folder).is_empty() {
        sae_lens::load_autoencoder(folder, &name, config)?
    } else {
        return Err(CheckpointError::NoLayout {
            folder: folder.to_owned(),
            looked_for: "0.pt, 1.pt, ... (state dicts of torch.save), 0.safetensors, 1.safetensors, ... (our own) or \
                         folders with cfg.json (SAELens)"
                .to_owned(),
            found: list(folder),
        });
    };
    if let Some(site) = site.filter(|&site| site != autoencoder.site) {
        return Err(CheckpointError::unexpected(
            folder,
            "site",
            format!("{site:?}"),
            format!("{:?}", autoencoder.site),
        ));
    }
    same_width(folder, autoencoder)
}

/// The released TopK autoencoders of version 5 read normalised inputs, and nothing in their files says so but the name.
fn refuse_normalised_inputs(folder: &Path, autoencoder: &NamedAutoencoder) -> Result<(), CheckpointError> {
    let is_version_5 = autoencoder.name.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| part == "v5");
    let is_top_k = autoencoder.layers.iter().any(|layer| matches!(layer.activation, LatentActivation::TopK { .. }));
    match is_version_5 && is_top_k {
        false => Ok(()),
        true => Err(CheckpointError::unexpected(
            folder,
            "version",
            "one whose inputs are not normalised (normalisation is not computed)",
            format!(
                "v5, in the name \"{}\", of a TopK autoencoder: it was trained on normalised inputs",
                autoencoder.name
            ),
        )),
    }
}

const SITE_NAMES: &str = "mlp-post-act, resid-delta-mlp or resid-delta-attn";

fn same_width(folder: &Path, autoencoder: NamedAutoencoder) -> Result<NamedAutoencoder, CheckpointError> {
    let width = autoencoder.n_latents();
    match autoencoder.layers.iter().position(|layer| layer.latent_bias.len() != width) {
        None => Ok(autoencoder),
        Some(layer) => {
            let found = autoencoder.layers[layer].latent_bias.len();
            let expected = format!("{width}, as in layer 0");
            Err(CheckpointError::unexpected(folder, format!("number of latents of layer {layer}"), expected, found))
        }
    }
}

/// What lies in a folder, for the error that no layout fits.
fn list(folder: &Path) -> String {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return "no folder that can be read".to_owned();
    };
    let mut names: Vec<PathBuf> = entries.flatten().map(|entry| PathBuf::from(entry.file_name())).collect();
    names.sort();
    let more = names.len().saturating_sub(12);
    names.truncate(12);
    let mut text: Vec<String> = names.iter().map(|name| error::shorten(&name.to_string_lossy())).collect();
    if more > 0 {
        text.push(format!("{more} more"));
    }
    if text.is_empty() { "an empty folder".to_owned() } else { text.join(", ") }
}
