//! The tensors of sparse autoencoders, as a checkpoint gives them.

use crate::config::Config;
use crate::matrix::Matrix;
use crate::site::Site;

/// Where a dictionary stands: which activation it reads, and which one it reconstructs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoencoderSite {
    /// The residual stream before a layer, `d_model` wide.
    ResidPre,
    /// What heads read, side by side, before the output projection; `n_heads * d_head` wide.
    AttnVOut,
    /// What the attention layer adds to the residual stream, `d_model` wide.
    ResidDeltaAttn,
    /// The residual stream between the attention layer and the MLP layer, `d_model` wide.
    ResidPostAttn,
    /// The input of the MLP layer, after its norm, `d_model` wide.
    MlpIn,
    /// MLP neurons after the activation function, `d_ff` wide.
    MlpPostAct,
    /// What the MLP layer adds to the residual stream, `d_model` wide.
    ResidDeltaMlp,
    /// The residual stream after a layer, `d_model` wide.
    ResidPostMlp,
    /// A transcoder: reads the MLP layer's input after its norm, reconstructs what the layer adds to the residual
    /// stream; `d_model` wide both.
    MlpTranscoder,
    /// A transcoder that reads the MLP layer's input after its norm's division, before gain and bias.
    MlpTranscoderOfNormalized,
}

impl AutoencoderSite {
    /// All of them, in the order of the computation.
    pub const ALL: [AutoencoderSite; 10] = [
        AutoencoderSite::ResidPre,
        AutoencoderSite::AttnVOut,
        AutoencoderSite::ResidDeltaAttn,
        AutoencoderSite::ResidPostAttn,
        AutoencoderSite::MlpIn,
        AutoencoderSite::MlpPostAct,
        AutoencoderSite::ResidDeltaMlp,
        AutoencoderSite::ResidPostMlp,
        AutoencoderSite::MlpTranscoder,
        AutoencoderSite::MlpTranscoderOfNormalized,
    ];

    /// Its name in our files, on the command line and in answers.
    pub fn name(self) -> &'static str {
        match self {
            AutoencoderSite::ResidPre => "resid_pre",
            AutoencoderSite::AttnVOut => "attn_v_out",
            AutoencoderSite::ResidDeltaAttn => "resid_delta_attn",
            AutoencoderSite::ResidPostAttn => "resid_post_attn",
            AutoencoderSite::MlpIn => "mlp_in",
            AutoencoderSite::MlpPostAct => "mlp_post_act",
            AutoencoderSite::ResidDeltaMlp => "resid_delta_mlp",
            AutoencoderSite::ResidPostMlp => "resid_post_mlp",
            AutoencoderSite::MlpTranscoder => "mlp_transcoder",
            AutoencoderSite::MlpTranscoderOfNormalized => "mlp_transcoder_of_normalized",
        }
    }

    /// The site of exactly this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|site| site.name() == name)
    }

    /// All names, for messages.
    pub fn names() -> String {
        Self::ALL.map(AutoencoderSite::name).join(", ")
    }

    /// The activation that is encoded.
    pub fn reads(self) -> Site {
        match self {
            AutoencoderSite::ResidPre | AutoencoderSite::ResidPostAttn | AutoencoderSite::ResidPostMlp => {
                Site::ResidLatentInput
            }
            AutoencoderSite::AttnVOut => Site::AttnVOut,
            AutoencoderSite::ResidDeltaAttn => Site::ResidDeltaAttn,
            AutoencoderSite::MlpIn | AutoencoderSite::MlpTranscoder => Site::MlpIn,
            AutoencoderSite::MlpTranscoderOfNormalized => Site::MlpLnNormalized,
            AutoencoderSite::MlpPostAct => Site::MlpPostAct,
            AutoencoderSite::ResidDeltaMlp => Site::ResidDeltaMlp,
        }
    }

    /// Whether it reconstructs another activation than it reads.
    pub fn is_transcoder(self) -> bool {
        matches!(self, AutoencoderSite::MlpTranscoder | AutoencoderSite::MlpTranscoderOfNormalized)
    }

    /// Whether what it reconstructs is (a part of) the residual stream itself or what is added to it, so that a
    /// latent's direction is what it writes.
    pub fn writes_residual_stream(self) -> bool {
        !matches!(self, AutoencoderSite::MlpPostAct | AutoencoderSite::AttnVOut | AutoencoderSite::MlpIn)
    }

    /// Numbers per token that it reads.
    pub fn width(self, config: &Config) -> usize {
        match self {
            AutoencoderSite::MlpPostAct => config.d_ff,
            AutoencoderSite::AttnVOut => config.n_heads * config.d_head,
            _ => config.d_model,
        }
    }

    /// Numbers per token that it reconstructs.
    pub fn output_width(self, config: &Config) -> usize {
        self.width(config)
    }

    /// The site that a dictionary's name tells, as in `ae-resid-delta-mlp-topk`, `mlp_post_act` or
    /// `resid_post_mlp_v5_32k`.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.replace('-', "_");
        let mut fitting = Self::ALL.into_iter().filter(|site| name.contains(site.name()));
        // "mlp_transcoder" is a part of the other one's name.
        match (fitting.next(), fitting.next(), fitting.next()) {
            (Some(AutoencoderSite::MlpTranscoder), Some(longer), None) => Some(longer),
            (Some(site), None, _) => Some(site),
            _ => None,
        }
    }
}

