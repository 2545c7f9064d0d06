//! Gemma Scope's folders (Lieberum et al. 2024), and those of its second release.
//!
//! ```text
//! .../layer_12/width_16k/average_l0_82/params.npz                W_enc [d, L], W_dec [L, d], b_enc, b_dec, threshold
//! .../layer_12_width_16k_l0_small/params.safetensors, config.json  the same as w_enc, w_dec, ..., affine_skip_connection
//! ```
//!
//! JumpReLU throughout; nothing is subtracted from inputs. The first release says site and layer in names alone: the
//! repository's (`-res`, `-mlp`, `-att`, `-transcoders`) and the folder's, or the caller does. The second has them in
//! `config.json`.

use std::path::{Path, PathBuf};

use super::autoencoder::{self, Shape, folders_with};
use super::bytes::read_json;
use super::error::CheckpointError;
use super::hooks;
use super::npz::NpzFile;
use super::safetensors_file::TensorFile;
use super::settings::Settings;
use super::table::{Entries, Order};
use super::tensor::NamedTensor;
use super::{DictionaryOptions, normalization_or_none};
use crate::config::Config;
use crate::weights::{AutoencoderSite, AutoencoderWeights, LatentActivation, NamedAutoencoder};

const ARRAYS: &str = "params.npz";
const TENSORS: &str = "params.safetensors";
const CONFIG: &str = "config.json";
const SKIP: &str = "affine_skip_connection";

/// The folders with one layer each: `folder` itself, or its subfolders.
fn layer_folders(folder: &Path) -> Vec<PathBuf> {
    folders_with(folder, |folder| {
        folder.join(ARRAYS).is_file() || folder.join(TENSORS).is_file() && folder.join(CONFIG).is_file()
    })
}

/// The first file with weights in this layout.
pub(super) fn find(folder: &Path) -> Option<PathBuf> {
    let folder = layer_folders(folder).into_iter().next()?;
    Some(folder.join(if folder.join(ARRAYS).is_file() { ARRAYS } else { TENSORS }))
}

pub(super) fn load(
    folder: &Path,
    name: &str,
    options: &DictionaryOptions,
    config: &Config,
) -> Result<NamedAutoencoder, CheckpointError> {
    let read = |folder: PathBuf| match folder.join(ARRAYS).is_file() {
        true => read_arrays(&folder, options, config),
        false => read_tensors(&folder, options, config),
    };
    let folders = layer_folders(folder);
    if folders != [folder] {
        let mut others = autoencoder::entries(folder);
        others.retain(|folder| !folder.join(ARRAYS).is_file());
        autoencoder::refuse_incomplete(&others, [CONFIG, TENSORS])?;
    }
    let layers = folders.into_iter().map(read).collect::<Result<_, CheckpointError>>()?;
    autoencoder::of_layers(folder, name, layers)
}

type Layer = (usize, AutoencoderSite, AutoencoderWeights, PathBuf);

fn read_arrays(folder: &Path, options: &DictionaryOptions, config: &Config) -> Result<Layer, CheckpointError> {
    let file = NpzFile::open(&folder.join(ARRAYS))?;
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let parts: Vec<String> = whole.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let named = parts.iter().rev().find_map(|part| site_of_repository(part));
    let site = named.or(options.site).ok_or_else(|| {
        let expected = format!("given as site=NAME (one of {}), or told by a folder's name", AutoencoderSite::names());
        CheckpointError::unexpected(file.path(), "site", expected, "names that do not tell it")
    })?;
    let layer = parts.iter().rev().find_map(|part| layer_of(part)).or(options.layer).ok_or_else(|| {
        let expected = "given as layer=NUMBER, or told by a folder's name such as layer_12";
        CheckpointError::unexpected(file.path(), "layer", expected, "names that do not tell it")
    })?;
    let tensors = Tensors {
        path: file.path(),
        names: file.names(),
        keys: ["W_enc", "W_dec", "b_enc", "b_dec", "threshold"],
        skip: None,
        find: &|key| file.tensor(key),
    };
    Ok((layer, site, tensors.read(site, layer, options, config)?, file.path().to_owned()))
}

