//! Derived scalars of one component over a prompt.

use crate::index::MirroredNodeIndex;
use crate::inference::{InferenceAndTokenData, InferenceRequestSpec};
use crate::names::ProcessingResponseDataType;
use crate::names::{DerivedScalarType, PassType};
use crate::records::{NodeIdAndDatasets, TokenAndAttentionScalars};
use crate::tokens::TopTokens;
use crate::wire::{wire_struct, wire_tag};

wire_tag! {
    /// `specType` of [`DerivedScalarsRequestSpec`].
    pub struct DerivedScalarsSpecTag = "derived_scalars_request_spec"
}

wire_struct! {
    /// One derived scalar of one component, at every token.
    pub struct DerivedScalarsRequestSpec {
        /// May be left out.
        #[serde(skip_serializing)]
        pub spec_type: DerivedScalarsSpecTag,
        /// Which scalar.
        pub dst: DerivedScalarType,
        /// Null for scalars that exist once in the model.
        pub layer_index: Option<i64>,
        /// The component within the layer.
        pub activation_index: i64,
        /// The record whose maximum the values are divided by; without it they are not normalised.
        pub normalize_activations_using_neuron_record: Option<NodeIdAndDatasets>,
        /// Whether the scalar itself or its gradient is wanted.
        pub pass_type: PassType = PassType::Forward,
        /// How many tokens of the vocabulary to read the component against; without it, none.
        pub num_top_tokens: Option<i64>,
    }
}

wire_struct! {
    /// A run and a derived scalar to be read off it.
    pub struct DerivedScalarsRequest {
        pub inference_request_spec: InferenceRequestSpec,
        pub derived_scalars_request_spec: DerivedScalarsRequestSpec,
    }
}

wire_tag! {
    /// `responseDataType` of [`DerivedScalarsResponseData`].
    pub struct DerivedScalarsTag = "derived_scalars_response_data" of ProcessingResponseDataType
}

wire_struct! {
    /// The values of one component, parallel to `node_indices`.
    pub struct DerivedScalarsResponseData {
        pub response_data_type: DerivedScalarsTag,
        /// The values.
        pub activations: Vec<f64>,
        /// The values divided by the record's maximum, when a record was named.
        pub normalized_activations: Option<Vec<f64>>,
        /// The nodes, which differ in their token alone.
        pub node_indices: Vec<MirroredNodeIndex>,
        /// The vocabulary as read by the component; null when not asked for, or when the component writes nothing.
        pub top_tokens: Option<TopTokens>,
    }
}

wire_struct! {
    /// What the run tells about itself, and the scalars.
    pub struct DerivedScalarsResponse {
        pub inference_and_token_data: InferenceAndTokenData,
        pub derived_scalars_response_data: DerivedScalarsResponseData,
    }
}

wire_tag! {
    /// `specType` of [`DerivedAttentionScalarsRequestSpec`].
    pub struct DerivedAttentionScalarsSpecTag = "derived_attention_scalars_request_spec"
}

wire_struct! {
    /// One derived scalar of one component, at every pair of tokens.
    pub struct DerivedAttentionScalarsRequestSpec {
        /// May be left out, except where the kind of request is told by it alone.
        #[serde(skip_serializing)]
        pub spec_type: DerivedAttentionScalarsSpecTag,
        /// Which scalar.
        pub dst: DerivedScalarType,
        /// Null for scalars that exist once in the model.
        pub layer_index: Option<i64>,
        /// The component within the layer.
        pub activation_index: i64,
        /// The record whose maxima the values are divided by.
        pub normalize_activations_using_neuron_record: Option<NodeIdAndDatasets>,
    }
}

wire_struct! {
    /// A run and a derived scalar of token pairs to be read off it.
    pub struct DerivedAttentionScalarsRequest {
        pub inference_request_spec: InferenceRequestSpec,
        pub derived_attention_scalars_request_spec: DerivedAttentionScalarsRequestSpec,
    }
}

wire_tag! {
    /// `responseDataType` of [`DerivedAttentionScalarsResponseData`].
    pub struct DerivedAttentionScalarsTag = "derived_attention_scalars_response_data" of ProcessingResponseDataType
}

wire_struct! {
    /// The values of one component at every pair of tokens.
    pub struct DerivedAttentionScalarsResponseData {
        pub response_data_type: DerivedAttentionScalarsTag,
        /// One for each token: what it reads from each token before it and from itself.
        pub token_and_attention_scalars_list: Vec<TokenAndAttentionScalars>,
    }
}

wire_struct! {
    /// What the run tells about itself, and the scalars.
    pub struct DerivedAttentionScalarsResponse {
        pub inference_and_token_data: InferenceAndTokenData,
        pub derived_attention_scalars_response_data: DerivedAttentionScalarsResponseData,
    }
}
