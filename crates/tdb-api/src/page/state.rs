//! The state of the debugger's page, and the request that it stands for.

use crate::{
    AttentionTraceType, BatchedTdbRequest, ComponentTypeForAttention, ComponentTypeForMlp, NodeAblation, NodeToTrace,
    TdbRequestSpec, TokenRef,
};

/// What the debugger's page is about.
#[derive(Debug, Clone, PartialEq)]
pub struct PageState {
    /// The unit of MLP layers.
    pub component_type_for_mlp: ComponentTypeForMlp,
    /// The unit of attention layers.
    pub component_type_for_attention: ComponentTypeForAttention,
    /// The layer of the residual dictionary whose latents stand for what was written before; none: the embedding.
    pub residual_cut_layer: Option<i64>,
    /// How many nodes for each column of the table, from either end.
    pub top_and_bottom_k_for_node_table: i64,
    /// Whether the table leaves out layers before the first ablated one.
    pub hide_early_layers_when_ablating: bool,
    /// The left prompt, or the only one.
    pub left: SideState,
    /// The right prompt, when two are compared.
    pub right: Option<SideState>,
    /// Which tokens of the two prompts stand for each other: empty for pairs from the end, [`PageState::FROM_START`],
    /// or pairs (see [`token_pairs`](super::token_pairs)).
    pub alignment: String,
    /// Parameters of the URL that are not ours, kept as they are.
    pub other: Vec<(String, String)>,
}

/// One prompt with its tokens of interest, ablations and trace.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SideState {
    /// The text.
    pub prompt: String,
    /// The tokens whose logits are asked about.
    pub target_tokens: Vec<TokenRef>,
    /// The tokens that they are compared with.
    pub distractor_tokens: Vec<TokenRef>,
    /// Nodes set to a value. Those of the left side hold for both prompts.
    pub node_ablations: Vec<NodeAblation>,
    /// The node whose cause is asked for. That of the left side holds for both prompts.
    pub upstream_node_to_trace: Option<NodeToTrace>,
    /// The node on which the upstream head's effect is asked for.
    pub downstream_node_to_trace: Option<NodeToTrace>,
}

impl Default for PageState {
    fn default() -> Self {
        Self {
            component_type_for_mlp: ComponentTypeForMlp::Neuron,
            component_type_for_attention: ComponentTypeForAttention::AttentionHead,
            residual_cut_layer: None,
            top_and_bottom_k_for_node_table: 10,
            hide_early_layers_when_ablating: true,
            left: SideState {
                prompt: "<|endoftext|>Paris, France. Ottawa,".into(),
                target_tokens: vec![" Canada".into()],
                distractor_tokens: vec![" Germany".into()],
                ..SideState::default()
            },
            right: None,
            alignment: String::new(),
            other: Vec::new(),
        }
    }
}

impl PageState {
    /// The request that this state stands for.
    ///
    /// One prompt without ablations is one side. One prompt with ablations is two: with them, and without as the
    /// baseline. Two prompts are two sides, both with the left one's ablations and trace.
    pub fn to_request(&self) -> BatchedTdbRequest {
        let left = self.side(&self.left, &self.left.node_ablations);
        let right = match &self.right {
            Some(right) => Some(self.side(right, &self.left.node_ablations)),
            None if !self.left.node_ablations.is_empty() => Some(self.side(&self.left, &[])),
            None => None,
        };
        BatchedTdbRequest { sub_requests: std::iter::once(left).chain(right).collect(), alignment: None, checks: None }
    }

    fn side(&self, side: &SideState, ablations: &[NodeAblation]) -> TdbRequestSpec {
        let upstream = self.left.upstream_node_to_trace.clone();
        // Only a head traced through its value has an effect on another node to ask for; a server refuses it otherwise.
        let through_value =
            upstream.as_ref().is_some_and(|node| node.attention_trace_type == Some(AttentionTraceType::V));
        let downstream = self.left.downstream_node_to_trace.clone().filter(|_| through_value);
        TdbRequestSpec {
            spec_type: Default::default(),
            prompt: side.prompt.clone(),
            target_tokens: side.target_tokens.clone(),
            // A box that is left empty stands for no token.
            distractor_tokens: side.distractor_tokens.iter().filter(|t| **t != TokenRef::default()).cloned().collect(),
            component_type_for_mlp: self.component_type_for_mlp,
            component_type_for_attention: self.component_type_for_attention,
            residual_cut_layer: self.residual_cut_layer,
            list_error_nodes: self.lists_errors().then_some(true),
            top_and_bottom_k_for_node_table: self.top_and_bottom_k_for_node_table,
            hide_early_layers_when_ablating: self.hide_early_layers_when_ablating,
            node_ablations: Some(ablations.to_vec()),
            upstream_node_to_trace: upstream,
            downstream_node_to_trace: downstream,
        }
    }

