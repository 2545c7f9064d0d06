//! Readings of nodes in token space.

use crate::index::MirroredNodeIndex;
use crate::names::ProcessingResponseDataType;
use crate::wire::{wire_enum, wire_struct, wire_tag};

wire_struct! {
    /// A token of the vocabulary with a score.
    pub struct TokenAndScalar {
        /// Its text.
        pub token: String,
        /// The score.
        pub scalar: f64,
        /// The score divided by the largest magnitude in its list or record.
        pub normalized_scalar: f64,
    }
}

wire_struct! {
    /// The tokens with the highest and with the lowest scores, each list from its extreme inwards.
    pub struct TopTokens {
        /// Highest first.
        pub top: Vec<TokenAndScalar>,
        /// Lowest first.
        pub bottom: Vec<TokenAndScalar>,
    }
}

wire_enum! {
    /// How tokens of the vocabulary are scored for a node.
    pub enum TokenScoringType {
        /// By how much the node's write raises their logit.
        UpvotedOutputTokens = "upvoted_output_tokens",
        /// By how much their embedding excites the neuron or latent.
        InputTokensThatUpvoteMlp = "input_tokens_that_upvote_mlp",
        /// By how much their embedding fits the head's query.
        InputTokensThatUpvoteAttnQ = "input_tokens_that_upvote_attn_q",
        /// By how much their embedding fits the head's key.
        InputTokensThatUpvoteAttnK = "input_tokens_that_upvote_attn_k",
    }
}

wire_tag! {
    /// `specType` of [`ScoredTokensRequestSpec`].
    pub struct ScoredTokensSpecTag = "scored_tokens_request_spec"
}

wire_struct! {
    /// Token readings of the nodes that another part of the same request found.
    pub struct ScoredTokensRequestSpec {
        /// May be left out.
        #[serde(skip_serializing)]
        pub spec_type: ScoredTokensSpecTag,
        /// How tokens are scored.
        pub token_scoring_type: TokenScoringType,
        /// How many of the highest and how many of the lowest.
        pub num_tokens: i64,
        /// The name of the part that finds the nodes.
        pub depends_on_spec_name: String,
    }
}

wire_tag! {
    /// `responseDataType` of [`ScoredTokensResponseData`].
    pub struct ScoredTokensTag = "scored_tokens_response_data" of ProcessingResponseDataType
}

wire_struct! {
    /// Token readings, parallel to `node_indices`.
    pub struct ScoredTokensResponseData {
        pub response_data_type: ScoredTokensTag,
        /// The nodes.
        pub node_indices: Vec<MirroredNodeIndex>,
        /// The reading of each node; null where this way of scoring does not apply to it.
        pub top_tokens_list: Vec<Option<TopTokens>>,
    }
}
