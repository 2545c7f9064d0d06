//! The debugger's question asked from Rust: why does the model prefer some next tokens to others?

use tdb_api::{
    AttentionTraceType, BatchedTdbRequest, ComponentTypeForAttention, ComponentTypeForMlp, GroupId, MirroredNodeIndex,
    MlpTraceType, NodeAblation, NodeToTrace, NodeType, PassType, ProcessingResponseData as Part, TdbRequestSpec,
    TokenRef, TopTokens,
};
use tdb_model::Slot;

use crate::context::Context;
use crate::dictionary::{error_type, latent_type, slot_of_error};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::nodes::{Component, Node};
use crate::tdb::{NODE_TABLE, OUTPUT_LOGITS, OUTPUT_TOKENS, UPVOTED_TOKENS};

/// Which components of a run make `targets` likelier than `distractors` as the next token.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The text; the question is about the token that follows it.
    pub prompt: String,
    /// By text or by id; at least one, unless `trace` is given.
    pub targets: Vec<TokenRef>,
    /// By text or by id; may be empty.
    pub distractors: Vec<TokenRef>,
    /// Whether MLP layers are told by neurons or by an autoencoder's latents.
    pub mlp: ComponentTypeForMlp,
    /// Whether attention layers are told by heads or by an autoencoder's latents.
    pub attention: ComponentTypeForAttention,
    /// The layer at which the residual stream is told by its dictionary's latents: of other components, those that write
    /// after it. `None`: not at all.
    pub residual_cut: Option<usize>,
    /// Whether what dictionaries leave over, and what goes beside a transcoder's latents, are components.
    pub list_errors: bool,
    /// How many of the largest and of the smallest, for each figure of [`Effect`] and each kind of component.
    pub extremes: usize,
    /// Components that are set to a value during the run.
    pub ablations: Vec<Ablation>,
    /// The node whose cause is asked for, in place of the next token's.
    pub trace: Option<TracedNode>,
    /// With a head traced through its value: the node on which that head's effect is asked for.
    pub downstream: Option<TracedNode>,
}

/// A component and the value that its activation is set to. A head is set for all tokens that its query attends to, an
/// embedding in all its channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ablation {
    pub component: Component,
    pub value: f64,
}

/// A node that a question starts from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TracedNode {
    pub node: Node,
    /// For heads, and only for them.
    pub through: Option<AttentionTraceType>,
    /// For neurons of gated MLP layers, and only for them; the gate if it is left out.
    pub mlp: Option<MlpTraceType>,
}

/// What the run did, and which components did it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Texts of the prompt's tokens.
    pub tokens: Vec<String>,
    /// Mean logit of the targets minus mean logit of the distractors; `None` if a node alone was asked about.
    pub difference: Option<f64>,
    /// The traced node's value.
    pub traced: Option<f64>,
    /// The extreme components, those with the largest direct effect (of either sign) first.
    pub effects: Vec<Effect>,
    /// Likely next tokens with their logits, likeliest first.
    pub next_tokens: Vec<(String, f64)>,
}

/// One component's part.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    pub component: Component,
    /// Attention probability, neuron or latent; 1 for an embedding.
    pub activation: f64,
    /// Length of what it writes to the residual stream.
    pub write_norm: f64,
    /// Its write along the objective's gradient at the last residual stream: what it does without other components.
    pub direct: f64,
    /// Its activation times the objective's gradient there: what it does to first order, through others too.
    pub total: f64,
    /// The tokens that its write makes likelier and less likely.
    pub tokens: Option<TopTokens>,
}

impl Question {
    /// About neurons and heads, ten extremes each, without ablations; targets and distractors by their texts.
    pub fn new(prompt: &str, targets: &[&str], distractors: &[&str]) -> Self {
        let named = |texts: &[&str]| texts.iter().map(|text| TokenRef::from(*text)).collect();
        Question {
            prompt: prompt.to_owned(),
            targets: named(targets),
            distractors: named(distractors),
            mlp: ComponentTypeForMlp::Neuron,
            attention: ComponentTypeForAttention::AttentionHead,
            residual_cut: None,
            list_errors: false,
            extremes: 10,
            ablations: Vec::new(),
            trace: None,
            downstream: None,
        }
    }

    fn request(&self) -> BatchedTdbRequest {
        let ablation = |a: &Ablation| NodeAblation { node_index: a.component.to_wire(), value: a.value };
        let traced = |traced: TracedNode| NodeToTrace {
            node_index: Component::Node(traced.node).to_wire(),
            attention_trace_type: traced.through,
            mlp_trace_type: traced.mlp,
            downstream_trace_config: None,
        };
        let spec = TdbRequestSpec {
            spec_type: Default::default(),
            prompt: self.prompt.clone(),
            target_tokens: self.targets.clone(),
            distractor_tokens: self.distractors.clone(),
            component_type_for_mlp: self.mlp,
            component_type_for_attention: self.attention,
            residual_cut_layer: self.residual_cut.map(|layer| layer as i64),
            list_error_nodes: self.list_errors.then_some(true),
            top_and_bottom_k_for_node_table: i64::try_from(self.extremes).unwrap_or(i64::MAX),
            hide_early_layers_when_ablating: false,
            node_ablations: Some(self.ablations.iter().map(ablation).collect()),
            upstream_node_to_trace: self.trace.map(traced),
            downstream_node_to_trace: self.downstream.map(traced),
        };
        BatchedTdbRequest { sub_requests: vec![spec], alignment: None, checks: None }
    }
}

