//! The circuit: pinned and traced nodes as a graph, how much of each one's effect goes through each other, and what
//! they do with all other nodes ablated.

mod graph;

use std::fmt::Write as _;

use leptos::{html, prelude::*};
use tdb_api::routes::Circuit as Route;
use tdb_api::{AblateTo, CircuitRequest, CircuitResponse, NodeIndex};

use super::interventions::describe;
use super::tools::Tools;
use crate::answer::{Answer, Compared, Metric};
use crate::context::{expect_context, provide_context};
use crate::dom;
use crate::format;
use crate::names;
use crate::remote::{Remote, follow};
use crate::session::Session;
use crate::signals::{Memo, RwSignal, See, Signal, effect};
use crate::sorting::sort;
use crate::ui::{
    CardHead, CollectView, ProblemCard, SaveFigure, Show, button, choice, dynamic, entered, follows, press,
};
use graph::{Edge, Graph};

/// So many nodes are pinned at once.
const LARGEST: usize = 10;

/// Edges of at least this share of the logit difference are shown at first.
const LEAST: f64 = 0.02;

/// Widths for a graph in the column beside the table, and alone.
const BESIDE: usize = 290;
const ALONE: usize = 1100;

#[derive(Clone, Copy)]
pub struct Circuit {
    session: Session,
    /// Pinned nodes, and those traced on the way here.
    nodes: Memo<Vec<NodeIndex>>,
    /// What all other nodes are set to.
    set_to: RwSignal<AblateTo>,
    /// The smallest edge that is shown, as a share of the logit difference.
    least: RwSignal<f64>,
    found: Signal<Remote<CircuitResponse>>,
    /// What is drawn, with the edges that are large enough.
    graph: Memo<Graph>,
    again: Callback<()>,
}

impl Circuit {
    pub fn provide(session: Session) {
        let nodes = Memo::new(move |_| {
            let mut nodes: Vec<NodeIndex> = session.view.see(|v| v.pinned());
            let trail = session.view.see(|v| v.trail()).into_iter().map(|(node, _)| node);
            for traced in trail.chain(session.page.see(|p| p.left.upstream_node_to_trace.clone())) {
                if !nodes.contains(&traced.node_index) {
                    nodes.push(traced.node_index);
                }
            }
            nodes
        });
        let set_to = RwSignal::new(AblateTo::PromptMean);
        let (found, again) = follow::<Route>(move || {
            let nodes = nodes.get();
            let side = session.answer.see(|a| a.request.sub_requests.first().cloned())?;
            // Without a target there is no logit difference that a node could have a part in.
            (!nodes.is_empty() && !side.target_tokens.is_empty()).then(|| CircuitRequest {
                prompt: side.prompt,
                target_tokens: side.target_tokens,
                distractor_tokens: side.distractor_tokens,
                component_type_for_mlp: side.component_type_for_mlp,
                component_type_for_attention: side.component_type_for_attention,
                residual_cut_layer: side.residual_cut_layer,
                node_ablations: side.node_ablations,
                nodes,
                ablate_to: set_to.get(),
            })
        });
        let least = RwSignal::new(LEAST);
        let graph = Memo::new(move |_| {
            let (edges, is_known) = found.see(|found| match found {
                Remote::Ready(found) => (edges(found, least.get()), !found.edges.is_empty()),
                _ => Default::default(),
            });
            Graph { nodes: nodes.get(), tokens: session.answer.see(|a| a.tokens().to_vec()), edges, is_known }
        });
        provide_context(Self { session, nodes, set_to, least, found, graph, again });
    }

    fn get() -> Self {
        expect_context()
    }

    /// The graph, so wide, in a box that shows its right end, where the output is.
    fn drawing(self, room: usize, class: &'static str) -> AnyView {
        let scroll = NodeRef::<html::Div>::new();
        effect(move || {
            self.nodes.track();
            self.found.track();
            dom::scroll_to_end(scroll.get());
        });
        view! {
            <div
                class=class
                tabindex="0"
                role="group"
                aria-label="Circuit"
                node_ref=scroll
                inner_html=move || self.graph.see(|graph| graph.svg(room))
            ></div>
        }
        .into_any()
    }

    /// Unpins the nodes from which no shown edges lead to the output.
    fn prune(self) {
        let graph = self.graph.get_untracked();
        let reaching = graph.reaching();
        let kept =
            graph.nodes.into_iter().zip(reaching).filter(|(_, reaches)| *reaches).map(|(node, _)| node).collect();
        self.session.pin(kept);
    }
}

