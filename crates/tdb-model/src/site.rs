//! Where in the pass an activation stands.

use serde::{Deserialize, Serialize};

/// One named tensor of the pass. Dimensions of each are given with `T` tokens, `D` the width of the
/// residual stream, `H` heads of width `E`, `G` key/value heads (in most models `H`), `F` MLP neurons, `V` vocabulary entries, `L` latents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    /// `[T, D]` token plus position embedding; has no layer.
    ResidPostEmb,
    /// `[T, D]` residual stream minus its mean (under RMS norm: as it is), on the way into attention.
    AttnLnCentered,
    /// `[T, 1]` root of the mean square that attention's norm divides by.
    AttnLnScale,
    /// `[T, D]` after the division, before gain and bias.
    AttnLnNormalized,
    /// `[T, D]` input of the attention layer.
    AttnIn,
    /// `[T, H, E]` queries as they are multiplied with keys: rotated, and times the root of the scale (`E^(-1/4)`).
    AttnQ,
    /// `[T, G, E]` keys, likewise.
    AttnK,
    /// `[T, G, E]` values.
    AttnV,
    /// `[T, T, H]` (query, key, head) attention logits; `-inf` where the key is later than the query.
    AttnQkLogits,
    /// `[T, 1, H]` sum of exponentials (relative to the row's maximum) that the softmax divides by.
    AttnSoftmaxDenominator,
    /// `[T, T, H]` (query, key, head) attention probabilities.
    AttnQkProbs,
    /// `[T, H, E]` values weighted by probabilities, summed over keys.
    AttnVOut,
    /// `[T, D]` what the attention layer writes.
    ResidDeltaAttn,
    /// `[T, D]` residual stream after the attention layer. In a parallel block the MLP does not read it.
    ResidPostAttn,
    /// `[T, D]` as [`Site::AttnLnCentered`], for the MLP.
    MlpLnCentered,
    /// `[T, 1]` as [`Site::AttnLnScale`], for the MLP.
    MlpLnScale,
    /// `[T, D]` as [`Site::AttnLnNormalized`], for the MLP.
    MlpLnNormalized,
    /// `[T, D]` input of the MLP layer.
    MlpIn,
    /// `[T, F]` neurons before the activation function; of a gated MLP, the gate.
    MlpPreAct,
    /// `[T, F]` what the activated gate of a gated MLP is multiplied with; others have no such site.
    MlpUp,
    /// `[T, F]` neurons as they are written: after the activation function, and multiplied with [`Site::MlpUp`].
    MlpPostAct,
    /// `[T, D]` what the MLP layer writes.
    ResidDeltaMlp,
    /// `[T, D]` residual stream after the MLP layer.
    ResidPostMlp,
    /// `[T, D]` as [`Site::AttnLnCentered`], before the unembedding; has no layer.
    FinalLnCentered,
    /// `[T, 1]` as [`Site::AttnLnScale`], before the unembedding; has no layer.
    FinalLnScale,
    /// `[T, D]` as [`Site::AttnLnNormalized`], before the unembedding; has no layer.
    FinalLnNormalized,
    /// `[T, D]` input of the unembedding; has no layer.
    PostFinalLn,
    /// `[T, V]`; has no layer.
    Logits,
    /// `[T, L]` latents of the MLP dictionary.
    MlpLatent,
    /// `[T, F or D]` what the MLP dictionary makes of its input.
    MlpReconstruction,
    /// `[T, F or D]` the rest, added back so that the model computes as without dictionary.
    MlpError,
    /// `[T, L]` latents of the attention dictionary.
    AttnLatent,
    /// `[T, D or H·E]` what the attention dictionary makes of its input.
    AttnReconstruction,
    /// `[T, D or H·E]` the rest, added back.
    AttnError,
    /// `[T, D]` the residual stream as the residual dictionary of this layer reads it, before that changes anything.
    /// Where the dictionary stands (before, in or after the layer) is its own setting; interventions and hooks act on
    /// [`Site::ResidPostEmb`], [`Site::ResidPostAttn`] and [`Site::ResidPostMlp`], which come right after it.
    ResidLatentInput,
    /// `[T, L]` latents of the residual dictionary.
    ResidLatent,
    /// `[T, D]` what the residual dictionary makes of its input.
    ResidReconstruction,
    /// `[T, D]` the rest, added back.
    ResidError,
}

impl Site {
    /// Every site, in the order of the computation but for the autoencoders', which come last.
    pub const ALL: [Site; 38] = [
        Site::ResidPostEmb,
        Site::AttnLnCentered,
        Site::AttnLnScale,
        Site::AttnLnNormalized,
        Site::AttnIn,
        Site::AttnQ,
        Site::AttnK,
        Site::AttnV,
        Site::AttnQkLogits,
        Site::AttnSoftmaxDenominator,
        Site::AttnQkProbs,
        Site::AttnVOut,
        Site::ResidDeltaAttn,
        Site::ResidPostAttn,
        Site::MlpLnCentered,
        Site::MlpLnScale,
        Site::MlpLnNormalized,
        Site::MlpIn,
        Site::MlpPreAct,
        Site::MlpUp,
        Site::MlpPostAct,
        Site::ResidDeltaMlp,
        Site::ResidPostMlp,
        Site::FinalLnCentered,
        Site::FinalLnScale,
        Site::FinalLnNormalized,
        Site::PostFinalLn,
        Site::Logits,
        Site::MlpLatent,
        Site::MlpReconstruction,
        Site::MlpError,
        Site::AttnLatent,
        Site::AttnReconstruction,
        Site::AttnError,
        Site::ResidLatentInput,
        Site::ResidLatent,
        Site::ResidReconstruction,
        Site::ResidError,
    ];

    /// Whether there is one such tensor per layer rather than one in all.
    pub fn has_layers(self) -> bool {
        !matches!(
            self,
            Site::ResidPostEmb
                | Site::FinalLnCentered
                | Site::FinalLnScale
                | Site::FinalLnNormalized
                | Site::PostFinalLn
                | Site::Logits
        )
    }
}

/// Forward or backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// From tokens to logits.
    Forward,
    /// From the objective to its gradients.
    Backward,
}

/// A site in a layer; `layer` is `None` for sites that have no layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Point {
    /// Which activation.
    pub site: Site,
    /// Counted from 0.
    pub layer: Option<usize>,
}
