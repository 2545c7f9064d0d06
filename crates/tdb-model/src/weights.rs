//! The tensors of sparse autoencoders, as a checkpoint gives them.

use crate::config::Config;
use crate::error::Error;
use crate::matrix::Matrix;
use crate::site::Site;
use crate::slot::Slot;

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

    /// The dictionaries of both, which stand in layers of their own, under a name made of both names.
    ///
    /// # Errors
    /// If they share a layer, or have another site or number of latents.
    pub fn joined(self, other: Self) -> Result<Self, Error> {
        let refused =
            |what: String| Err(Error::Autoencoder { what: format!("{} and {} {what}", self.name, other.name) });
        if let Some(layer) = other.indices.iter().find(|layer| self.indices.contains(layer)) {
            return refused(format!("both stand at layer {layer}: give one dictionary for a place"));
        }
        if self.site != other.site {
            let (one, two) = (self.site.name(), other.site.name());
            return refused(format!(
                "stand at {one} and {two}; several at once on {:?} need one site",
                Slot::of(self.site)
            ));
        }
        if self.n_latents() != other.n_latents() {
            let (one, two) = (self.n_latents(), other.n_latents());
            return refused(format!("have {one} and {two} latents; several at once need the same number"));
        }
        let name = joined_name(&self.name, &other.name);
        let mut all: Vec<(usize, AutoencoderWeights)> = self.indices.into_iter().zip(self.layers).collect();
        all.extend(other.indices.into_iter().zip(other.layers));
        all.sort_by_key(|(layer, _)| *layer);
        let (indices, layers) = all.into_iter().unzip();
        Ok(NamedAutoencoder { name, site: self.site, layers, indices })
    }

    /// Latents per layer.
    pub fn n_latents(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.latent_bias.len())
    }
}

/// What two names have in common once, and both where they differ: `blocks.3+8.hook-resid-pre`.
fn joined_name(one: &str, two: &str) -> String {
    let parts = |name: &str| -> Vec<String> {
        name.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '+').map(str::to_owned).collect()
    };
    let (one_parts, two_parts) = (parts(one), parts(two));
    let before = one_parts.iter().zip(&two_parts).take_while(|(a, b)| a == b).count();
    let room = one_parts.len().min(two_parts.len()) - before;
    let after = one_parts.iter().rev().zip(two_parts.iter().rev()).take_while(|(a, b)| a == b).count().min(room);
    let middle = |parts: &[String]| parts[before..parts.len() - after].concat();
    let (first, second) = (middle(&one_parts), middle(&two_parts));
    // The parts that differ end with the same separator, or with none.
    let cut = |text: &str| {
        let kept = text.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        (kept.to_owned(), text[kept.len()..].to_owned())
    };
    match (cut(&first), cut(&second)) {
        ((first, end), (second, other)) if end == other && !first.is_empty() && !second.is_empty() => {
            let (before, after) = (one_parts[..before].concat(), one_parts[one_parts.len() - after..].concat());
            format!("{before}{first}+{second}{end}{after}")
        }
        _ => format!("{one}+{two}"),
    }
}

#[cfg(test)]
mod tests {
    use super::joined_name;

    #[test]
    fn names_are_joined_where_they_differ() {
        for (one, two, joined) in [
            ("blocks.3.hook-resid-pre", "blocks.8.hook-resid-pre", "blocks.3+8.hook-resid-pre"),
            ("blocks.3+8.hook-resid-pre", "blocks.10.hook-resid-pre", "blocks.3+8+10.hook-resid-pre"),
            ("layer-10", "layer-11", "layer-10+11"),
            ("mine", "yours", "mine+yours"),
            ("mine", "mine", "mine+mine"),
            ("a-b", "a-c-b", "a-b+a-c-b"),
        ] {
            assert_eq!(joined_name(one, two), joined, "{one}, {two}");
        }
    }
}