/// Edges of at least this share of the objective, those through a head's query, key and value together.
fn edges(found: &CircuitResponse, least: f64) -> Vec<Edge> {
    let mut edges: Vec<Edge> = Vec::new();
    for edge in &found.edges {
        let (from, to) = (edge.from as usize, edge.to.map(|to| to as usize));
        let part = edge.through.map(|through| (through, edge.weight));
        match edges.iter_mut().find(|known| (known.from, known.to) == (from, to)) {
            Some(known) => {
                known.weight += edge.weight;
                known.parts.extend(part);
            }
            None => edges.push(Edge { from, to, weight: edge.weight, parts: part.into_iter().collect() }),
        }
    }
    edges.retain(|edge| edge.weight.abs() >= least * found.objective.abs());
    sort(&mut edges, |a, b| b.weight.abs().total_cmp(&a.weight.abs()));
    edges
}

/// The small graph beside the table.
#[component]
pub fn CircuitCard() -> impl IntoView {
    let circuit = Circuit::get();
    let tools = expect_context::<Tools>();
    view! {
        <Show when=move || !circuit.nodes.see(Vec::is_empty)>
            <section class="card" aria-label="Circuit" id="circuit">
                <CardHead
                    title="Circuit"
                    about="the circuit"
                    tip="Pinned and traced nodes, by layer and token. The last line is the prompt; the top is the \
                        output. An edge is the part of the lower node's estimated total effect that goes through \
                        the upper one."
                >
                    {button("button small plain", "Enlarge", move |_| tools.show_circuit())}
                    <SaveFigure what="the circuit" of="#circuit svg" file="circuit" />
                </CardHead>
                {circuit.drawing(BESIDE, "card-body heat-scroll circuit-graph")}
                <div class="card-body small-text">{dynamic(move || figures(circuit))}</div>
            </section>
        </Show>
    }
}

/// The graph alone, with what can be done with it.
#[component]
pub fn CircuitView() -> impl IntoView {
    let circuit = Circuit::get();
    let session = circuit.session;
    let pin_largest = move |_| {
        let largest = session.answer.see(|answer| largest(answer, LARGEST));
        let nodes = circuit.nodes.get_untracked();
        let more = largest.into_iter().filter(|node| !nodes.contains(node)).collect::<Vec<_>>();
        session.pin([nodes, more].concat());
    };
    let set = move |event| {
        let word = event_target_value(&event);
        circuit.set_to.set(word.parse().unwrap_or(AblateTo::PromptMean));
    };
    view! {
        <div class="stack" id="circuit-view">
            <div class="row">
                <button type="button" class="button small" id="pin-largest" on:click=press(pin_largest)>
                    {format!("Pin the {LARGEST} largest")}
                </button>
                <label class="row small-text">
                    "Edges of at least "
                    <input
                        type="range"
                        id="least-edge"
                        min="0"
                        max="30"
                        prop:value=follows(move || (circuit.least.get() * 100.0).to_string())
                        on:input=entered(move |e| {
                            circuit.least.set(dom::number(&event_target_value(&e)).unwrap_or_default() / 100.0);
                        })
                    />
                    {move || format!("{:.0} % of the logit difference", circuit.least.get() * 100.0)}
                </label>
                <button
                    type="button"
                    class="button small"
                    id="prune"
                    title="Unpin the nodes from which no shown edges lead to the output"
                    on:click=press(move |_| circuit.prune())
                >
                    "Prune"
                </button>
                <label class="row small-text">
                    "All other nodes set to "
                    <select class="field" id="circuit-to" on:change=entered(set)>
                        {SET_TO
                            .map(|(to, words)| choice(to.as_str(), words, move || circuit.set_to.get() == to))
                            .collect_view()}
                    </select>
                </label>
                <span class="grow"></span>
                <SaveFigure what="the circuit" of="#circuit-view svg" file="circuit" />
            </div>
            <p class="quiet small-text">
                "Pin rows of the node table with "<kbd>"p"</kbd>" or from their menu; traced nodes are here by \
                    themselves. An edge is the part of the lower node's estimated total effect that goes through the \
                    upper one, to first order, in units of the logit difference. What is not drawn goes through other \
                    nodes."
            </p>
            <div>{dynamic(move || figures(circuit))}</div>
            {circuit.drawing(ALONE, "heat-scroll circuit-graph")}
            <div class="circuit-lists">
                <ul class="chips" id="pinned" aria-label="Nodes of the circuit">{dynamic(move || chips(circuit))}</ul>
                <div inner_html=move || circuit.graph.see(table)></div>
            </div>
        </div>
    }
}