fn read_tensors(folder: &Path, options: &DictionaryOptions, config: &Config) -> Result<Layer, CheckpointError> {
    let path = folder.join(CONFIG);
    let json = read_json(&path)?;
    let settings = Settings::new(&path, &json);
    if settings.text("architecture")? != "jump_relu" {
        return Err(settings.unexpected("architecture", "\"jump_relu\""));
    }
    let (input, output) = (settings.text("hf_hook_point_in")?, settings.get("hf_hook_point_out"));
    let output = output.map_or(Ok(input), |_| settings.text("hf_hook_point_out"))?;
    let found = match input == output {
        true => hooks::parse(input, config, false),
        false => hooks::parse_transcoder(input, output, config, false),
    };
    let (layer, site) = found.ok_or_else(|| settings.unexpected("hf_hook_point_in", hooks::KNOWN))?;
    // Other kinds write elsewhere, or in several layers.
    let kind = if settings.get("type").is_some() { Some(settings.text("type")?) } else { None };
    let is_of_kind = |kind: &str| if site.is_transcoder() { kind.ends_with("transcoder") } else { kind == "sae" };
    if kind.is_some_and(|kind| !is_of_kind(kind)) {
        let expected = if site.is_transcoder() { "\"transcoder\"" } else { "\"sae\"" };
        return Err(settings.unexpected("type", &format!("{expected}, as the hooks are")));
    }
    let read = ["affine_connection", "architecture", "type"];
    autoencoder::refuse_what_is_not_read(&settings, &read, &[])?;
    let file = TensorFile::open(&folder.join(TENSORS))?;
    let has_skip = file.contains(SKIP);
    if settings.flag("affine_connection", has_skip)? != has_skip {
        return Err(settings.unexpected("affine_connection", &format!("{has_skip}, as the tensors of {TENSORS} are")));
    }
    let latents = autoencoder::n_latents(file.path(), &file.tensor("b_enc")?)?;
    if settings.get("width").is_some_and(|width| width.as_u64() != Some(latents as u64)) {
        return Err(settings.unexpected("width", &format!("{latents}, the number of latents in {TENSORS}")));
    }
    let tensors = Tensors {
        path: file.path(),
        names: file.names(),
        keys: ["w_enc", "w_dec", "b_enc", "b_dec", "threshold"],
        skip: has_skip.then_some(SKIP),
        find: &|key| file.tensor(key),
    };
    Ok((layer, site, tensors.read(site, layer, options, config)?, path))
}

/// Where a file's tensors are, whichever kind of file it is.
struct Tensors<'a> {
    path: &'a Path,
    names: Vec<String>,
    /// Encoder, decoder, their biases, threshold.
    keys: [&'static str; 5],
    skip: Option<&'static str>,
    find: &'a (dyn Fn(&str) -> Result<NamedTensor, CheckpointError> + Sync),
}

impl Tensors<'_> {
    fn read(
        &self,
        site: AutoencoderSite,
        layer: usize,
        options: &DictionaryOptions,
        config: &Config,
    ) -> Result<AutoencoderWeights, CheckpointError> {
        autoencoder::check_layer(self.path, layer, config)?;
        let [w_enc, w_dec, b_enc, b_dec, threshold] = self.keys;
        let latent_bias = (self.find)(b_enc)?;
        let shape = Shape::of(site, config, autoencoder::n_latents(self.path, &latent_bias)?);
        let mut table = Entries::default();
        table.matrix(w_enc, "encoder.weight", [shape.latents, shape.inputs], Order::InOut);
        table.matrix(w_dec, "decoder.weight", [shape.outputs, shape.latents], Order::InOut);
        table.tensor(b_enc, "latent_bias", [shape.latents]);
        table.tensor(b_dec, "decoder_bias", [shape.outputs]);
        if let Some(skip) = self.skip.filter(|_| site.is_transcoder()) {
            table.matrix(skip, "skip.weight", [shape.outputs, shape.inputs], Order::InOut);
        }
        let known = self.keys.join(", ");
        table.refuse_unknown(self.path, self.names.iter().map(String::as_str), &[threshold.to_owned()], &known)?;
        let threshold = (self.find)(threshold)?.vector(shape.latents)?;
        let activation = LatentActivation::JumpRelu { threshold: threshold.into_iter().map(|x| x.max(0.0)).collect() };
        let table = table.look_up(self.path, self.find)?;
        autoencoder::read(&table, shape, activation, normalization_or_none(options))
    }
}

/// `gemma-scope-2b-pt-res` and the like.
fn site_of_repository(name: &str) -> Option<AutoencoderSite> {
    let kind = name.strip_prefix("gemma-scope-")?;
    let ends = |end: &str| kind.ends_with(end) || kind.contains(&format!("{end}-"));
    Some(match kind {
        _ if ends("-transcoders") => AutoencoderSite::MlpTranscoderOfNormalized,
        _ if ends("-res") => AutoencoderSite::ResidPostMlp,
        _ if ends("-mlp") => AutoencoderSite::ResidDeltaMlp,
        _ if ends("-att") => AutoencoderSite::AttnVOut,
        _ => return None,
    })
}

/// `layer_12`, also at the beginning of a longer name.
fn layer_of(name: &str) -> Option<usize> {
    let rest = name.strip_prefix("layer_")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}
