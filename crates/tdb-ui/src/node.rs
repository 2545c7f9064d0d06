//! The page of one component.

mod attention;
mod examples;
mod explanations;
mod head;
pub mod heat_text;
mod histogram;
mod lens;
mod prompts;
mod readings;
mod statistics;
mod weights;

use leptos::prelude::*;
use tdb_api::page::{NodePage as Address, NodePageKind, NodePageQuery, PageState};
use tdb_api::{
    ComponentTypeForAttention, ComponentTypeForMlp, NodeAblation, NodeIdAndDatasets, NodeIndex, NodeType, PassType,
};

use crate::app::OnServedModel;
use crate::context::{expect_context, provide_context};
use crate::dom::set_title;
use crate::names::component_name;
use crate::records::in_dataset;
use crate::server::Server;
use crate::signals::{Memo, RwSignal, See, Signal, effect};
use crate::ui::dynamic;

/// What the page's parts need to know of the node. Reactive: arrow keys change it in place.
#[derive(Clone, Copy)]
pub struct Node {
    pub address: Memo<Option<Address>>,
    pub query: Memo<NodePageQuery>,
    search: RwSignal<String>,
    /// Whether examples may be stored; `None` until the server has told which sets it has.
    pub has_records: Memo<Option<bool>>,
}

impl Node {
    pub fn get() -> Self {
        expect_context()
    }

    /// The query string with its question mark, for links to neighbours.
    pub fn suffix(self) -> String {
        let search = self.search.get();
        if search.is_empty() { search } else { format!("?{}", search.trim_start_matches('?')) }
    }

    /// The debugger with this node's line in sight: its kind of nodes, its name as the filter, and perhaps ablated.
    pub fn debugger(self, prompt: Option<String>, ablated: bool) -> Option<String> {
        let a = self.address.get()?;
        let mut state = PageState::default();
        if let Some(prompt) = prompt {
            state.left.prompt = prompt;
        }
        let mut place = vec![None, Some(a.node_index)];
        let node_type = match a.kind.node_type {
            NodeType::AttentionHead => {
                place.insert(0, None);
                NodeType::AttentionHead
            }
            NodeType::MlpAutoencoderLatent => {
                state.component_type_for_mlp = ComponentTypeForMlp::AutoencoderLatent;
                NodeType::MlpAutoencoderLatent
            }
            NodeType::AttentionAutoencoderLatent | NodeType::AutoencoderLatentByTokenPair => {
                state.component_type_for_attention = ComponentTypeForAttention::AutoencoderLatent;
                NodeType::AttentionAutoencoderLatent
            }
            NodeType::ResidualAutoencoderLatent => {
                state.residual_cut_layer = Some(a.layer_index);
                NodeType::ResidualAutoencoderLatent
            }
            other => other,
        };
        if ablated {
            let node_index = NodeIndex {
                node_type,
                tensor_indices: place,
                layer_index: Some(a.layer_index),
                pass_type: PassType::Forward,
            };
            state.left.node_ablations.push(NodeAblation { node_index, value: 0.0 });
        } else {
            state.other.push(("filter".into(), component_name(a.kind.node_type, a.layer_index, a.node_index)));
        }
        Some(format!("{}?{}", a.slug.debugger_path(), state.to_query()))
    }

    /// The node as the routes about stored data name it.
    pub fn stored(self) -> Option<NodeIdAndDatasets> {
        let a = self.address.get()?;
        // Where no data set is about its type, the server says so.
        let dataset = a.dataset_name().unwrap_or_else(|| format!("{}_undefined", a.slug.model));
        Some(in_dataset(&a, dataset))
    }
}

#[component]
pub fn NodePage() -> impl IntoView {
    let here = crate::address::Address::get();
    let parsed = Memo::new(move |_| Address::parse(&here.part(0), &here.part(1), &here.part(2), &here.part(3)));
    let server = Server::get();
    let address = Memo::new(move |_| parsed.get().ok());
    let node = Node {
        address,
        has_records: Memo::new(move |_| Some(server.facts.get()?.may_have_records(&address.get()?))),
        query: Memo::new(move |_| NodePageQuery::parse(&here.query.get())),
        search: here.query,
    };
    provide_context(node);
    effect(move || {
        if let Some(a) = node.address.get() {
            set_title(&component_name(a.kind.node_type, a.layer_index, a.node_index));
        }
    });
    // Panes are bound to their node: another node gets new ones, not the old one's contents under a new heading.
    let kind = Memo::new(move |_| node.address.get().map(|a| a.kind));
    let slug = Signal::derive(move || node.address.get().map(|a| a.slug.to_string()).unwrap_or_default());
    // An index that the model does not have is no node, whatever the address says.
    let missing = Memo::new(move |_| {
        let a = node.address.get()?;
        let facts = server.facts.get().filter(|f| f.slug().is_some_and(|s| s.model == a.slug.model))?;
        match facts.extent(a.kind.node_type) {
            (Some(n), _) if a.layer_index >= n => Some(format!("The model has layers 0–{}.", n - 1)),
            (_, Some(n)) if a.node_index >= n => Some(format!("A layer has indices 0–{}.", n - 1)),
            _ => None,
        }
    });
    view! {
        <OnServedModel slug=slug>
        {dynamic(move || match kind.get().filter(|_| missing.see(Option::is_none)) {
            None => view! {
                <div class="page narrow stack">
                    <h1>"No such node"</h1>
                    <p>{dynamic(move || parsed.get().err().or(missing.get()))}</p>
                    <p>
                        "An address names a model, a type of node, a layer and an index, for instance "
                        <code>"/gpt2-small/attention_head/5/1"</code>
                        "."
                    </p>
                    <p><a class="button primary" href="/">"Go back home"</a></p>
                </div>
            }.into_any(),
            Some(kind) => view! {
                <head::Head />
                <div class="node-page">
                    {is_head(kind.node_type).then(|| view! { <attention::HeadAttention /> })}
                    <prompts::Prompts />
                    <div class="columns">
                        <explanations::Explanations />
                        <statistics::Statistics />
                        {has_lens(kind).then(|| view! { <lens::Lens /> })}
                        {has_directions(kind.node_type).then(|| view! { <weights::Weights /> })}
                        {is_head(kind.node_type).then(|| view! { <readings::Readings /> })}
                    </div>
                    <examples::Examples />
                </div>
            }.into_any(),
        })}
        </OnServedModel>
    }
}

/// Whether a component is read in tokens. Channels of the residual stream are not.
fn has_lens(kind: NodePageKind) -> bool {
    (kind.input_side || kind.output_side) && kind.node_type != NodeType::ResidualStreamChannel
}

fn is_head(node_type: NodeType) -> bool {
    node_type == NodeType::AttentionHead
}

/// Whether a component writes along one direction.
fn has_directions(node_type: NodeType) -> bool {
    matches!(
        node_type,
        NodeType::MlpNeuron
            | NodeType::MlpAutoencoderLatent
            | NodeType::AttentionAutoencoderLatent
            | NodeType::AutoencoderLatentByTokenPair
    )
}
