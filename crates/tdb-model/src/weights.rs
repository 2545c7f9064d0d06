//! The weights of a transformer and of sparse autoencoders, as a checkpoint gives them.

use crate::matrix::Matrix;

/// The shape of a GPT-2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub n_layers: usize,
    pub d_model: usize,
    pub n_heads: usize,
    /// Width of one head; `n_heads * d_head` may differ from `d_model`.
    pub d_head: usize,
    pub d_ff: usize,
    /// Longest prompt, in tokens.
    pub ctx_window: usize,
    pub n_vocab: usize,
}

/// `y = x Wᵀ + b` with `W: [out, in]`.
#[derive(Clone, Debug)]
pub struct Linear {
    pub weight: Matrix,
    pub bias: Vec<f32>,
}

/// `y = (x - mean) / sqrt(var + 1e-5) * gain + bias`, variance biased.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    pub gain: Vec<f32>,
    pub bias: Vec<f32>,
}

#[derive(Clone, Debug)]
pub struct LayerWeights {
    pub ln_1: LayerNorm,
    /// `[n_heads * d_head, d_model]`, as are `key` and `value`.
    pub query: Linear,
    pub key: Linear,
    pub value: Linear,
    /// `[d_model, n_heads * d_head]`
    pub out: Linear,
    pub ln_2: LayerNorm,
    /// `[d_ff, d_model]`
    pub mlp_in: Linear,
    /// `[d_model, d_ff]`
    pub mlp_out: Linear,
}

#[derive(Clone, Debug)]
pub struct Weights {
    pub config: Config,
    /// `[n_vocab, d_model]`
    pub tok_embed: Matrix,
    /// `[ctx_window, d_model]`
    pub pos_embed: Matrix,
    pub layers: Vec<LayerWeights>,
    pub ln_f: LayerNorm,
    /// `[n_vocab, d_model]`; the same matrix as `tok_embed` where they are tied.
    pub unembed: Matrix,
}

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
    Relu,
    Identity,
    /// The `k` largest pre-activations of a token survive; `relu` says whether negative ones among them become 0.
    TopK {
        k: usize,
        relu: bool,
    },
    /// `x` where `x > threshold`, else 0.
    JumpRelu {
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
    pub name: String,
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
