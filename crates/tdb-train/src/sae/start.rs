//! Finished dictionaries that a training goes on from.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tdb_model::{AutoencoderWeights, Config, LatentActivation, NamedAutoencoder, Normalization, checkpoint};

use super::files::REPORT;
use super::recipe::{SaeRecipe, Sparsity};
use crate::dice::mix;
use crate::error::{Error, Result};

/// One dictionary for each layer, as `tdb train-sae` wrote them.
#[derive(Clone, Debug)]
pub struct SaeStart {
    dictionaries: NamedAutoencoder,
    fingerprint: String,
    /// Their own report; `null` if there is none.
    report: Value,
}

impl SaeStart {
    /// Reads the dictionaries in `folder`, of a model of this shape.
    ///
    /// # Errors
    /// If they cannot be read, or are not of every layer.
    pub fn read(folder: &Path, config: &Config) -> Result<Self> {
        let model = |error: checkpoint::CheckpointError| Error::Model(error.to_string());
        let dictionaries = checkpoint::open_autoencoder(folder, None, config).map_err(model)?;
        if !dictionaries.indices.iter().copied().eq(0..config.n_layers) {
            let message =
                format!("dictionaries of {} layers; {} are needed", dictionaries.layers.len(), config.n_layers);
            return Err(Error::content(folder, message));
        }
        let path = folder.join(REPORT);
        let report = match path.exists() {
            true => serde_json::from_slice(&fs::read(&path).map_err(Error::file(&path))?)
                .map_err(|error| Error::content(&path, error))?,
            false => Value::Null,
        };
        let mut hash = 0;
        let mut add = |numbers: &[f32]| hash = numbers.iter().fold(hash, |hash, x| mix(hash ^ u64::from(x.to_bits())));
        for weights in &dictionaries.layers {
            [&weights.encoder, &weights.decoder]
                .into_iter()
                .chain(&weights.skip)
                .for_each(|matrix| add(&matrix.to_vec()));
            [&weights.latent_bias, &weights.decoder_bias].into_iter().for_each(|vector| add(vector));
        }
        Ok(Self { dictionaries, fingerprint: format!("{hash:016x}"), report })
    }

    /// A number that changes with any weight.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub(super) fn layer(&self, layer: usize) -> &AutoencoderWeights {
        &self.dictionaries.layers[layer]
    }

    pub(super) fn report(&self) -> &Value {
        &self.report
    }

    /// Whether a training with this recipe can go on from them.
    pub(super) fn check(&self, recipe: &SaeRecipe) -> Result<()> {
        let differs = |what: String| Err(Error::setting("from", format!("{}: {what}", self.dictionaries.name)));
        if self.dictionaries.site != recipe.site {
            return differs(format!("of {}, not of {}", self.dictionaries.site.name(), recipe.site.name()));
        }
        let wanted = match recipe.sparsity {
            Sparsity::Relu { .. } => LatentActivation::Relu,
            Sparsity::TopK { k } => LatentActivation::TopK { k, relu: true },
        };
        for weights in &self.dictionaries.layers {
            let latents = weights.latent_bias.len();
            if latents != recipe.latents {
                return differs(format!("{latents} latents, not {}", recipe.latents));
            }
            if weights.activation != wanted {
                return differs(format!("latents by {:?}, not by {wanted:?}", weights.activation));
            }
            if weights.skip.is_some() != recipe.skip {
                return differs("one has a skip connection, the other none".to_owned());
            }
            let subtracted = match recipe.site.is_transcoder() {
                true => weights.encoder_pre_bias.iter().all(|x| *x == 0.0),
                false => weights.encoder_pre_bias == weights.decoder_bias,
            };
            if weights.normalization != Normalization::None || !subtracted {
                return differs("inputs are changed in another way than here before they are encoded".to_owned());
            }
        }
        Ok(())
    }
}
