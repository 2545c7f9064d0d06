//! Ablations and traces as steps, and the way that traces have gone.

use tdb_api::{AttentionTraceType, NodeAblation, NodeIndex, NodeToTrace, NodeType, page::PageState};

use super::Session;
use crate::view::ViewState;

impl Session {
    pub fn ablate(self, node: NodeIndex, value: f64) {
        self.ablate_all(vec![node], value);
    }

    /// Adds ablations; a node that is ablated already gets the new value.
    pub fn ablate_all(self, nodes: Vec<NodeIndex>, value: f64) {
        self.step(move |page, _| {
            for node_index in nodes {
                match page.left.node_ablations.iter_mut().find(|a| a.node_index == node_index) {
                    Some(ablation) => ablation.value = value,
                    None => page.left.node_ablations.push(NodeAblation { node_index, value }),
                }
            }
        });
    }

    pub fn remove_ablation(self, at: usize) {
        self.step(move |page, _| {
            if at < page.left.node_ablations.len() {
                page.left.node_ablations.remove(at);
            }
        });
    }

    pub fn clear_ablations(self) {
        self.step(|page, _| page.left.node_ablations.clear());
    }

    /// Asks what made `node` fire. A value trace asks for the head's effect on the node that was traced before, if that can
    /// be asked, else on the logits.
    pub fn trace(self, node: NodeIndex, through: Option<AttentionTraceType>) {
        self.step(move |page, view| {
            let before = page.left.upstream_node_to_trace.take();
            let mut trail = view.trail();
            if let Some(before) = &before {
                trail.push((before.clone(), page.left.downstream_node_to_trace.take()));
            }
            page.left.downstream_node_to_trace = match through {
                Some(AttentionTraceType::V) => before.filter(|b| b.attention_trace_type != Some(AttentionTraceType::V)),
                _ => None,
            };
            page.left.upstream_node_to_trace =
                Some(NodeToTrace { node_index: node, attention_trace_type: through, downstream_trace_config: None });
            view.set_trail(&trail);
        });
    }

    /// Back to an earlier trace of the way here; `None` is the question of the logits.
    pub fn trace_back(self, to: Option<usize>) {
        self.step(move |page, view| {
            let mut trail = view.trail();
            let step = to.and_then(|i| trail.get(i).cloned());
            trail.truncate(to.unwrap_or_default());
            let (up, down) = step.map_or((None, None), |(up, down)| (Some(up), down));
            page.left.upstream_node_to_trace = up;
            page.left.downstream_node_to_trace = down;
            view.set_trail(&trail);
        });
    }
}

type Step = (NodeToTrace, Option<NodeToTrace>);

impl ViewState {
    /// The traces before the present one.
    pub fn trail(&self) -> Vec<Step> {
        serde_json::from_str(&self.trail).unwrap_or_default()
    }

    fn set_trail(&mut self, trail: &[Step]) {
        self.trail = if trail.is_empty() { String::new() } else { serde_json::to_string(trail).unwrap_or_default() };
    }
}

/// The first layer whose values an ablation can change, when earlier ones are to be hidden.
pub fn first_ablated_layer(page: &PageState) -> Option<i64> {
    if !page.hide_early_layers_when_ablating || page.right.is_some() {
        return None;
    }
    let layers = page.left.node_ablations.iter().map(|a| match a.node_index.node_type {
        NodeType::Layer => -1,
        _ => a.node_index.layer_index.unwrap_or(-1),
    });
    layers.min().filter(|first| *first >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdb_api::PassType;

    #[test]
    fn layers_below_the_first_ablated_one_are_hidden() {
        let mut page = PageState::default();
        assert_eq!(first_ablated_layer(&page), None);
        for layer in [4, 2, 7] {
            let node_index = NodeIndex {
                node_type: NodeType::MlpNeuron,
                tensor_indices: vec![Some(0), Some(1)],
                layer_index: Some(layer),
                pass_type: PassType::Forward,
            };
            page.left.node_ablations.push(NodeAblation { node_index, value: 0.0 });
        }
        assert_eq!(first_ablated_layer(&page), Some(2));
        page.hide_early_layers_when_ablating = false;
        assert_eq!(first_ablated_layer(&page), None);
    }
}
