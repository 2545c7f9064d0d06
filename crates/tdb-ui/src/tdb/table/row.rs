//! One line of the table.

use leptos::prelude::*;

use super::super::Slug;
use super::super::actions::node_href;
use super::super::exact;
use super::super::explain::{Explained, explained_text};
use super::{Table, ways_to_trace, why_fixed};
use crate::answer::{Answer, Compared, Metric};
use crate::format;
use crate::names;
use crate::signals::{Peek, See};
use crate::ui::press;
use crate::ui::{TokenChip, fill_style, sign_class};
use crate::ui::{dynamic, follows};
use crate::view::Line;

#[component]
pub fn LineView(table: Table, line: Line, at: usize, top: f64) -> impl IntoView {
    let answer = table.session.answer.get_untracked();
    let key = line.key();
    let is_active = {
        let key = key.clone();
        move || table.active.see(|a| a.as_deref() == Some(key.as_str()))
    };
    let is_open = {
        let line = line.clone();
        move || match &line {
            Line::Group { name, .. } => table.groups.see(|g| g.contains(name)),
            Line::Node { row, .. } => table.open.see(|o| o.contains(row)),
        }
    };
    let toggle = {
        let line = line.clone();
        move |_| table.toggle(&line)
    };
    let activate = {
        let key = key.clone();
        move |_| table.active.set(Some(key.clone()))
    };
    let name = name_cell(table, &line, &answer);
    let places = {
        let (line, answer) = (line.clone(), answer.clone());
        move || place_cells(table, &line, &answer)
    };
    let explanation = {
        let (line, answer) = (line.clone(), answer.clone());
        move || table.shape.see(|s| s.explanation).then(|| explanation_cell(table, &line, &answer))
    };
    let values = {
        let (line, answer) = (line.clone(), answer.clone());
        move || {
            let shape = table.shape.get();
            let cells = shape.metrics.iter().flat_map(|m| shape.sides.iter().map(move |v| (*m, *v)));
            cells.map(|(m, v)| value_cell(&line, &answer, m, v)).collect_view()
        }
    };
    let exact = {
        let nodes = match &line {
            Line::Group { .. } => None,
            Line::Node { row, .. } => Some(answer.rows[*row].nodes.clone()),
        };
        move || {
            let nodes = nodes.clone();
            table.shape.with(|s| s.exact).then(|| match nodes {
                Some(nodes) => exact::cell(table.exact, nodes),
                None => view! { <div class="cell" role="gridcell"></div> }.into_any(),
            })
        }
    };
    let label = match &line {
        Line::Group { name, rows, .. } => format!("{name}, {} nodes", rows.len()),
        Line::Node { row, .. } => answer.rows[*row].name.clone(),
    };
    let (open_for_label, opened) = (is_open.clone(), is_open.clone());
    view! {
        <div
            class="grid-row line"
            class:active=is_active.clone()
            class:group=matches!(line, Line::Group { .. })
            class:member=matches!(line, Line::Node { in_group: true, .. })
            class:opened=opened
            role="row"
            id=format!("line-{key}")
            aria-rowindex=(at + 2).to_string()
            aria-selected=follows(move || is_active().to_string())
            style=format!("transform:translateY({top}px)")
            on:click=press(activate)
        >
            <div class="cell name" role="gridcell">
                <button
                    type="button"
                    class="expand"
                    tabindex="-1"
                    aria-label=format!("Details of {label}")
                    aria-expanded=follows(move || open_for_label().to_string())
                    on:click=press(toggle)
                >
                    {dynamic(move || if is_open() { "▾" } else { "▸" })}
                </button>
                {name}
            </div>
            {places}
            {values}
            {exact}
            {explanation}
        </div>
    }
}

fn name_cell(table: Table, line: &Line, answer: &Answer) -> AnyView {
    let session = table.session;
    let row = match line {
        Line::Group { name, rows, .. } => {
            let node = &answer.rows[rows[0]].node;
            return view! {
                <span class=format!("node-name {}", names::type_class(node.node_type))>{name.clone()}</span>
                <span class="quiet times" title="The sums are of these nodes, which the table lists">
                    {rows.len()}" listed"
                </span>
            }
            .into_any();
        }
        Line::Node { row, .. } => &answer.rows[*row],
    };
    let node = row.node.clone();
    let class = format!("node-name {}", names::type_class(node.node_type));
    let link = match node_href(&node, session, &Slug::text()) {
        Some(href) => {
            view! { <a class=class href=href target="_blank" rel="noopener" tabindex="-1">{row.name.clone()}</a> }
                .into_any()
        }
        None => view! { <span class=class>{row.name.clone()}</span> }.into_any(),
    };
    let (ablated, traced, menued) = (node.clone(), node.clone(), node.clone());
    let reason = why_fixed(row);
    let ways = ways_to_trace(row);
    let can_trace = !ways.is_empty();
    let name = row.name.clone();
    let trace = move |event: web_sys::MouseEvent| match ways.as_slice() {
        [(None, _)] => table.session.trace(traced.clone(), None),
        _ => table.menu.open(traced.clone(), &event_target::<web_sys::Element>(&event), true),
    };
    view! {
        <span class="name-text">{link}</span>
        {row.only().map(|side| view! {
            <span class="quiet times" data-only=side.label() title="One of its tokens has no partner in the other prompt">
                {side.label()}" only"
            </span>
        })}
        {(row.only() != Some(Compared::Right)).then(|| view! { <span class="row-actions" class:few=follows(move || table.shape.see(|s| s.two_sided || s.narrow))>
            {reason.is_none().then(|| view! {
                <button
                    type="button"
                    class="act"
                    tabindex="-1"
                    aria-label=format!("Ablate {name}")
                    title="Ablate (a)"
                    on:click=press(move |_| session.ablate(ablated.clone(), 0.0))
                >
                    "⊘"
                </button>
            })}
            {can_trace.then(|| view! {
                <button
                    type="button"
                    class="act"
                    tabindex="-1"
                    aria-label=format!("Trace {name}")
                    title="Trace (t)"
                    on:click=press(trace)
                >
                    "↖"
                </button>
            })}
            <button
                type="button"
                class="act"
                tabindex="-1"
                aria-label=format!("Actions for {name}")
                title="Actions"
                on:click=press(move |e: web_sys::MouseEvent| table.menu.open(menued.clone(), &event_target::<web_sys::Element>(&e), false))
            >
                "⋯"
            </button>
        </span> })}
    }
    .into_any()
}

