//! The circuit so far: traced nodes by layer and token, joined in the order in which they were traced.

use leptos::prelude::*;
use tdb_api::NodeToTrace;

use crate::names;
use crate::session::Session;
use crate::ui::{CardHead, SaveFigure};

const COLUMN: usize = 46;
const LINE: usize = 34;

#[component]
pub fn Circuit() -> impl IntoView {
    let session = Session::get();
    let nodes = Memo::new(move |_| {
        let mut nodes: Vec<NodeToTrace> = session.view.with(|v| v.trail()).into_iter().map(|(n, _)| n).collect();
        nodes.extend(session.page.with(|p| p.left.upstream_node_to_trace.clone()));
        nodes
    });
    view! {
        <Show when=move || !nodes.with(Vec::is_empty)>
            <section class="card" aria-label="Circuit" id="circuit">
                <CardHead
                    title="Circuit"
                    about="the circuit"
                    tip="The nodes traced on the way here, by layer and token. The last line is the prompt; the top is the output."
                >
                    <SaveFigure what="the circuit" of="#circuit svg" file="circuit" />
                </CardHead>
                <div class="card-body heat-scroll" tabindex="0" role="group" aria-label="Circuit">{move || draw(session, &nodes.get())}</div>
            </section>
        </Show>
    }
}

fn draw(session: Session, nodes: &[NodeToTrace]) -> AnyView {
    let tokens = session.answer.with(|a| a.tokens().to_vec());
    let n = tokens.len().max(1);
    let mut layers: Vec<i64> = nodes.iter().map(|t| t.node_index.layer_index.unwrap_or(-1)).collect();
    layers.sort_unstable();
    layers.dedup();
    // Names stand to the right of their dots.
    let width = n * COLUMN + 140;
    let y_of = |layer: i64| (layers.iter().rev().position(|l| *l == layer).unwrap_or_default() + 1) * LINE + 16;
    let x_of = |token: Option<usize>| 54 + token.unwrap_or(n - 1) * COLUMN;
    let height = (layers.len() + 2) * LINE + 10;
    let at = |t: &NodeToTrace| (x_of(names::token_from(&t.node_index)), y_of(t.node_index.layer_index.unwrap_or(-1)));
    let output = (x_of(Some(n - 1)), 16);
    let points: Vec<(usize, usize)> = std::iter::once(output).chain(nodes.iter().map(at)).collect();
    let edges = points.windows(2).map(|p| view! { <line class="edge" x1=p[0].0.to_string() y1=p[0].1.to_string() x2=p[1].0.to_string() y2=p[1].1.to_string() stroke="currentColor" /> }).collect_view();
    // Heads also reach down to the token that they read.
    let reads = nodes
        .iter()
        .filter_map(|t| {
            let to = names::token_to(&t.node_index)?;
            let (x, y) = at(t);
            Some(view! { <line class="edge read" x1=x.to_string() y1=y.to_string() x2=x_of(Some(to)).to_string() y2=(height - LINE).to_string() stroke="currentColor" stroke-dasharray="3 3" /> })
        })
        .collect_view();
    let dots = nodes
        .iter()
        .zip(&points[1..])
        .map(|(t, (x, y))| {
            view! {
                <circle class=names::type_class(t.node_index.node_type) cx=x.to_string() cy=y.to_string() r="5" fill="currentColor" />
                <text x=(x + 8).to_string() y=(y + 4).to_string() font-size="11" fill="currentColor">{names::node_name(&t.node_index)}</text>
            }
        })
        .collect_view();
    let feet = tokens
        .iter()
        .enumerate()
        .map(|(i, t)| view! { <text x=x_of(Some(i)).to_string() y=(height - 12).to_string() font-size="10" text-anchor="middle" fill="currentColor">{t.chars().take(7).collect::<String>()}</text> })
        .collect_view();
    let lines = layers
        .iter()
        .map(|l| view! { <text x="2" y=(y_of(*l) + 4).to_string() font-size="10" fill="currentColor">"L"{*l}</text> })
        .collect_view();
    let described = nodes.iter().map(|t| names::node_name(&t.node_index)).collect::<Vec<_>>().join(", from ");
    view! {
        <svg width=width.to_string() height=height.to_string() viewBox=format!("0 0 {width} {height}") role="img" aria-label=format!("Output, from {described}")>
            {lines}
            <text x=(output.0 + 8).to_string() y="20" font-size="11" fill="currentColor">"output"</text>
            {edges}
            {reads}
            {dots}
            {feet}
        </svg>
    }
    .into_any()
}