/// What is done to a row of the input before it is encoded, and undone after it is decoded. A transcoder's output is
/// another activation, so there it is not undone.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Normalization {
    /// Nothing.
    #[default]
    None,
    /// `x - mean(x)`: the dictionary was trained on a model that writes without the mean over the channels. The mean is
    /// passed through.
    Centered,
    /// `(x - mean(x)) / (s + epsilon)` with the *unbiased* deviation `s = sqrt(sum((x - mean(x))²) / (n - 1))`; the
    /// reconstruction is multiplied by `s` and the mean is added (OpenAI's `sparse_autoencoder/model.py`, `LN`).
    LayerNorm {
        /// Added to the deviation.
        epsilon: f32,
    },
    /// `x sqrt(n) / |x|`; the reconstruction is divided by the same factor (SAELens' `constant_norm_rescale`).
    ConstantNorm,
}

impl Normalization {
    /// With the epsilon that OpenAI and SAELens use.
    pub const LAYER_NORM: Normalization = Normalization::LayerNorm { epsilon: 1e-5 };

    /// Its name in our files, on the command line and in answers.
    pub fn name(self) -> &'static str {
        match self {
            Normalization::None => "none",
            Normalization::Centered => "centered",
            Normalization::LayerNorm { .. } => "layer-norm",
            Normalization::ConstantNorm => "constant-norm",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        let all =
            [Normalization::None, Normalization::Centered, Normalization::LAYER_NORM, Normalization::ConstantNorm];
        all.into_iter().find(|normalization| normalization.name() == name)
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

/// One layer's dictionary, with `norm` and `undo` as its [`Normalization`] says:
/// `latents = act(W_enc (norm(x) - pre_bias) + latent_bias)`,
/// `reconstruction = undo(W_dec latents + decoder_bias) + W_skip x`.
///
/// An autoencoder's `decoder_bias` is most often its `pre_bias`; a transcoder has no pre-bias (it is zero).
#[derive(Clone, Debug)]
pub struct AutoencoderWeights {
    /// What is done to the input first.
    pub normalization: Normalization,
    /// Subtracted from the input, `[n_inputs]`.
    pub encoder_pre_bias: Vec<f32>,
    /// `[n_latents, n_inputs]`
    pub encoder: Matrix,
    /// `[n_latents]`
    pub latent_bias: Vec<f32>,
    /// Between encoder and latents.
    pub activation: LatentActivation,
    /// `[n_outputs, n_latents]`; best stored so that one latent's column is contiguous.
    pub decoder: Matrix,
    /// Added to the reconstruction, `[n_outputs]`.
    pub decoder_bias: Vec<f32>,
    /// `[n_outputs, n_inputs]`: what goes from input to output beside the latents; only transcoders have one.
    pub skip: Option<Matrix>,
    /// How often each latent fired in training, where the file says so.
    pub activation_frequency: Option<Vec<f32>>,
}

/// The dictionaries of some layers, for one site.
#[derive(Clone, Debug)]
pub struct NamedAutoencoder {
    /// What it is called, here and in questions.
    pub name: String,
    /// What it reads and reconstructs.
    pub site: AutoencoderSite,
    /// All with the same number of latents.
    pub layers: Vec<AutoencoderWeights>,
    /// Which layer of the model each of `layers` belongs to, ascending.
    pub indices: Vec<usize>,
}

impl NamedAutoencoder {
    /// One dictionary for each layer of the model.
    pub fn of_every_layer(name: impl Into<String>, site: AutoencoderSite, layers: Vec<AutoencoderWeights>) -> Self {
        NamedAutoencoder { name: name.into(), site, indices: (0..layers.len()).collect(), layers }
    }

    /// Latents per layer.
    pub fn n_latents(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.latent_bias.len())
    }
}
