//! Which attended-to tokens a latent of an attention layer owes its activation to.

use crate::index::MirroredNodeIndex;
use crate::names::ProcessingResponseDataType;
use crate::wire::{wire_struct, wire_tag};

wire_struct! {
    /// The attended-to tokens with the largest share in a node's activation.
    pub struct TopTokensAttendedTo {
        /// Positions in the prompt.
        pub token_indices: Vec<i64>,
        /// Their shares, parallel to the positions.
        pub attributions: Vec<f64>,
    }
}

wire_tag! {
    /// `specType` of [`TokenPairAttributionRequestSpec`].
    pub struct TokenPairAttributionSpecTag = "token_pair_attribution_request_spec"
}

wire_struct! {
    /// Attended-to tokens of the nodes that another part of the same request found.
    pub struct TokenPairAttributionRequestSpec {
        /// May be left out.
        #[serde(skip_serializing)]
        pub spec_type: TokenPairAttributionSpecTag,
        /// How many tokens.
        pub num_tokens_attended_to: i64,
        /// The name of the part that finds the nodes.
        pub depends_on_spec_name: String,
    }
}

wire_tag! {
    /// `responseDataType` of [`TokenPairAttributionResponseData`].
    pub struct TokenPairAttributionTag = "token_pair_attribution_response_data" of ProcessingResponseDataType
}

wire_struct! {
    /// Attended-to tokens, parallel to `node_indices`.
    pub struct TokenPairAttributionResponseData {
        pub response_data_type: TokenPairAttributionTag,
        /// The nodes.
        pub node_indices: Vec<MirroredNodeIndex>,
        /// The tokens of each node; null for all but active attention latents.
        pub top_tokens_attended_to_list: Vec<Option<TopTokensAttendedTo>>,
    }
}
