//! The debugger page's question, spelled out as a run and what is asked of it.

use tdb_api::{
    AblationSpec, ActivationLocationType as Location, AllOrOneIndex, AttentionTraceType, ComponentTypeForAttention,
    ComponentTypeForMlp, DerivedScalarType as Dst, GroupId, IndexMap, InferenceRequestSpec, InferenceSubRequest,
    LossFnConfig, LossFnName, MirroredActivationIndex, MirroredNodeIndex, MirroredTraceConfig,
    MultipleTopKDerivedScalarsRequestSpec, NodeAblation, NodeToTrace, NodeType, PassType, PreOrPostAct,
    ProcessingRequestSpec, ScoredTokensRequestSpec, TdbRequestSpec, TokenPairAttributionRequestSpec, TokenScoringType,
};

use tdb_model::Slot;

use crate::dictionary::{DictionaryScalar, Part, Quantity, describe};
use crate::engine::Engine;
use crate::error::{Result, bad};
use crate::side::Plan;

/// Name of the table of nodes.
pub(crate) const NODE_TABLE: &str = "topKComponents";
/// Name of the list of tokens that each of these nodes makes likelier.
pub(crate) const UPVOTED_TOKENS: &str = "upvotedOutputTokens";
/// Name of the list of likely next tokens.
pub(crate) const OUTPUT_LOGITS: &str = "topOutputTokenLogits";

/// Candidates for the next token that are listed from either end.
pub(crate) const OUTPUT_TOKENS: i64 = 100;
/// Tokens listed at either end of a node's reading.
const READ_TOKENS: i64 = 10;
/// Attended-to tokens listed for a latent of an attention layer.
const ATTENDED_TOKENS: i64 = 3;

/// # Errors
/// If a node that is ablated or traced does not make sense as such.
pub fn to_inference_sub_request(spec: &TdbRequestSpec) -> Result<InferenceSubRequest> {
    let mut ablations =
        spec.node_ablations.iter().flatten().map(ablation_spec).collect::<Result<Vec<AblationSpec>>>()?;
    // No gradient flows through the scale of the final layer norm: effects on it are not effects on the logits'
    // difference in the usual sense.
    ablations.push(AblationSpec {
        index: MirroredActivationIndex {
            activation_location_type: Location::ResidFinalLayerNormScale,
            tensor_indices: vec![AllOrOneIndex::All, AllOrOneIndex::All],
            layer_index: None,
            pass_type: PassType::Backward,
        },
        value: 0.0,
    });
    let trace = match (&spec.upstream_node_to_trace, &spec.downstream_node_to_trace) {
        (None, Some(_)) => {
            return bad!("downstreamNodeToTrace needs upstreamNodeToTrace, the head whose effect on it is traced");
        }
        (None, None) => None,
        (Some(upstream), downstream) => Some(trace_config(upstream, downstream.as_ref())?),
    };
    // The loss is what a trace through a head's value measures its effect on, unless a downstream node is.
    let uses_loss = trace.as_ref().is_none_or(|trace| {
        trace.attention_trace_type == Some(AttentionTraceType::V) && trace.downstream_trace_config.is_none()
    });
    let token_index = match &spec.upstream_node_to_trace {
        Some(node) => node.node_index.tensor_indices.first().copied().flatten().unwrap_or(-1),
        None => -1,
    };
    let loss = LossFnConfig {
        name: LossFnName::LogitDiff,
        target_tokens: Some(spec.target_tokens.clone()),
        distractor_tokens: Some(spec.distractor_tokens.clone()),
    };
    let top_k = |groups, token_index, k, residual_cut_layer| {
        ProcessingRequestSpec::MultipleTopKDerivedScalars(MultipleTopKDerivedScalarsRequestSpec {
            spec_type: Default::default(),
            dst_list_by_group_id: groups,
            token_index,
            top_and_bottom_k: Some(k),
            pass_type: PassType::Forward,
            residual_cut_layer,
            dimensions_to_keep_for_intermediate_sum: vec![
                tdb_api::Dimension::SequenceTokens,
                tdb_api::Dimension::AttendedToSequenceTokens,
            ],
        })
    };
    let scored = |token_scoring_type| {
        ProcessingRequestSpec::ScoredTokens(ScoredTokensRequestSpec {
            spec_type: Default::default(),
            token_scoring_type,
            num_tokens: READ_TOKENS,
            depends_on_spec_name: NODE_TABLE.to_owned(),
        })
    };
    let (cut, errors) = (spec.residual_cut_layer, spec.list_error_nodes == Some(true));
    let components = groups(spec.component_type_for_mlp, spec.component_type_for_attention, cut.is_some(), errors);
    let heads_and_neurons = groups(ComponentTypeForMlp::Neuron, ComponentTypeForAttention::AttentionHead, false, false);
    let logits = IndexMap::from([(GroupId::Logits, vec![Dst::Logits])]);
    let pairs = ProcessingRequestSpec::TokenPairAttribution(TokenPairAttributionRequestSpec {
        spec_type: Default::default(),
        num_tokens_attended_to: ATTENDED_TOKENS,
        depends_on_spec_name: NODE_TABLE.to_owned(),
    });
    let parts = [
        (NODE_TABLE, top_k(components, None, spec.top_and_bottom_k_for_node_table, cut)),
        ("componentSumsForTokenDisplay", top_k(heads_and_neurons, None, 1, None)),
        (UPVOTED_TOKENS, scored(TokenScoringType::UpvotedOutputTokens)),
        ("inputTokensThatUpvoteMlp", scored(TokenScoringType::InputTokensThatUpvoteMlp)),
        ("inputTokensThatUpvoteAttnQ", scored(TokenScoringType::InputTokensThatUpvoteAttnQ)),
        ("inputTokensThatUpvoteAttnK", scored(TokenScoringType::InputTokensThatUpvoteAttnK)),
        ("tokenPairAttribution", pairs),
        (OUTPUT_LOGITS, top_k(logits, Some(token_index), OUTPUT_TOKENS, None)),
    ];
    Ok(InferenceSubRequest {
        inference_request_spec: InferenceRequestSpec {
            prompt: spec.prompt.clone(),
            ablation_specs: Some(ablations),
            loss_fn_config: uses_loss.then_some(loss),
            trace_config: trace,
            activation_index_for_within_layer_grad: None,
        },
        processing_request_spec_by_name: parts.into_iter().map(|(name, spec)| (name.to_owned(), spec)).collect(),
    })
}