    /// Whether the table has latents, so that what they leave over belongs into it.
    fn lists_errors(&self) -> bool {
        self.component_type_for_mlp == ComponentTypeForMlp::AutoencoderLatent
            || self.component_type_for_attention == ComponentTypeForAttention::AutoencoderLatent
            || self.residual_cut_layer.is_some()
    }

    /// Whether two prompts are compared.
    pub fn compares_prompts(&self) -> bool {
        self.right.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MirroredNodeIndex, NodeType, PassType};

    fn node(node_type: NodeType, trace: Option<AttentionTraceType>) -> NodeToTrace {
        let tensor_indices = match node_type {
            NodeType::AttentionHead => vec![Some(6), Some(4), Some(2)],
            _ => vec![Some(6), Some(4)],
        };
        let node_index =
            MirroredNodeIndex { node_type, tensor_indices, layer_index: Some(3), pass_type: PassType::Forward };
        NodeToTrace { node_index, attention_trace_type: trace, mlp_trace_type: None, downstream_trace_config: None }
    }

    fn ablation() -> NodeAblation {
        NodeAblation { node_index: node(NodeType::MlpNeuron, None).node_index, value: 0.0 }
    }

    #[test]
    fn one_prompt_is_one_side() {
        let request = PageState::default().to_request();
        assert_eq!(request.sub_requests.len(), 1);
        let json = serde_json::to_value(&request.sub_requests[0]).unwrap();
        assert!(json.get("specType").is_none(), "servers of the reference's kind refuse it");
        assert_eq!(json["topAndBottomKForNodeTable"], 10);
    }

    #[test]
    fn an_empty_distractor_is_none() {
        let mut state = PageState::default();
        state.left.distractor_tokens = vec![TokenRef::default(), " a".into()];
        assert_eq!(state.to_request().sub_requests[0].distractor_tokens, [TokenRef::from(" a")]);
    }

    #[test]
    fn ablations_are_compared_with_the_baseline() {
        let mut state = PageState::default();
        state.left.node_ablations = vec![ablation()];
        state.left.upstream_node_to_trace = Some(node(NodeType::MlpNeuron, None));
        let [left, right] = &state.to_request().sub_requests[..] else { panic!("two sides") };
        assert_eq!(left.node_ablations, Some(vec![ablation()]));
        assert_eq!(right.node_ablations, Some(vec![]));
        assert_eq!(left.upstream_node_to_trace, right.upstream_node_to_trace);
        assert!(right.upstream_node_to_trace.is_some());
    }

    #[test]
    fn two_prompts_share_the_left_ones_ablations_and_trace() {
        let mut state = PageState::default();
        state.left.node_ablations = vec![ablation()];
        state.left.upstream_node_to_trace = Some(node(NodeType::AttentionHead, Some(AttentionTraceType::Q)));
        state.right = Some(SideState { prompt: "b".into(), target_tokens: vec![" c".into()], ..SideState::default() });
        let [left, right] = &state.to_request().sub_requests[..] else { panic!("two sides") };
        assert_eq!((right.prompt.as_str(), right.target_tokens.len()), ("b", 1));
        assert_eq!(left.node_ablations, right.node_ablations);
        assert_eq!(left.upstream_node_to_trace, right.upstream_node_to_trace);
    }

    #[test]
    fn a_downstream_node_goes_with_a_value_trace_only() {
        let mut state = PageState::default();
        state.left.downstream_node_to_trace = Some(node(NodeType::MlpNeuron, None));
        for (trace, sent) in [(AttentionTraceType::V, true), (AttentionTraceType::QK, false)] {
            state.left.upstream_node_to_trace = Some(node(NodeType::AttentionHead, Some(trace)));
            assert_eq!(state.to_request().sub_requests[0].downstream_node_to_trace.is_some(), sent, "{trace}");
        }
    }
}
