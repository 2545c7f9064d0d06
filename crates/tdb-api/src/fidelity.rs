//! How well dictionaries reconstruct what they stand in for, on one prompt.

use crate::TokenRef;
use crate::names::NodeType;
use crate::wire::wire_struct;

wire_struct! {
    /// Asks how well the loaded dictionaries fit this prompt.
    pub struct DictionaryFidelityRequest {
        /// The text.
        pub prompt: String,
        /// Each exactly one token; with none, no difference of logits is told.
        pub target_tokens: Vec<TokenRef>,
        /// Each exactly one token.
        pub distractor_tokens: Vec<TokenRef>,
    }
}

wire_struct! {
    /// One layer of a dictionary. Figures leave out the first token, whose activations are unlike all others.
    pub struct LayerFidelity {
        pub layer_index: i64,
        /// Share of the variance of what it reconstructs, over the tokens; 1 is all, below 0 is worse than the mean.
        pub variance_explained: f64,
        /// Active latents at each token, the first one included.
        pub active_latents: Vec<i64>,
        /// Mean cross-entropy of the prompt's tokens with the reconstruction in place.
        pub cross_entropy: f64,
        /// Mean logit of the targets minus that of the distractors after the last token, with the reconstruction in
        /// place.
        pub logit_difference: Option<f64>,
    }
}

wire_struct! {
    /// One dictionary.
    pub struct DictionaryFidelity {
        pub name: String,
        /// The type of its latents as nodes.
        pub node_type: NodeType,
        /// As `/info` tells it.
        pub site: String,
        /// One for each layer that has it, each with the reconstruction of that layer alone in place.
        pub layers: Vec<LayerFidelity>,
        /// One sentence where it does not fit: most often another site, normalisation or model.
        pub mismatch: Option<String>,
    }
}

wire_struct! {
    /// How well dictionaries fit a prompt, beside the model without them.
    pub struct DictionaryFidelityResponse {
        /// Mean cross-entropy of the prompt's tokens.
        pub cross_entropy: f64,
        /// Mean logit of the targets minus that of the distractors after the last token.
        pub logit_difference: Option<f64>,
        pub dictionaries: Vec<DictionaryFidelity>,
    }
}
