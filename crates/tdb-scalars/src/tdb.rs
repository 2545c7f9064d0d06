//! The debugger page's question, spelled out as a run and what is asked of it.

use tdb_api::{
    AblationSpec, ActivationLocationType as Location, AllOrOneIndex, AttentionTraceType, ComponentTypeForAttention,
    ComponentTypeForMlp, DerivedScalarType as Dst, GroupId, IndexMap, InferenceRequestSpec, InferenceSubRequest,
    LossFnConfig, LossFnName, MirroredActivationIndex, MirroredNodeIndex, MirroredTraceConfig,
    MultipleTopKDerivedScalarsRequestSpec, NodeAblation, NodeToTrace, NodeType, PassType, PreOrPostAct,
    ProcessingRequestSpec, ScoredTokensRequestSpec, TdbRequestSpec, TokenPairAttributionRequestSpec, TokenScoringType,
};

use tdb_api::wire::{FieldPath, Step};
use tdb_model::{MlpKind, Slot, Transformer};

use crate::derived::{Quantity, Subject, find};
use crate::engine::Engine;
use crate::error::{At, Result, bad};
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
pub fn to_inference_sub_request(model: &Transformer, spec: &TdbRequestSpec) -> Result<InferenceSubRequest> {
    let mut ablations = ablation_specs(model, spec.node_ablations.as_deref().unwrap_or_default())?;
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
    let trace = traced_node(spec.upstream_node_to_trace.as_ref(), spec.downstream_node_to_trace.as_ref())?;
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
            leave_out_replaced: true,
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
    let in_all_layers = |slot| model.layers_with(slot).count() == model.config().n_layers;
    let mlp = match spec.component_type_for_mlp {
        _ if model.config().mlp == MlpKind::None => Vec::new(),
        ComponentTypeForMlp::Neuron => vec![NEURONS],
        ComponentTypeForMlp::AutoencoderLatent => latents(Slot::Mlp, errors, NEURONS, in_all_layers(Slot::Mlp)),
    };
    let attention = match spec.component_type_for_attention {
        ComponentTypeForAttention::AttentionHead => vec![HEADS],
        ComponentTypeForAttention::AutoencoderLatent => {
            latents(Slot::Attention, errors, HEADS, in_all_layers(Slot::Attention))
        }
    };
    // A residual dictionary's latents stand for what the stream holds before them.
    let before = match cut {
        Some(_) => dictionary_columns(Slot::Residual, errors),
        None => vec![EMBEDDING],
    };
    let components = groups(&[before, mlp, attention].concat());
    let heads_and_neurons = match model.config().mlp {
        MlpKind::None => groups(&[EMBEDDING, HEADS]),
        _ => groups(&[EMBEDDING, NEURONS, HEADS]),
    };
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
        ablation_specs: Some(ablation_specs(engine.model(), ablations)?),
        loss_fn_config: None,
        trace_config: None,
        activation_index_for_within_layer_grad: None,
    };
    Plan::new(engine, &spec).map_err(|error| error.moved(field_as_asked))
}

/// The ablations of `nodeAblations`.
///
/// # Errors
/// If a node cannot be ablated.
pub(crate) fn ablation_specs(model: &Transformer, ablations: &[NodeAblation]) -> Result<Vec<AblationSpec>> {
    let spec = |(i, ablation)| ablation_spec(model, ablation).at(|| FieldPath::of("nodeAblations").index(i));
    ablations.iter().enumerate().map(spec).collect()
}

/// What stands for a field of [`InferenceRequestSpec`] in requests that say the same by nodes, as the debugger's.
pub(crate) fn field_as_asked(field: FieldPath) -> FieldPath {
    let mut steps = field.0.iter();
    let rest = |steps: std::slice::Iter<'_, Step>| FieldPath(steps.cloned().collect());
    match steps.next() {
        Some(Step::Key(key)) if key == "ablationSpecs" => FieldPath::of("nodeAblations").join(rest(steps)),
        Some(Step::Key(key)) if key == "lossFnConfig" => rest(steps),
        Some(Step::Key(key)) if key == "traceConfig" => {
            let downstream = Step::Key("downstreamTraceConfig".to_owned());
            let is_downstream = steps.as_slice().first() == Some(&downstream);
            FieldPath::of(if is_downstream { "downstreamNodeToTrace" } else { "upstreamNodeToTrace" })
        }
        _ => field,
    }
}

