//! The tensors of sparse autoencoders, as a checkpoint gives them.

use crate::config::Config;
use crate::matrix::Matrix;

/// Which activation an autoencoder reads and reconstructs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoencoderSite {
    /// MLP neurons after the GELU, `d_ff` wide.
    MlpPostAct,
    /// What the MLP layer adds to the residual stream, `d_model` wide.
    ResidDeltaMlp,
    /// What the attention layer adds to the residual stream, `d_model` wide.
    ResidDeltaAttn,
}

impl AutoencoderSite {
    /// Numbers per token at this site.
    pub fn width(self, config: &Config) -> usize {
        match self {
            AutoencoderSite::MlpPostAct => config.d_ff,
            AutoencoderSite::ResidDeltaMlp | AutoencoderSite::ResidDeltaAttn => config.d_model,
        }
    }

    /// The site that an autoencoder's name tells, as in `ae-resid-delta-mlp-topk` or `mlp_post_act`.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.replace('_', "-");
        let sites = [
            ("mlp-post-act", AutoencoderSite::MlpPostAct),
            ("resid-delta-mlp", AutoencoderSite::ResidDeltaMlp),
            ("resid-delta-attn", AutoencoderSite::ResidDeltaAttn),
        ];
        let mut fitting = sites.into_iter().filter(|(part, _)| name.contains(part));
        match (fitting.next(), fitting.next()) {
            (Some((_, site)), None) => Some(site),
            _ => None,
        }
    }
}

/// Nonlinearity between encoder and latents.
#[derive(Clone, Debug, PartialEq)]
pub enum LatentActivation {
    /// `max(x, 0)`
    Relu,
    /// `x`
    Identity,
    /// The largest pre-activations of a token survive.
    TopK {
        /// How many.
        k: usize,
        /// Whether negative ones among them become 0.
        relu: bool,
    },
    /// `x` where `x > threshold`, else 0.
    JumpRelu {
        /// `[n_latents]`
        threshold: Vec<f32>,
    },
}

/// One layer's autoencoder: `latents = act(W_enc (x - pre_bias) + latent_bias)`,
/// `reconstruction = W_dec latents + pre_bias` (for SAELens without `apply_b_dec_to_input`, nothing
/// is subtracted from the input: then `encoder_pre_bias` is zero and only `decoder_bias` is set).
#[derive(Clone, Debug)]
pub struct AutoencoderWeights {
    /// Subtracted from the input, `[n_inputs]`.
    pub encoder_pre_bias: Vec<f32>,
    /// `[n_latents, n_inputs]`
    pub encoder: Matrix,
    /// `[n_latents]`
    pub latent_bias: Vec<f32>,
    /// Between encoder and latents.
    pub activation: LatentActivation,
    /// `[n_inputs, n_latents]`; best stored so that one latent's column is contiguous.
    pub decoder: Matrix,
    /// Added to the reconstruction, `[n_inputs]`.
    pub decoder_bias: Vec<f32>,
    /// How often each latent fired in training, where the file says so.
    pub activation_frequency: Option<Vec<f32>>,
}

/// The autoencoders of all layers, for one site.
#[derive(Clone, Debug)]
pub struct NamedAutoencoder {
    /// What it is called, here and in questions.
    pub name: String,
    /// What it reads and reconstructs.
    pub site: AutoencoderSite,
    /// One for each layer of the model, all with the same number of latents.
    pub layers: Vec<AutoencoderWeights>,
}

impl NamedAutoencoder {
    /// Latents per layer.
    pub fn n_latents(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.latent_bias.len())
    }
}
