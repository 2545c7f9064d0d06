//! A transformer of GPT-2's shape, with or without autoencoders in its layers.

use std::sync::Arc;

use crate::autoencoder::Autoencoder;
use crate::weights::{AutoencoderSite, Config, Weights};

/// Weights plus, per layer, at most one autoencoder on the MLP and one on attention. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Transformer {
    weights: Arc<Weights>,
    mlp_autoencoders: Arc<[Option<Autoencoder>]>,
    attn_autoencoders: Arc<[Option<Autoencoder>]>,
}

/// Autoencoders that do not belong to this model.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("{found} layers of autoencoders were given for a model of {expected} layers")]
    Layers { expected: usize, found: usize },
    #[error("the autoencoder of layer {layer} reads {found:?}, which is not a site of the {kind}")]
    Site { layer: usize, kind: &'static str, found: AutoencoderSite },
    #[error(
        "the autoencoder of layer {layer} has inputs of width {found}, but {site:?} is {expected} wide in this model"
    )]
    Width { layer: usize, site: AutoencoderSite, expected: usize, found: usize },
    #[error("the autoencoder of layer {layer} has {found} latents, that of another layer {expected}")]
    Latents { layer: usize, expected: usize, found: usize },
}

impl Transformer {
    pub fn new(weights: Weights) -> Self {
        let none: Arc<[Option<Autoencoder>]> = vec![None; weights.config.n_layers].into();
        Transformer { weights: Arc::new(weights), mlp_autoencoders: none.clone(), attn_autoencoders: none }
    }

    pub fn config(&self) -> &Config {
        &self.weights.config
    }

    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The same model with autoencoders on its MLPs (neurons or layer output), one entry per layer.
    ///
    /// # Errors
    /// If number of layers, site or width do not fit the model.
    pub fn with_mlp_autoencoders(mut self, autoencoders: Vec<Option<Autoencoder>>) -> Result<Self, AttachError> {
        self.check(&autoencoders, "MLP", |site| site != AutoencoderSite::ResidDeltaAttn)?;
        self.mlp_autoencoders = autoencoders.into();
        Ok(self)
    }

    /// The same model with autoencoders on its attention layers' output, one entry per layer.
    ///
    /// # Errors
    /// If number of layers, site or width do not fit the model.
    pub fn with_attn_autoencoders(mut self, autoencoders: Vec<Option<Autoencoder>>) -> Result<Self, AttachError> {
        self.check(&autoencoders, "attention layer", |site| site == AutoencoderSite::ResidDeltaAttn)?;
        self.attn_autoencoders = autoencoders.into();
        Ok(self)
    }

    fn check(
        &self,
        autoencoders: &[Option<Autoencoder>],
        kind: &'static str,
        fits: impl Fn(AutoencoderSite) -> bool,
    ) -> Result<(), AttachError> {
        let config = self.config();
        if autoencoders.len() != config.n_layers {
            return Err(AttachError::Layers { expected: config.n_layers, found: autoencoders.len() });
        }
        let mut n_latents = None;
        for (layer, autoencoder) in autoencoders.iter().enumerate() {
            let Some(autoencoder) = autoencoder else { continue };
            let site = autoencoder.site();
            if !fits(site) {
                return Err(AttachError::Site { layer, kind, found: site });
            }
            let expected = match site {
                AutoencoderSite::MlpPostAct => config.d_ff,
                AutoencoderSite::ResidDeltaMlp | AutoencoderSite::ResidDeltaAttn => config.d_model,
            };
            if autoencoder.n_inputs() != expected {
                return Err(AttachError::Width { layer, site, expected, found: autoencoder.n_inputs() });
            }
            let expected = *n_latents.get_or_insert(autoencoder.n_latents());
            if autoencoder.n_latents() != expected {
                return Err(AttachError::Latents { layer, expected, found: autoencoder.n_latents() });
            }
        }
        Ok(())
    }

    pub fn mlp_autoencoder(&self, layer: usize) -> Option<&Autoencoder> {
        self.mlp_autoencoders[layer].as_ref()
    }

    pub fn attn_autoencoder(&self, layer: usize) -> Option<&Autoencoder> {
        self.attn_autoencoders[layer].as_ref()
    }

    pub fn has_mlp_autoencoder(&self) -> bool {
        self.mlp_autoencoders.iter().any(Option::is_some)
    }

    pub fn has_attn_autoencoder(&self) -> bool {
        self.attn_autoencoders.iter().any(Option::is_some)
    }

    /// Which activation the MLP autoencoders read, if there are any.
    pub fn mlp_autoencoder_site(&self) -> Option<AutoencoderSite> {
        self.mlp_autoencoders.iter().flatten().next().map(Autoencoder::site)
    }

    /// One of the MLP autoencoders, all of which have the same shape.
    pub fn mlp_autoencoders_any(&self) -> Option<&Autoencoder> {
        self.mlp_autoencoders.iter().flatten().next()
    }

    /// One of the attention autoencoders, all of which have the same shape.
    pub fn attn_autoencoders_any(&self) -> Option<&Autoencoder> {
        self.attn_autoencoders.iter().flatten().next()
    }
}