/// What stands in the debugger's request for a field of the request that it is spelled out as.
pub(crate) fn field_of_question(field: FieldPath) -> FieldPath {
    let sides = FieldPath::of("subRequests");
    if field == "alignment".into() {
        return field;
    }
    let Some((Step::Index(side), rest)) = field.0.get(1..).and_then(<[Step]>::split_first) else { return sides };
    let side = sides.index(*side);
    match rest {
        [Step::Key(key), rest @ ..] if key == "inferenceRequestSpec" => {
            side.join(field_as_asked(FieldPath(rest.to_vec())))
        }
        [Step::Key(_), Step::Key(_), Step::Key(key), ..] if key == "topAndBottomK" => {
            side.key("topAndBottomKForNodeTable")
        }
        [Step::Key(_), Step::Key(_), Step::Key(key), ..] if key == "residualCutLayer" => side.key(key),
        _ => side,
    }
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

/// The node table's scalars for these kinds of node.
fn groups(kinds: &[[Dst; 4]]) -> IndexMap<GroupId, Vec<Dst>> {
    let column = |i: usize| kinds.iter().map(|kind| kind[i]).collect();
    COLUMNS.into_iter().enumerate().map(|(i, group)| (group, column(i))).collect()
}

/// A slot's latents and, unless all layers have them, what they stand for in the others: neurons or heads.
fn latents(slot: Slot, errors: bool, replaced: [Dst; 4], in_all_layers: bool) -> Vec<[Dst; 4]> {
    let mut kinds = dictionary_columns(slot, errors);
    if !in_all_layers {
        kinds.push(replaced);
    }
    kinds
}

/// Latents, and if asked for what the slot's dictionary does not put into them.
fn dictionary_columns(slot: Slot, errors: bool) -> Vec<[Dst; 4]> {
    let of = |subject: Subject| {
        let quantities =
            [Quantity::WriteNorm, Quantity::ActTimesGrad, Quantity::WriteToFinalResidual, Quantity::Activation];
        let found = quantities.iter().map(|quantity| find(subject, *quantity)).collect::<Option<Vec<Dst>>>()?;
        <[Dst; 4]>::try_from(found).ok()
    };
    let mut subjects = vec![Subject::Latents(Some(slot))];
    if errors {
        subjects.push(Subject::Error(slot));
        subjects.extend((slot == Slot::Mlp).then_some(Subject::Skip));
    }
    subjects.into_iter().filter_map(of).collect()
}

/// A null index means all entries along its axis, so that a whole head, layer or token can be set at once.
pub(crate) fn ablation_spec(model: &Transformer, ablation: &NodeAblation) -> Result<AblationSpec> {
    let MirroredNodeIndex { node_type, tensor_indices, layer_index, .. } = &ablation.node_index;
    let all_or_one = |index: &Option<i64>| index.map_or(AllOrOneIndex::All, AllOrOneIndex::One);
    let (Some(first), Some(last)) = (tensor_indices.first().map(all_or_one), tensor_indices.last().map(all_or_one))
    else {
        return bad!("a node of type \"{node_type}\" needs its tensorIndices");
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
        NodeType::MlpAutoencoderError => {
            let within = model.mlp_autoencoder_site().is_some_and(|site| !site.writes_residual_stream());
            let location = match within {
                true => Location::OnlineMlpAutoencoderError,
                false => Location::OnlineResidualMlpAutoencoderError,
            };
            (location, vec![first, AllOrOneIndex::All])
        }
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
                "a node of type \"{other}\" cannot be ablated; heads, MLP neurons, latents, their errors and embeddings can"
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

/// Where the backward pass starts, if a node is traced.
///
/// # Errors
/// If only a downstream node is given, or it is given where it has no meaning.
pub(crate) fn traced_node(
    upstream: Option<&NodeToTrace>,
    downstream: Option<&NodeToTrace>,
) -> Result<Option<MirroredTraceConfig>> {
    match (upstream, downstream) {
        (None, Some(_)) => {
            bad!(at "downstreamNodeToTrace", "needs upstreamNodeToTrace, the head whose effect on it is traced")
        }
        (None, None) => Ok(None),
        (Some(upstream), downstream) => Ok(Some(trace_config(upstream, downstream)?)),
    }
}

fn trace_config(upstream: &NodeToTrace, downstream: Option<&NodeToTrace>) -> Result<MirroredTraceConfig> {
    if downstream.is_some() && upstream.attention_trace_type != Some(AttentionTraceType::V) {
        return bad!(at "downstreamNodeToTrace", "is only meaningful when a head is traced through its value (\"V\")");
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
