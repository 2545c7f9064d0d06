//! The circuit so far: traced nodes by layer and token, joined in the order in which they were traced.

use leptos::{html, prelude::*};
use tdb_api::NodeToTrace;

use crate::dom;
use crate::names;
use crate::session::Session;
use crate::signals::{See, effect};
use crate::sorting::sort;
use crate::ui::{CardHead, SaveFigure};
use crate::ui::{Show, dynamic};

/// Widths of a token's column: as much as there is room for, but never less than can be told apart.
const COLUMN: (usize, usize) = (20, 46);
const ROOM: usize = 290;
const LINE: usize = 34;

#[component]
pub fn Circuit() -> impl IntoView {
    let session = Session::get();
    let nodes = Memo::new(move |_| {
        let mut nodes: Vec<NodeToTrace> = session.view.see(|v| v.trail()).into_iter().map(|(n, _)| n).collect();
        nodes.extend(session.page.see(|p| p.left.upstream_node_to_trace.clone()));
        nodes
    });
    let scroll = NodeRef::<html::Div>::new();
    effect(move || {
        nodes.track();
        session.answer.track();
        dom::scroll_to_end(scroll.get());
    });
    view! {
        <Show when=move || !nodes.see(Vec::is_empty)>
            <section class="card" aria-label="Circuit" id="circuit">
                <CardHead
                    title="Circuit"
                    about="the circuit"
                    tip="The nodes traced on the way here, by layer and token. The last line is the prompt; the top is \
                        the output."
                >
                    <SaveFigure what="the circuit" of="#circuit svg" file="circuit" />
                </CardHead>
                <div class="card-body heat-scroll" tabindex="0" role="group" aria-label="Circuit" node_ref=scroll>
                    {dynamic(move || draw(session, &nodes.get()))}
                </div>
            </section>
        </Show>
    }
}

fn draw(session: Session, nodes: &[NodeToTrace]) -> AnyView {
    let tokens = session.answer.see(|a| a.tokens().to_vec());
    let n = tokens.len().max(1);
    let mut layers: Vec<i64> = nodes.iter().map(|t| t.node_index.layer_index.unwrap_or(-1)).collect();
    sort(&mut layers, Ord::cmp);
    layers.dedup();
    let column = (ROOM / n).clamp(COLUMN.0, COLUMN.1);
    // Names stand on the side where there is more room.
    let is_late = |x: usize| x > 54 + n * column / 2;
    let side = move |x: usize| if is_late(x) { (x - 8, "end") } else { (x + 8, "start") };
    let width = n * column + 60 + if n * column < 140 { 100 } else { 0 };
    let y_of = |layer: i64| (layers.iter().rev().position(|l| *l == layer).unwrap_or_default() + 1) * LINE + 16;
    let x_of = |token: Option<usize>| 54 + token.unwrap_or(n - 1) * column;
    // Narrow columns have their tokens written upwards.
    let upwards = column < COLUMN.1;
    let foot = if upwards { 64 } else { 0 };
    let bottom = (layers.len() + 1) * LINE + 10;
    let height = bottom + LINE + foot;
    let at = |t: &NodeToTrace| (x_of(names::token_from(&t.node_index)), y_of(t.node_index.layer_index.unwrap_or(-1)));
    let output = (x_of(Some(n - 1)), 16);
    let points: Vec<(usize, usize)> = std::iter::once(output).chain(nodes.iter().map(at)).collect();
    let edges = points
        .windows(2)
        .map(|p| {
            view! {
                <line
                    class="edge"
                    x1=p[0].0.to_string()
                    y1=p[0].1.to_string()
                    x2=p[1].0.to_string()
                    y2=p[1].1.to_string()
                    stroke="currentColor"
                />
            }
        })
        .collect_view();
    // Heads also reach down to the token that they read.
    let reads = nodes
        .iter()
        .filter_map(|t| {
            let to = names::token_to(&t.node_index)?;
            let (x, y) = at(t);
            Some(view! {
                <line
                    class="edge read"
                    x1=x.to_string()
                    y1=y.to_string()
                    x2=x_of(Some(to)).to_string()
                    y2=bottom.to_string()
                    stroke="currentColor"
                    stroke-dasharray="3 3"
                />
            })
        })
        .collect_view();
    let dots = nodes
        .iter()
        .zip(&points[1..])
        .map(|(t, (x, y))| {
            view! {
                <circle
                    class=names::type_class(t.node_index.node_type)
                    cx=x.to_string()
                    cy=y.to_string()
                    r="5"
                    fill="currentColor"
                />
                <text
                    x=side(*x).0.to_string()
                    y=(y + 4).to_string()
                    font-size="11"
                    text-anchor=side(*x).1
                    fill="currentColor"
                >
                    {names::node_name(&t.node_index)}
                </text>
            }
        })
        .collect_view();
    let feet = tokens
        .iter()
        .enumerate()
        .map(|(i, t)| {
            let (x, text) = (x_of(Some(i)), t.trim().chars().take(if upwards { 11 } else { 7 }).collect::<String>());
            let y = bottom + if upwards { 8 } else { LINE - 12 };
            let turn = upwards.then(|| format!("rotate(90 {x} {y})"));
            let anchor = if upwards { "start" } else { "middle" };
            view! {
                <text
                    x=x.to_string()
                    y=y.to_string()
                    font-size="10"
                    text-anchor=anchor
                    transform=turn
                    dominant-baseline="middle"
                    fill="currentColor"
                >
                    {text}
                </text>
            }
        })
        .collect_view();
    let lines = layers
        .iter()
        .map(|l| view! { <text x="2" y=(y_of(*l) + 4).to_string() font-size="10" fill="currentColor">"L"{*l}</text> })
        .collect_view();
    let described = nodes.iter().map(|t| names::node_name(&t.node_index)).collect::<Vec<_>>().join(", from ");
    view! {
        <svg
            width=width.to_string()
            height=height.to_string()
            viewBox=format!("0 0 {width} {height}")
            role="img"
            aria-label=format!("Output, from {described}")
        >
            {lines}
            <text x=side(output.0).0.to_string() y="20" font-size="11" text-anchor=side(output.0).1 fill="currentColor">
                "output"
            </text>
            {edges}
            {reads}
            {dots}
            {feet}
        </svg>
    }
    .into_any()
}
