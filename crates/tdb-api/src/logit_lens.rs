//! The logit lens: what the residual stream of each layer would predict if it were unembedded as it is.

use crate::TokenRef;
use crate::index::NodeAblation;
use crate::wire::wire_struct;

wire_struct! {
    /// Asks for the logit lens of a prompt.
    pub struct LogitLensRequest {
        pub prompt: String,
        /// The first one is followed through the layers.
        pub target_tokens: Vec<TokenRef>,
        /// The first one is followed through the layers.
        pub distractor_tokens: Vec<TokenRef>,
        /// Nodes set to a value.
        pub node_ablations: Option<Vec<NodeAblation>>,
        /// Only so many tokens at the end of the prompt; null: all.
        pub last_tokens: Option<i64>,
    }
}

wire_struct! {
    /// What the residual stream predicts at a layer and a token.
    pub struct LogitLensCell {
        /// The likeliest next token.
        pub top: String,
        /// Its probability.
        pub probability: f64,
        /// 1 for the likeliest token of the vocabulary; null where no target is asked about.
        pub target_rank: Option<i64>,
        pub target_probability: Option<f64>,
        pub distractor_rank: Option<i64>,
        pub distractor_probability: Option<f64>,
    }
}

wire_struct! {
    /// One layer.
    pub struct LogitLensLayer {
        /// The layer after which the residual stream is read; null: the embeddings.
        pub layer: Option<i64>,
        /// One for each token.
        pub cells: Vec<LogitLensCell>,
    }
}

wire_struct! {
    /// The logit lens, from the embeddings up; the last layer is what the model predicts.
    pub struct LogitLensResponse {
        /// The place in the prompt of the first token below.
        pub first_token: i64,
        pub tokens_as_strings: Vec<String>,
        pub layers: Vec<LogitLensLayer>,
    }
}