/// What nodes outside the circuit can be set to. Of heads there is no mean over a data set.
const SET_TO: [(AblateTo, &str); 2] = [(AblateTo::PromptMean, "their mean over this prompt"), (AblateTo::Zero, "zero")];

/// The nodes with the largest estimated total effects.
fn largest(answer: &Answer, n: usize) -> Vec<NodeIndex> {
    let effect = |row: &crate::answer::Row| row.value(Compared::Left, Metric::TotalEffect).map(f64::abs);
    let mut rows: Vec<_> = answer.rows.iter().filter_map(|row| Some((effect(row)?, row.nodes[0].clone()?))).collect();
    sort(&mut rows, |a, b| b.0.total_cmp(&a.0));
    rows.into_iter().take(n).map(|(_, node)| node).collect()
}

/// What the circuit does alone, and what is left without it.
fn figures(circuit: Circuit) -> AnyView {
    let found = match circuit.found.get() {
        Remote::Ready(found) => found,
        Remote::Failed(problem) if problem.is_missing_route() => return ().into_any(),
        Remote::Failed(problem) => return view! { <ProblemCard problem=problem retry=circuit.again /> }.into_any(),
        Remote::Idle => return ().into_any(),
        Remote::Loading => return view! { <span class="skeleton wide-skeleton"></span> }.into_any(),
    };
    let [kept, removed, empty, all] = [found.kept, found.removed, found.empty, found.objective].map(format::signed);
    let share = found
        .faithfulness
        .map(|share| format!(" (faithfulness {:.0} %)", share * 100.0).replace('-', "−"))
        .unwrap_or_default();
    let to = SET_TO.iter().find(|(to, _)| *to == circuit.set_to.get()).map_or("", |(_, words)| *words);
    view! {
        <p
            class="circuit-figures"
            data-kept=format::full(found.kept)
            data-removed=format::full(found.removed)
            title="Faithfulness: (these nodes alone − no node) / (all nodes − no node). Embeddings and biases are \
                   never ablated."
        >
            "These nodes alone, all others set to "{to}": "<strong>{kept}</strong>" of "{all}{share}
            ". Without these nodes: "{removed}". Without any node: "{empty}"."
        </p>
    }
    .into_any()
}

/// The nodes with their estimates; a pinned one can be unpinned.
fn chips(circuit: Circuit) -> AnyView {
    let session = circuit.session;
    let estimates = match circuit.found.get() {
        Remote::Ready(found) => found.estimates.clone(),
        _ => Vec::new(),
    };
    let pinned = session.view.see(|v| v.pinned());
    let chip = |(at, node): (usize, NodeIndex)| {
        let label = session.answer.see(|answer| describe(&node, answer));
        let estimate = estimates.get(at).copied();
        let unpin = match pinned.contains(&node) {
            true => {
                let label = format!("Unpin {label}");
                let press = press(move |_| session.toggle_pin(node.clone()));
                view! { <button type="button" class="close" aria-label=label on:click=press>"✕"</button> }.into_any()
            }
            false => view! { <span class="quiet">"traced"</span> }.into_any(),
        };
        view! {
            <li class="chip">
                <span class="chip-text">{label}</span>
                <span class="num" title="Estimated total effect" data-value=estimate.map(format::full)>
                    {estimate.map(format::signed)}
                </span>
                {unpin}
            </li>
        }
    };
    circuit.nodes.get().into_iter().enumerate().map(chip).collect_view().into_any()
}

/// The shown edges, the largest first.
fn table(graph: &Graph) -> String {
    if graph.edges.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<table class=\"explanations\"><thead><tr><th>From</th><th>To</th><th>Weight</th></tr></thead><tbody>",
    );
    for edge in &graph.edges {
        let name = |at: usize| graph.nodes.get(at).map(names::node_name).unwrap_or_default();
        let to = edge.to.map_or_else(|| "output".to_owned(), name);
        let (weight, full) = (format::signed(edge.weight), format::full(edge.weight));
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{to}{}</td><td class=\"num\" data-weight=\"{full}\" \
             title=\"{full}\">{weight}</td></tr>",
            name(edge.from),
            format::html(&edge.words())
        );
    }
    out + "</tbody></table>"
}
