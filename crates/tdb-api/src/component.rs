//! What can be told of a component from the weights alone, or from a run that is made for it.

use crate::names::NodeType;
use crate::tokens::{TokenAndScalar, TopTokens};
use crate::wire::wire_struct;

wire_struct! {
    /// Names a neuron, latent or head.
    pub struct ComponentRequest {
        pub node_type: NodeType,
        pub layer_index: i64,
        pub activation_index: i64,
    }
}

wire_struct! {
    /// A component and a number about it.
    pub struct WeightedComponent {
        pub node_type: NodeType,
        pub layer_index: i64,
        pub activation_index: i64,
        pub value: f64,
    }
}

wire_struct! {
    /// How many values lie in each of equally wide parts of a range.
    pub struct Histogram {
        /// Where the first part begins.
        pub low: f64,
        /// Where the last part ends.
        pub high: f64,
        pub counts: Vec<i64>,
    }
}

wire_struct! {
    /// A neuron or latent by its weights.
    pub struct ComponentWeightsResponse {
        /// Length of what it writes to the residual stream for an activation of 1.
        pub write_norm: f64,
        /// Components of the same kind in the whole model by the cosine of their write directions with this one's,
        /// largest magnitude first.
        pub neighbours: Vec<WeightedComponent>,
        /// Components whose write excites (or inhibits) this one most: write direction along read direction, norms
        /// apart.
        pub upstream: Vec<WeightedComponent>,
        /// Components that this one's write excites (or inhibits) most.
        pub downstream: Vec<WeightedComponent>,
        /// Effect of an activation of 1 on each logit, from the mean, without the final norm's scale.
        pub logit_effects: Histogram,
        /// Tokens with the largest such effects.
        pub promoted: Vec<TokenAndScalar>,
        /// Tokens with the smallest.
        pub suppressed: Vec<TokenAndScalar>,
    }
}

wire_struct! {
    /// Standard scores of an attention head.
    pub struct HeadScoresResponse {
        /// Mean attention to the token before, on random tokens.
        pub previous_token: f64,
        /// Mean attention to the earlier occurrence of the same token, on random tokens that come twice.
        pub duplicate_token: f64,
        /// Mean attention to the token after the earlier occurrence, likewise.
        pub induction: f64,
        /// Share of sampled tokens that stand among the five that the head promotes most when it attends to them, from
        /// the token embedding alone.
        pub copying: f64,
        /// The mean attention to the token before if every token read were read alike, on the same tokens.
        pub previous_token_chance: f64,
        /// Likewise the mean attention to one earlier token, in the second half: chance for duplicate token and
        /// induction.
        pub repeat_chance: f64,
        /// The share of tokens that would be copied if the order of promoted tokens were drawn.
        pub copying_chance: f64,
        /// How many tokens came twice.
        pub repeated_tokens: i64,
        /// How many tokens were sampled for copying.
        pub sampled_tokens: i64,
    }
}

wire_struct! {
    /// Asks what a head does in tokens, by its weights.
    pub struct HeadReadingsRequest {
        pub layer_index: i64,
        pub activation_index: i64,
        /// The text whose tokens are read, each once. Without one, only pairs of the vocabulary are told.
        pub prompt: Option<String>,
    }
}

wire_struct! {
    /// What a head does with one token.
    pub struct TokenReading {
        pub token: String,
        pub tokens: TopTokens,
    }
}

wire_struct! {
    /// Two tokens and a number.
    pub struct VocabularyPair {
        pub from: String,
        pub to: String,
        pub value: f64,
    }
}

wire_struct! {
    /// A head's OV or QK circuit.
    pub struct HeadCircuit {
        /// Of each token of the prompt.
        pub tokens: Vec<TokenReading>,
        /// The strongest pairs of the vocabulary, strongest first.
        pub pairs: Vec<VocabularyPair>,
        /// No pair that was not looked at is stronger than this; null if none of them can be among the strongest.
        pub unseen_at_most: Option<f64>,
    }
}

wire_struct! {
    /// What a head does in tokens, each taken as its embedding alone, without a position, after the norm before the
    /// layer.
    pub struct HeadReadingsResponse {
        /// From an attended-to token to what attending to it adds to the logit of a token: from the mean over tokens,
        /// with the final norm's gain and without its scale, through no other layer.
        pub ov: HeadCircuit,
        /// From a query's token to its attention logit with a key's token: from the mean over keys, before a cap.
        pub qk: HeadCircuit,
        /// What is different in this model, in sentences.
        pub notes: Vec<String>,
    }
}
