//! The units that are collated: what they are called, how many there are.

use serde::{Deserialize, Serialize};
use tdb_model::{Autoencoder, Slot, Transformer};

/// A kind of unit together with the scalar that is collated of it; named as the scalar is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Activation of an MLP neuron after the GELU, per token.
    #[serde(rename = "mlp_post_act")]
    Neuron,
    /// Norm of what a head writes at a token because of a token that it attends to, per token pair.
    #[serde(rename = "attn_write_norm")]
    Head,
    /// Latent of the dictionary on the MLP layer (autoencoder or transcoder), per token.
    #[serde(rename = "mlp_autoencoder_latent")]
    MlpLatent,
    /// Latent of the autoencoder on the attention layer's output, per token.
    #[serde(rename = "attention_autoencoder_latent")]
    AttnLatent,
    /// What all heads together write towards a latent, at a token where it is active, because of a token that they
    /// attend to; per token pair, 0 where the latent is not active.
    #[serde(rename = "flattened_attn_write_to_latent_summed_over_heads")]
    AttnLatentPairs,
    /// Latent of the dictionary on the residual stream, per token.
    #[serde(rename = "residual_autoencoder_latent")]
    ResidualLatent,
}

impl Kind {
    /// Files know a kind by its place in this list.
    pub const ALL: [Self; 6] =
        [Self::Neuron, Self::Head, Self::MlpLatent, Self::AttnLatent, Self::AttnLatentPairs, Self::ResidualLatent];

    /// The derived scalar's name on the wire.
    pub fn scalar(self) -> &'static str {
        match self {
            Self::Neuron => "mlp_post_act",
            Self::Head => "attn_write_norm",
            Self::MlpLatent => "mlp_autoencoder_latent",
            Self::AttnLatent => "attention_autoencoder_latent",
            Self::AttnLatentPairs => "flattened_attn_write_to_latent_summed_over_heads",
            Self::ResidualLatent => "residual_autoencoder_latent",
        }
    }

    /// One value for each token pair rather than for each token.
    pub fn per_pair(self) -> bool {
        matches!(self, Self::Head | Self::AttnLatentPairs)
    }

    /// Most values are 0: only sequences in which the unit is active are examples of it.
    pub fn is_sparse(self) -> bool {
        !matches!(self, Self::Neuron | Self::Head)
    }

    /// How many there are in a layer; 0 where the model lacks the autoencoder.
    pub fn count(self, model: &Transformer, layer: usize) -> usize {
        match self {
            Self::Neuron => model.config().d_ff,
            Self::Head => model.config().n_heads,
            Self::MlpLatent => model.autoencoder(Slot::Mlp, layer).map_or(0, Autoencoder::n_latents),
            Self::ResidualLatent => model.autoencoder(Slot::Residual, layer).map_or(0, Autoencoder::n_latents),
            Self::AttnLatent | Self::AttnLatentPairs => {
                model.autoencoder(Slot::Attention, layer).map_or(0, Autoencoder::n_latents)
            }
        }
    }

    /// Values that a unit has in a sequence of `tokens` tokens.
    pub fn values(self, tokens: usize) -> usize {
        if self.per_pair() { tokens * (tokens + 1) / 2 } else { tokens }
    }
}