impl Engine {
    /// The answer to `question`; the same as `POST /batched_tdb` gives.
    ///
    /// # Errors
    /// [`Error::Bad`] with what is wrong with the question and what would be right.
    pub fn ask(&self, question: &Question) -> Result<Answer> {
        let mut response = self.batched_tdb(&question.request(), &Context::default())?;
        let Some(mut response) = response.inference_sub_responses.pop() else { return Err(incomplete()) };
        let run = response.inference_response.inference_and_token_data;
        let mut part = |name: &str| response.processing_response_data_by_name.shift_remove(name);
        let (Some(Part::MultipleTopKDerivedScalars(table)), Some(Part::MultipleTopKDerivedScalars(logits))) =
            (part(NODE_TABLE), part(OUTPUT_LOGITS))
        else {
            return Err(incomplete());
        };
        let Some(Part::ScoredTokens(readings)) = part(UPVOTED_TOKENS) else { return Err(incomplete()) };
        let column = |group| table.activations_by_group_id.get(&group).ok_or_else(incomplete);
        let (activation, write_norm) = (column(GroupId::Activation)?, column(GroupId::WriteNorm)?);
        let (direct, total) = (column(GroupId::DirectionWrite)?, column(GroupId::ActTimesGrad)?);
        let mut effects = Vec::with_capacity(table.node_indices.len());
        for ((i, node), tokens) in table.node_indices.iter().enumerate().zip(readings.top_tokens_list) {
            effects.push(Effect {
                component: Component::from_wire(node).ok_or_else(incomplete)?,
                activation: activation[i],
                write_norm: write_norm[i],
                direct: direct[i],
                total: total[i],
                tokens,
            });
        }
        effects.sort_by(|a, b| b.direct.abs().total_cmp(&a.direct.abs()));
        let texts = logits.vocab_token_strings_for_indices.unwrap_or_default().into_iter().flatten();
        let values = logits.activations_by_group_id.get(&GroupId::Logits).into_iter().flatten().copied();
        let mut next_tokens: Vec<(String, f64)> = texts.zip(values).collect();
        next_tokens.sort_by(|a, b| b.1.total_cmp(&a.1));
        next_tokens.truncate(OUTPUT_TOKENS as usize);
        let traced = run.activation_value_for_backward_pass;
        Ok(Answer { tokens: run.tokens_as_strings, difference: run.loss, traced, effects, next_tokens })
    }
}

fn incomplete() -> Error {
    Error::Internal("the answer lacks a part of what the question asked for".to_owned())
}

impl Component {
    fn to_wire(self) -> MirroredNodeIndex {
        let (node_type, layer, indices) = match self {
            Component::Embedding { token } => (NodeType::Layer, None, vec![token, 0]),
            Component::Node(node) => {
                let (node_type, indices) = match node {
                    Node::Neuron { token, index, .. } => (NodeType::MlpNeuron, vec![token, index]),
                    Node::Head { query, key, head, .. } => (NodeType::AttentionHead, vec![query, key, head]),
                    Node::Latent { slot, token, index, .. } => (latent_type(slot), vec![token, index]),
                };
                (node_type, Some(node.layer() as i64), indices)
            }
            Component::Error { slot, layer, token } => (error_type(slot), Some(layer as i64), vec![token, 0]),
            Component::Skip { layer, token } => (NodeType::MlpTranscoderSkip, Some(layer as i64), vec![token, 0]),
        };
        MirroredNodeIndex {
            node_type,
            tensor_indices: indices.into_iter().map(|i| Some(i as i64)).collect(),
            layer_index: layer,
            pass_type: PassType::Forward,
        }
    }

    /// `None` if it is no component, or does not say exactly which.
    fn from_wire(node: &MirroredNodeIndex) -> Option<Self> {
        let number = |i: &i64| usize::try_from(*i).ok();
        let indices: Vec<usize> =
            node.tensor_indices.iter().map(|i| i.as_ref().and_then(number)).collect::<Option<_>>()?;
        let layer = node.layer_index.as_ref().and_then(number);
        if let (NodeType::Layer, None, &[token, _]) = (node.node_type, layer, indices.as_slice()) {
            return Some(Component::Embedding { token });
        }
        let layer = layer?;
        if let (Some(slot), &[token, _]) = (slot_of_error(node.node_type), indices.as_slice()) {
            return Some(Component::Error { slot, layer, token });
        }
        if let (NodeType::MlpTranscoderSkip, &[token, _]) = (node.node_type, indices.as_slice()) {
            return Some(Component::Skip { layer, token });
        }
        let latents = Slot::ALL.into_iter().find(|slot| latent_type(*slot) == node.node_type);
        Some(Component::Node(match (node.node_type, indices.as_slice()) {
            (NodeType::MlpNeuron, &[token, index]) => Node::Neuron { layer, token, index },
            (NodeType::AttentionHead, &[query, key, head]) => Node::Head { layer, query, key, head },
            (_, &[token, index]) => Node::Latent { slot: latents?, layer, token, index },
            _ => return None,
        }))
    }
}
