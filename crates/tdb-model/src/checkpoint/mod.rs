//! Reading models and autoencoders from disk, in the layouts that exist.
//!
//! Everything in a file is checked before it is used: an unknown type, name or shape is a [`CheckpointError`] that
//! names the file, the key and what was found. Nothing in a file is executed, and no size that a file claims is
//! believed before it was compared with the file's own size. Matrices are mapped, not copied, where the file holds
//! 32-bit floats at a fitting address.

mod attention_saes;
mod autoencoder;
mod bytes;
mod circuit_tracer;
mod dead_latents;
mod dictionary_learning;
mod error;
mod gemma_scope;
mod hooks;
pub mod hugging_face;
pub mod native;
mod npz;
mod pickle;
mod pt;
pub mod reference;
pub mod sae_lens;
mod safetensors_file;
mod safetensors_writer;
mod settings;
mod sparsify;
mod table;
mod tensor;
mod tensor_files;
mod transformer_lens;
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
use crate::weights::{AutoencoderSite, NamedAutoencoder, Normalization};

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
    open_with_tokenizer(folder, None)
}

/// As [`open`]; a folder in TransformerLens' layout that has no tokenizer takes the `tokenizer.json` at `tokenizer`.
///
/// # Errors
/// As [`open`].
pub fn open_with_tokenizer(folder: &Path, tokenizer: Option<&Path>) -> Result<Checkpoint, CheckpointError> {
    let config_path = folder.join("config.json");
    if bytes::is_there(&config_path) {
        let config = bytes::read_json(&config_path)?;
        if reference::is_config(&config) {
            return reference::load(folder);
        }
        if hugging_face::is_config(&config) {
            return hugging_face::load(folder);
        }
        if transformer_lens::is_config(&config) {
            return transformer_lens::load(folder, tokenizer);
        }
        let keys: Vec<String> = config.keys().take(12).map(|key| error::shorten(key)).collect();
        return Err(CheckpointError::NoLayout {
            folder: folder.to_owned(),
            looked_for:
                "a config.json with `enc` and `m_mlp` (the reference), `model_type` (Hugging Face) or `d_model`, \
                         `n_layers`, `n_ctx` and `d_vocab` (TransformerLens)"
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

/// The repository of Hugging Face's hub that has the `tokenizer.json` which the model in `folder` needs and does not have:
/// that of [`open_with_tokenizer`]. `None` if none is named or needed, or if the settings cannot be read, which opening the
/// model tells.
pub fn named_tokenizer(folder: &Path) -> Option<String> {
    let config = bytes::read_json(&folder.join("config.json")).ok()?;
    transformer_lens::is_config(&config).then(|| transformer_lens::named_tokenizer(folder, &config)).flatten()
}

/// What a person says about a dictionary whose files do not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DictionaryOptions {
    /// Where it stands.
    pub site: Option<AutoencoderSite>,
    /// What is done to its inputs first.
    pub normalization: Option<Normalization>,
    /// The layer of the model that it belongs to, where there is one.
    pub layer: Option<usize>,
    /// What inputs are multiplied with: that of SAELens' `expected_average_only_in`.
    pub factor: Option<f32>,
}

/// Reads the dictionaries in `folder`, for those layers of a model of this shape that it has files for.
///
/// As [`open_dictionary`] with nothing said but the site.
///
/// # Errors
/// As [`open_dictionary`].
pub fn open_autoencoder(
    folder: &Path,
    site: Option<AutoencoderSite>,
    config: &Config,
) -> Result<NamedAutoencoder, CheckpointError> {
    open_dictionary(folder, &DictionaryOptions { site, ..Default::default() }, config)
}

/// Reads the dictionaries in `folder`, for those layers of a model of this shape that it has files for.
///
/// Most layouts say their site; for the others it is what the caller says, or what the folder's name says (a name of
/// [`AutoencoderSite`] in it, with `-` or `_`). OpenAI's state dicts of version 5 read layer-normed inputs, which
/// nothing in their files says: it is what the caller says, or what `v5` in the folder's name says.
///
/// # Errors
/// If no layout fits or two do, something that has to be said is not, or is not what the files say, or the files are
/// not what they should be.
pub fn open_dictionary(
    folder: &Path,
    options: &DictionaryOptions,
    config: &Config,
) -> Result<NamedAutoencoder, CheckpointError> {
    let name = autoencoder::name_of(folder);
    let autoencoder = match layout(folder)? {
        Layout::Native => native::load_autoencoder(folder, &name, config)?,
        Layout::Reference => {
            let site = options.site.or_else(|| AutoencoderSite::from_name(&name)).ok_or_else(|| {
                let expected =
                    format!("given as site=NAME, or be in the folder's name (one of {})", AutoencoderSite::names());
                CheckpointError::unexpected(folder, "site", expected, format!("a folder named \"{name}\""))
            })?;
            if site.is_transcoder() {
                let expected = "that of an autoencoder: these files hold no transcoders";
                return Err(CheckpointError::unexpected(folder, "site", expected, site.name()));
            }
            let normalization = options.normalization.unwrap_or_else(|| normalization_of_name(&name));
            reference::load_autoencoder(folder, &name, site, normalization, config)?
        }
        Layout::CircuitTracer => circuit_tracer::load(folder, &name, options, config)?,
        Layout::SaeLens => sae_lens::load_autoencoder(folder, &name, options, config)?,
        Layout::Sparsify => sparsify::load(folder, &name, options, config)?,
        Layout::DictionaryLearning => dictionary_learning::load(folder, &name, options, config)?,
        Layout::GemmaScope => gemma_scope::load(folder, &name, options, config)?,
        Layout::AttentionSaes => attention_saes::load(folder, &name, options, config)?,
    };
    check_options(folder, options, &autoencoder)?;
    same_width(folder, autoencoder)
}

/// The layouts of dictionaries.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Native,
    CircuitTracer,
    Reference,
    SaeLens,
    Sparsify,
    DictionaryLearning,
    GemmaScope,
    AttentionSaes,
}

/// The one layout that a folder has files of.
fn layout(folder: &Path) -> Result<Layout, CheckpointError> {
    let numbered = |extension| autoencoder::numbered_files(folder, extension).into_iter().next().map(|(_, path)| path);
    let found: Vec<(Layout, PathBuf)> = [
        (Layout::Native, numbered("safetensors")),
        (Layout::CircuitTracer, circuit_tracer::find(folder)),
        (Layout::Reference, numbered("pt")),
        (Layout::SaeLens, sae_lens::find(folder)),
        (Layout::Sparsify, sparsify::find(folder)),
        (Layout::DictionaryLearning, dictionary_learning::find(folder)),
        (Layout::GemmaScope, gemma_scope::find(folder)),
        (Layout::AttentionSaes, attention_saes::find(folder)),
    ]
    .into_iter()
    .filter_map(|(layout, file)| Some((layout, file?)))
    .collect();
    match found.as_slice() {
        [(layout, _)] => Ok(*layout),
        [] => Err(CheckpointError::NoLayout {
            folder: folder.to_owned(),
            looked_for: LAYOUTS.to_owned(),
            found: list(folder),
        }),
        [(_, first), (_, second), ..] => {
            let [first, second] = [first, second].map(|file| file.strip_prefix(folder).unwrap_or(file).display());
            Err(CheckpointError::damaged(
                folder,
                format!("it holds dictionaries of two layouts, {first} and {second}, and may hold only one of them"),
            ))
        }
    }
}

/// What a dictionary's folder may hold.
const LAYOUTS: &str = "0.pt, 1.pt, ... (state dicts of torch.save); 0.safetensors, 1.safetensors, ... (our own); cfg.json \
                       with sae_weights.safetensors (SAELens) or sae.safetensors (sparsify), config.json with ae.pt \
                       (dictionary_learning), params.npz or params.safetensors (Gemma Scope), each in the folder or its \
                       subfolders; config.yaml with layer_0.safetensors (circuit-tracer); or .pt files with _cfg.json";

/// What layouts that say nothing of it are read with.
fn normalization_or_none(options: &DictionaryOptions) -> Normalization {
    options.normalization.unwrap_or_default()
}

/// OpenAI's releases of version 5 are named `..._v5_32k` and `..._v5_128k`.
fn normalization_of_name(name: &str) -> Normalization {
    match name.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| part == "v5") {
        true => Normalization::LAYER_NORM,
        false => Normalization::None,
    }
}

/// What was said has to be what was found.
fn check_options(folder: &Path, options: &DictionaryOptions, found: &NamedAutoencoder) -> Result<(), CheckpointError> {
    let differs = |key: &str, said: &str, found: &str| Err(CheckpointError::unexpected(folder, key, said, found));
    if let Some(site) = options.site.filter(|&site| site != found.site) {
        return differs("site", site.name(), found.site.name());
    }
    if let Some(said) = options.normalization {
        let other = found.layers.iter().find(|layer| layer.normalization.name() != said.name());
        if let Some(other) = other {
            return differs("normalization", said.name(), other.normalization.name());
        }
    }
    match options.layer {
        Some(layer) if found.indices != [layer] => {
            differs("layer", &layer.to_string(), &format!("{:?}", found.indices))
        }
        _ => Ok(()),
    }
}

fn same_width(folder: &Path, autoencoder: NamedAutoencoder) -> Result<NamedAutoencoder, CheckpointError> {
    let width = autoencoder.n_latents();
    match autoencoder.layers.iter().position(|layer| layer.latent_bias.len() != width) {
        None => Ok(autoencoder),
        Some(layer) => {
            let found = autoencoder.layers[layer].latent_bias.len();
            let (layer, first) = (autoencoder.indices[layer], autoencoder.indices[0]);
            let expected = format!("{width}, as in layer {first}");
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
