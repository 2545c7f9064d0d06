//! Names of the kinds of questions and of answers.

use crate::wire::wire_enum;

wire_enum! {
    /// Kinds of things that can be asked of a run.
    pub enum SpecType {
        ActivationsRequestSpec = "activations_request_spec",
        DerivedScalarsRequestSpec = "derived_scalars_request_spec",
        DerivedAttentionScalarsRequestSpec = "derived_attention_scalars_request_spec",
        MultipleTopKDerivedScalarsRequestSpec = "multiple_top_k_derived_scalars_request_spec",
        ScoredTokensRequestSpec = "scored_tokens_request_spec",
        TdbRequestSpec = "tdb_request_spec",
        TokenPairAttributionRequestSpec = "token_pair_attribution_request_spec",
    }
}

wire_enum! {
    /// Kinds of answers.
    pub enum ProcessingResponseDataType {
        DerivedScalarsResponseData = "derived_scalars_response_data",
        DerivedAttentionScalarsResponseData = "derived_attention_scalars_response_data",
        MultipleTopKDerivedScalarsResponseData = "multiple_top_k_derived_scalars_response_data",
        ScoredTokensResponseData = "scored_tokens_response_data",
        TokenPairAttributionResponseData = "token_pair_attribution_response_data",
    }
}
