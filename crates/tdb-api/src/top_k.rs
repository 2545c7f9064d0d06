//! The nodes with the largest and smallest scalars.

use crate::index::MirroredNodeIndex;
use crate::inference::{InferenceAndTokenData, InferenceRequestSpec};
use crate::names::ProcessingResponseDataType;
use crate::names::{DerivedScalarType, Dimension, PassType};
use crate::tensor::TensorND;
use crate::wire::{wire_enum, wire_query, wire_struct, wire_tag};
use indexmap::IndexMap;

wire_enum! {
    /// A group of derived scalars, one for each type of node, that are compared with each other.
    pub enum GroupId {
        ActTimesGrad = "act_times_grad",
        Activation = "activation",
        DirectWriteToGrad = "direct_write_to_grad",
        DirectionWrite = "direction_write",
        Logits = "logits",
        MlpLayerWrite = "mlp_layer_write",
        Singleton = "singleton",
        TokenWrite = "token_write",
        TokenRead = "token_read",
        WriteNorm = "write_norm",
        TokenPairAttribution = "token_pair_attribution",
    }
}

wire_query! {
    /// The parameter of a route that does nothing but make generated clients know the names of groups.
    pub struct ForceClientCodeGenerationRequest {
        /// Any group.
        pub group_id: GroupId,
    }
}

wire_tag! {
    /// `specType` of [`MultipleTopKDerivedScalarsRequestSpec`].
    pub struct MultipleTopKSpecTag = "multiple_top_k_derived_scalars_request_spec"
}

wire_struct! {
    /// The extreme nodes of each group, and every group's value for each of them.
    pub struct MultipleTopKDerivedScalarsRequestSpec {
        /// May be left out.
        #[serde(skip_serializing)]
        pub spec_type: MultipleTopKSpecTag,
        /// The groups. Within one, each scalar is of another type of node; all groups hold the same types of node.
        pub dst_list_by_group_id: IndexMap<GroupId, Vec<DerivedScalarType>>,
        /// Only nodes at this token; -1 is the last. Null: at all tokens.
        pub token_index: Option<i64>,
        /// How many of the largest and of the smallest, for each type of node; null: all.
        pub top_and_bottom_k: Option<i64>,
        /// Whether the scalars themselves or their gradients are compared.
        pub pass_type: PassType = PassType::Forward,
        /// Only the residual dictionary's latents and error of this layer, and of other nodes those that write to the
        /// residual stream after it. Null: all nodes.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub residual_cut_layer: Option<i64>,
        /// Neurons and heads only of layers where no dictionary that is ranked, too, replaces them.
        pub leave_out_replaced: bool = false,
        /// The axes that the sums over all nodes keep.
        pub dimensions_to_keep_for_intermediate_sum: Vec<Dimension> =
            vec![Dimension::SequenceTokens, Dimension::AttendedToSequenceTokens],
    }
}

wire_struct! {
    /// A run and the extreme nodes to be found in it.
    pub struct MultipleTopKDerivedScalarsRequest {
        pub inference_request_spec: InferenceRequestSpec,
        pub multiple_top_k_derived_scalars_request_spec: MultipleTopKDerivedScalarsRequestSpec,
    }
}

wire_tag! {
    /// `responseDataType` of [`MultipleTopKDerivedScalarsResponseData`].
    pub struct MultipleTopKTag = "multiple_top_k_derived_scalars_response_data" of ProcessingResponseDataType
}

wire_struct! {
    /// The extreme nodes: of this run and of all runs asked for together under the same name.
    pub struct MultipleTopKDerivedScalarsResponseData {
        pub response_data_type: MultipleTopKTag,
        /// The values of this run, for each group parallel to `node_indices`.
        pub activations_by_group_id: IndexMap<GroupId, Vec<f64>>,
        /// The nodes.
        pub node_indices: Vec<MirroredNodeIndex>,
        /// Texts of the nodes' tokens, when the nodes are vocabulary tokens.
        pub vocab_token_strings_for_indices: Option<Vec<Option<String>>>,
        /// Sums over all nodes, also those that are not extreme, for each scalar of each group.
        pub intermediate_sum_activations_by_dst_by_group_id: IndexMap<GroupId, IndexMap<DerivedScalarType, TensorND>>,
    }
}

wire_struct! {
    /// What the run tells about itself, and the extreme nodes.
    pub struct MultipleTopKDerivedScalarsResponse {
        pub inference_and_token_data: InferenceAndTokenData,
        pub multiple_top_k_derived_scalars_response_data: MultipleTopKDerivedScalarsResponseData,
    }
}