/// The tokens of a prompt and the interventions that ablations are, for a run without an objective.
///
/// # Errors
/// As [`Plan::new`], and if an ablation does not make sense.
pub(crate) fn plan_of(engine: &Engine, prompt: &str, ablations: &[NodeAblation]) -> Result<Plan> {
    let spec = InferenceRequestSpec {
        prompt: prompt.to_owned(),
        ablation_specs: Some(ablations.iter().map(ablation_spec).collect::<Result<_>>()?),
        loss_fn_config: None,
        trace_config: None,
        activation_index_for_within_layer_grad: None,
    };
    Plan::new(engine, &spec)
}

/// The columns of the node table: of each kind of node, the scalars in the order of these.
const COLUMNS: [GroupId; 4] = [GroupId::WriteNorm, GroupId::ActTimesGrad, GroupId::DirectionWrite, GroupId::Activation];
const EMBEDDING: [Dst; 4] = [
    Dst::ResidPostEmbeddingNorm,
    Dst::TokenAttribution,
    Dst::ResidPostEmbeddingProjToFinalResidualGrad,
    Dst::AlwaysOne,
];
const NEURONS: [Dst; 4] = [Dst::MlpWriteNorm, Dst::MlpActTimesGrad, Dst::MlpWriteToFinalResidualGrad, Dst::MlpPostAct];
const HEADS: [Dst; 4] = [
    Dst::UnflattenedAttnWriteNorm,
    Dst::UnflattenedAttnActTimesGrad,
    Dst::UnflattenedAttnWriteToFinalResidualGrad,
    Dst::AttnQkProbs,
];

/// The node table's scalars for the kinds of node asked for. With a residual dictionary's latents, what the stream holds
/// before them is left out.
fn groups(
    mlp: ComponentTypeForMlp,
    attention: ComponentTypeForAttention,
    residual_latents: bool,
    errors: bool,
) -> IndexMap<GroupId, Vec<Dst>> {
    let mut kinds = match residual_latents {
        true => dictionary_columns(Slot::Residual, errors),
        false => vec![EMBEDDING],
    };
    kinds.extend(match mlp {
        ComponentTypeForMlp::Neuron => vec![NEURONS],
        ComponentTypeForMlp::AutoencoderLatent => dictionary_columns(Slot::Mlp, errors),
    });
    kinds.extend(match attention {
        ComponentTypeForAttention::AttentionHead => vec![HEADS],
        ComponentTypeForAttention::AutoencoderLatent => dictionary_columns(Slot::Attention, errors),
    });
    let column = |i: usize| kinds.iter().map(|kind| kind[i]).collect();
    COLUMNS.into_iter().enumerate().map(|(i, group)| (group, column(i))).collect()
}