/// Attended-to and attended-from tokens, on both sides where they differ.
fn place_cells(table: Table, line: &Line, answer: &Answer) -> AnyView {
    let shape = table.shape.get();
    let Line::Node { row, .. } = line else {
        let empty = |shown: bool| shown.then(|| view! { <div class="cell" role="gridcell"></div> });
        return view! { {empty(shape.to)}{empty(shape.from)} }.into_any();
    };
    let row = &answer.rows[*row];
    // The traced node's token, else the last one: where the question is asked.
    let traced = table.session.asked.peek(|a| {
        a.as_ref().and_then(|a| a.left.upstream_node_to_trace.as_ref().map(|t| names::token_from(&t.node_index)))
    });
    let asked = traced.flatten().or(answer.tokens().len().checked_sub(1));
    let place = |at: [Option<usize>; 2], marks: bool| {
        let token = |side: usize| at[side].and_then(|i| Some((i, answer.sides.get(side)?.tokens.get(i)?.clone())));
        let (left, right) = (token(0), token(1));
        match (left, right) {
            (None, None) => ().into_any(),
            // The same token at two places is written once.
            (Some((left, token)), Some((right, same))) if left != right && token == same => view! {
                <TokenChip token=token index=Some(left) />
                <span class="token-index">"/ "{right}</span>
            }
            .into_any(),
            (Some(l), Some(r)) if l != r => view! {
                <TokenChip token=l.1 index=Some(l.0) />" / "<TokenChip token=r.1 index=Some(r.0) />
            }
            .into_any(),
            (Some((i, t)), _) | (None, Some((i, t))) => {
                view! { <TokenChip token=t index=Some(i) asked=marks && Some(i) == asked /> }.into_any()
            }
        }
    };
    view! {
        {shape.to.then(|| view! { <div class="cell" role="gridcell">{place(row.to, false)}</div> })}
        {shape.from.then(|| view! { <div class="cell" role="gridcell">{place(row.from, true)}</div> })}
    }
    .into_any()
}

/// What the component looks for, in words; filled in when it comes.
fn explanation_cell(table: Table, line: &Line, answer: &Answer) -> AnyView {
    // A component's line says it for its members; a layer has none of its own.
    let row = match line {
        Line::Group { name, rows, .. } => rows.first().filter(|r| answer.rows[**r].name == *name).copied(),
        Line::Node { row, .. } => Some(*row),
    };
    let Some(row) = row else { return view! { <div class="cell" role="gridcell"></div> }.into_any() };
    let node = answer.rows[row].node.clone();
    let explained = Memo::new(move |_| table.explanations.of(&node).map(|s| s.get()));
    let title = move || explained.see(|e| e.as_ref().map(explained_text));
    let text = move || match explained.get() {
        Some(Explained::Done(all)) => all.into_iter().next().map(|(text, _)| text),
        Some(Explained::Waiting) => Some("…".to_owned()),
        _ => None,
    };
    view! {
        <div class="cell explanation" role="gridcell" title=title><span class="cut">{text}</span></div>
    }
    .into_any()
}

fn value_cell(line: &Line, answer: &Answer, metric: Metric, view: Compared) -> AnyView {
    // Activations of different nodes have no sum.
    if matches!(line, Line::Group { rows, .. } if rows.len() > 1) && metric == Metric::Activation {
        return view! { <div class="cell num" role="gridcell"></div> }.into_any();
    }
    let column = format!("{}.{}", metric.wire(), view.label());
    let Some(value) = line.value(answer, view, metric) else {
        return view! {
            <div class="cell num quiet" role="gridcell" title="No partner in the other prompt" data-none=column>"–"</div>
        }
        .into_any();
    };
    let most = answer.most[metric as usize];
    let signed = view == Compared::Diff || matches!(metric, Metric::DirectEffect | Metric::TotalEffect);
    let text = if signed { format::signed(value) } else { format::number(value) };
    let full = format::full(value);
    // The bar is the style sheet's, so that a cell is one element.
    view! {
        <div
            class=format!("cell num {}", sign_class(value))
            role="gridcell"
            style=fill_style(value, most)
            title=full.clone()
            data-value=full
            data-column=column
        >{text}</div>
    }
    .into_any()
}
