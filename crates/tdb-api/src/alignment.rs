//! Which tokens of two prompts stand for each other.

use crate::BatchedTdbRequest;
use crate::index::{MirroredNodeIndex, NodeToTrace};
use crate::wire::wire_struct;

wire_struct! {
    /// A token of the first prompt and the one of the second that stands for it.
    pub struct AlignedTokens {
        pub left: i64,
        pub right: i64,
    }
}

/// Pairs of tokens, looked up from either side.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Alignment([Vec<Option<i64>>; 2]);

impl Alignment {
    /// Of pairs in which each token stands at most once.
    pub fn new(pairs: &[AlignedTokens]) -> Self {
        let mut of = Self::default();
        for pair in pairs {
            for (side, from, to) in [(0, pair.left, pair.right), (1, pair.right, pair.left)] {
                let Ok(from) = usize::try_from(from) else { continue };
                let partners = &mut of.0[side];
                if partners.len() <= from {
                    partners.resize(from + 1, None);
                }
                partners[from] = Some(to);
            }
        }
        of
    }

    /// The token of the other side that stands for this one; `side` is 0 for the first prompt.
    pub fn partner(&self, side: usize, token: i64) -> Option<i64> {
        usize::try_from(token).ok().and_then(|token| self.0[side].get(token).copied().flatten())
    }

    /// The same node at the other side's tokens; `None` where one of its tokens has no partner. What stands for all
    /// tokens, or counts from the end, stays.
    pub fn node(&self, side: usize, node: &MirroredNodeIndex) -> Option<MirroredNodeIndex> {
        let mut node = node.clone();
        if let Some((_, tokens)) = node.tensor_indices.split_last_mut() {
            for token in tokens.iter_mut().flatten().filter(|token| **token >= 0) {
                *token = self.partner(side, *token)?;
            }
        }
        Some(node)
    }

    fn traced(&self, node: &NodeToTrace) -> Result<NodeToTrace, MirroredNodeIndex> {
        let partner = self.node(0, &node.node_index).ok_or_else(|| node.node_index.clone())?;
        Ok(NodeToTrace { node_index: partner, ..node.clone() })
    }
}

impl BatchedTdbRequest {
    /// Compares two prompts by these pairs. What the second side ablates and traces is given by tokens of the first and
    /// becomes nodes of its own; ablations at tokens without a partner are left out.
    ///
    /// # Errors
    /// With the traced node, if it has no partner.
    pub fn align(mut self, pairs: Vec<AlignedTokens>) -> Result<Self, MirroredNodeIndex> {
        let alignment = Alignment::new(&pairs);
        for side in self.sub_requests.iter_mut().skip(1) {
            if let Some(ablations) = &mut side.node_ablations {
                ablations.retain_mut(|ablation| match alignment.node(0, &ablation.node_index) {
                    Some(node) => {
                        ablation.node_index = node;
                        true
                    }
                    None => false,
                });
            }
            for traced in [&mut side.upstream_node_to_trace, &mut side.downstream_node_to_trace] {
                *traced = traced.as_ref().map(|node| alignment.traced(node)).transpose()?;
            }
        }
        self.alignment = Some(pairs);
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::{PageState, SideState};
    use crate::{NodeAblation, NodeType, PassType};

    fn head(from: Option<i64>, to: Option<i64>) -> MirroredNodeIndex {
        MirroredNodeIndex {
            node_type: NodeType::AttentionHead,
            tensor_indices: vec![from, to, Some(7)],
            layer_index: Some(1),
            pass_type: PassType::Forward,
        }
    }

    #[test]
    fn nodes_go_to_the_tokens_that_stand_for_theirs() {
        let alignment = Alignment::new(&[AlignedTokens { left: 3, right: 5 }, AlignedTokens { left: 1, right: 0 }]);
        assert_eq!(alignment.node(0, &head(Some(3), Some(1))), Some(head(Some(5), Some(0))));
        assert_eq!(alignment.node(1, &head(Some(5), None)), Some(head(Some(3), None)));
        assert_eq!(alignment.node(0, &head(Some(2), Some(1))), None, "token 2 has no partner");
        assert_eq!(alignment.node(0, &head(Some(-1), Some(1))), Some(head(Some(-1), Some(0))));
    }

    #[test]
    fn what_is_ablated_and_traced_goes_with_its_tokens() {
        let right = Some(SideState { prompt: "longer".into(), ..SideState::default() });
        let mut page = PageState { right, ..PageState::default() };
        let ablation = |token| NodeAblation { node_index: head(Some(token), None), value: 0.0 };
        page.left.node_ablations = vec![ablation(0), ablation(2)];
        let pairs = vec![AlignedTokens { left: 2, right: 3 }];
        let request = page.to_request().align(pairs.clone()).unwrap();
        assert_eq!(request.sub_requests[0].node_ablations.as_ref().unwrap().len(), 2);
        assert_eq!(request.sub_requests[1].node_ablations, Some(vec![ablation(3)]));
        let node_index = head(Some(0), Some(0));
        let traced =
            NodeToTrace { node_index, attention_trace_type: None, mlp_trace_type: None, downstream_trace_config: None };
        page.left.upstream_node_to_trace = Some(traced);
        assert_eq!(page.to_request().align(pairs), Err(head(Some(0), Some(0))));
    }
}