/// Latents, and if asked for what the slot's dictionary does not put into them.
fn dictionary_columns(slot: Slot, errors: bool) -> Vec<[Dst; 4]> {
    let of = |part: Part| {
        [Quantity::WriteNorm, Quantity::ActTimesGrad, Quantity::WriteToFinalResidual, Quantity::Activation]
            .map(|quantity| {
                Dst::ALL
                    .iter()
                    .copied()
                    .find(|dst| describe(*dst) == Some(DictionaryScalar { slot: Some(slot), part, quantity }))
            })
            .into_iter()
            .collect::<Option<Vec<Dst>>>()
            .and_then(|found| <[Dst; 4]>::try_from(found).ok())
    };
    let parts = [Part::Latents, Part::Error, Part::Skip];
    parts.into_iter().filter(|part| errors || *part == Part::Latents).filter_map(of).collect()
}

/// A null index means all entries along its axis, so that a whole head, layer or token can be set at once.
pub(crate) fn ablation_spec(ablation: &NodeAblation) -> Result<AblationSpec> {
    let MirroredNodeIndex { node_type, tensor_indices, layer_index, .. } = &ablation.node_index;
    let all_or_one = |index: &Option<i64>| index.map_or(AllOrOneIndex::All, AllOrOneIndex::One);
    let (Some(first), Some(last)) = (tensor_indices.first().map(all_or_one), tensor_indices.last().map(all_or_one))
    else {
        return bad!("nodeAblations: a node of type \"{node_type}\" needs its tensorIndices");
    };
    let (location, tensor_indices) = match node_type {
        // A head is set for everything that its attended-from token attends to.
        NodeType::AttentionHead => (Location::AttnQkProbs, vec![first, AllOrOneIndex::All, last]),
        NodeType::MlpNeuron => (Location::MlpPostAct, vec![first, last]),
        NodeType::AutoencoderLatent => (Location::OnlineAutoencoderLatent, vec![first, last]),
        NodeType::MlpAutoencoderLatent => (Location::OnlineMlpAutoencoderLatent, vec![first, last]),
        NodeType::AttentionAutoencoderLatent => (Location::OnlineAttentionAutoencoderLatent, vec![first, last]),
        NodeType::ResidualAutoencoderLatent => (Location::OnlineResidualAutoencoderLatent, vec![first, last]),
        // An error is set in all its channels.
        NodeType::MlpAutoencoderError => (Location::OnlineResidualMlpAutoencoderError, vec![first, AllOrOneIndex::All]),
        NodeType::AttentionAutoencoderError => {
            (Location::OnlineResidualAttentionAutoencoderError, vec![first, AllOrOneIndex::All])
        }
        NodeType::ResidualAutoencoderError => {
            (Location::OnlineResidualAutoencoderError, vec![first, AllOrOneIndex::All])
        }
        // The embedding, all channels of it at one token.
        NodeType::Layer if layer_index.is_none() => (Location::ResidPostEmbedding, vec![first, AllOrOneIndex::All]),
        other => {
            return bad!(
                "nodeAblations: a node of type \"{other}\" cannot be ablated; heads, MLP neurons, latents, their errors and embeddings can"
            );
        }
    };
    Ok(AblationSpec {
        index: MirroredActivationIndex {
            activation_location_type: location,
            tensor_indices,
            layer_index: *layer_index,
            pass_type: PassType::Forward,
        },
        value: ablation.value,
    })
}

fn trace_config(upstream: &NodeToTrace, downstream: Option<&NodeToTrace>) -> Result<MirroredTraceConfig> {
    if downstream.is_some() && upstream.attention_trace_type != Some(AttentionTraceType::V) {
        return bad!("downstreamNodeToTrace is only meaningful when a head is traced through its value (\"V\")");
    }
    let downstream = downstream.map(|node| trace_config(node, None)).transpose()?;
    Ok(MirroredTraceConfig {
        node_index: upstream.node_index.clone(),
        pre_or_post_act: PreOrPostAct::Pre,
        detach_layer_norm_scale: true,
        attention_trace_type: upstream.attention_trace_type,
        mlp_trace_type: upstream.mlp_trace_type,
        downstream_trace_config: downstream.map(Box::new),
    })
}
