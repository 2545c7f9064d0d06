//! Ablations and traces as steps, and the way that traces have gone.

use tdb_api::wire::from_json;
use tdb_api::{AttentionTraceType, MlpTraceType, NodeAblation, NodeIndex, NodeToTrace, NodeType, page::PageState};

use super::Session;
use crate::json::Json;
use crate::names;
use crate::signals::{Change, Peek};
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

    /// Keeps where a value comes from that a component may be held at, for as long as it is held there.
    pub fn remember_source(self, node: &NodeIndex, (value, words): &(f64, String)) {
        let (name, value, words) = (names::node_name(node), *value, words.clone());
        self.view.change(|view| {
            view.sources.retain(|(of, v, _)| (of, *v) != (&name, value));
            view.sources.push((name, value, words));
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

    /// Puts a node into the circuit, or takes it out.
    pub fn toggle_pin(self, node: NodeIndex) {
        let mut nodes = self.view.peek(|view| view.pinned());
        match nodes.iter().position(|pinned| *pinned == node) {
            Some(at) => {
                nodes.remove(at);
            }
            None => nodes.push(node),
        }
        self.pin(nodes);
    }

    /// Makes these nodes the pinned ones.
    pub fn pin(self, nodes: Vec<NodeIndex>) {
        self.view.change(|view| {
            view.circuit = if nodes.is_empty() { String::new() } else { Json::of(&nodes).text() };
        });
    }

    /// Asks what made `node` fire.
    pub fn trace(self, node: NodeIndex, through: Option<AttentionTraceType>) {
        self.step(move |page, view| trace(page, view, traced(node, through)));
    }

    /// Asks what made the other factor of a gated neuron.
    pub fn trace_up(self, node: NodeIndex) {
        let node = NodeToTrace { mlp_trace_type: Some(MlpTraceType::Up), ..traced(node, None) };
        self.step(move |page, view| trace(page, view, node));
    }

    /// Back to an earlier trace of the way here; `None` is the question of the logits.
    pub fn trace_back(self, to: Option<usize>) {
        self.step(move |page, view| trace_back(page, view, to));
    }
}

/// A value trace asks for the head's effect on the node that was traced before, if that can be asked, else on the
/// logits.
fn trace(page: &mut PageState, view: &mut ViewState, node: NodeToTrace) {
    let before = page.left.upstream_node_to_trace.take();
    let mut trail = view.trail();
    if let Some(before) = &before {
        trail.push((before.clone(), page.left.downstream_node_to_trace.take()));
    }
    page.left.downstream_node_to_trace = match node.attention_trace_type {
        Some(AttentionTraceType::V) => before.filter(|b| b.attention_trace_type != Some(AttentionTraceType::V)),
        _ => None,
    };
    page.left.upstream_node_to_trace = Some(node);
    view.set_trail(&trail);
}

fn traced(node_index: NodeIndex, attention_trace_type: Option<AttentionTraceType>) -> NodeToTrace {
    NodeToTrace { node_index, attention_trace_type, mlp_trace_type: None, downstream_trace_config: None }
}

fn trace_back(page: &mut PageState, view: &mut ViewState, to: Option<usize>) {
    let mut trail = view.trail();
    let step = to.and_then(|i| trail.get(i).cloned());
    trail.truncate(to.unwrap_or_default());
    let (up, down) = step.map_or((None, None), |(up, down)| (Some(up), down));
    page.left.upstream_node_to_trace = up;
    page.left.downstream_node_to_trace = down;
    view.set_trail(&trail);
}

type Step = (NodeToTrace, Option<NodeToTrace>);

impl ViewState {
    /// The traces before the present one.
    pub fn trail(&self) -> Vec<Step> {
        from_json(&self.trail).unwrap_or_default()
    }

    /// The nodes pinned to the circuit.
    pub fn pinned(&self) -> Vec<NodeIndex> {
        from_json(&self.circuit).unwrap_or_default()
    }

    /// Where the value that a node is held at comes from, if it is known.
    pub fn source(&self, node: &NodeIndex, value: f64) -> Option<String> {
        let name = names::node_name(node);
        self.sources.iter().find(|(of, v, _)| (of, *v) == (&name, value)).map(|(.., words)| words.clone())
    }

    fn set_trail(&mut self, trail: &[Step]) {
        self.trail = if trail.is_empty() { String::new() } else { Json::of(&trail).text() };
    }
}

/// The layers whose nodes can say something; `None` bounds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// The first layer whose values an ablation can change, when earlier ones are to be hidden.
    pub from: Option<i64>,
    /// The layer of the node that is traced: what comes later cannot have caused it.
    pub to: Option<i64>,
}

impl Layers {
    /// Of what a page asks.
    pub fn of(page: &PageState) -> Self {
        let traced = page.left.upstream_node_to_trace.as_ref();
        Self { from: first_ablated_layer(page), to: traced.and_then(|node| node.node_index.layer_index) }
    }

    /// Whether a node of this layer is shown; an embedding has none.
    pub fn show(self, layer: Option<i64>) -> bool {
        self.from.is_none_or(|from| layer.unwrap_or(-1) >= from) && self.to.is_none_or(|to| layer.unwrap_or(-1) <= to)
    }
}

fn first_ablated_layer(page: &PageState) -> Option<i64> {
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

    fn node(node_type: NodeType, unit: i64) -> NodeIndex {
        let mut tensor_indices = vec![Some(6), Some(unit)];
        if node_type == NodeType::AttentionHead {
            tensor_indices.insert(1, Some(4));
        }
        NodeIndex { node_type, tensor_indices, layer_index: Some(3), pass_type: PassType::Forward }
    }

    #[test]
    fn traces_lead_upstream_and_back() {
        let (mut page, mut view) = (PageState::default(), ViewState::default());
        let (neuron, head) = (node(NodeType::MlpNeuron, 7), node(NodeType::AttentionHead, 2));
        trace(&mut page, &mut view, traced(neuron.clone(), None));
        assert!(view.trail().is_empty(), "the logits come before it");
        let value = Some(AttentionTraceType::V);
        trace(&mut page, &mut view, traced(head.clone(), value));
        let upstream = |page: &PageState| page.left.upstream_node_to_trace.clone().map(|n| n.node_index);
        let downstream = |page: &PageState| page.left.downstream_node_to_trace.clone().map(|n| n.node_index);
        assert_eq!((upstream(&page), downstream(&page)), (Some(head.clone()), Some(neuron.clone())));
        // A head's effect on another head's value cannot be asked; then it is the one on the logits.
        trace(&mut page, &mut view, traced(head, value));
        assert_eq!((downstream(&page), view.trail().len()), (None, 2));
        trace_back(&mut page, &mut view, Some(0));
        assert_eq!((upstream(&page), downstream(&page), view.trail().len()), (Some(neuron), None, 0));
        trace_back(&mut page, &mut view, None);
        assert_eq!((upstream(&page), view.trail().len()), (None, 0));
    }

    #[test]
    fn layers_before_an_ablation_and_behind_a_traced_node_are_hidden() {
        let mut page = PageState::default();
        assert_eq!(Layers::of(&page), Layers::default());
        for layer in [4, 2, 7] {
            let node_index = NodeIndex { layer_index: Some(layer), ..node(NodeType::MlpNeuron, 1) };
            page.left.node_ablations.push(NodeAblation { node_index, value: 0.0 });
        }
        assert_eq!(Layers::of(&page), Layers { from: Some(2), to: None });
        page.hide_early_layers_when_ablating = false;
        assert_eq!(Layers::of(&page), Layers::default());
        let mut view = ViewState::default();
        trace(&mut page, &mut view, traced(node(NodeType::MlpNeuron, 1), None));
        let layers = Layers::of(&page);
        assert_eq!(layers, Layers { from: None, to: Some(3) });
        assert!(layers.show(None) && layers.show(Some(3)) && !layers.show(Some(4)));
    }
}
