//! One line of the table. Its cells are written as HTML, and their buttons have no handlers of their own: a table that
//! scrolls draws hundreds of lines a second, and a browser reads HTML sooner than it is told of one element after the
//! other. The table handles presses on all lines ([`super::Table::on_press`]).

use std::fmt::Write as _;

use leptos::{html, prelude::*};
use tdb_api::NodeType;

use super::{Shape, Table, ways_to_trace, why_fixed};
use crate::answer::{Answer, Compared, Metric, Row};
use crate::format;
use crate::names;
use crate::session::Session;
use crate::signals::{Peek, See, effect};
use crate::tdb::Slug;
use crate::tdb::actions::node_page;
use crate::tdb::explain::{Explained, explained_text};
use crate::ui::{fill_style, follows, sign_class, token_chip};
use crate::view::Line;

/// What a press on a line's buttons does: the values of their `data-do`.
pub const OPEN: &str = "open";
pub const ABLATE: &str = "ablate";
pub const TRACE: &str = "trace";
pub const MENU: &str = "menu";

const EMPTY: &str = "<div class=\"cell\" role=\"gridcell\"></div>";

#[component]
pub fn LineView(table: Table, line: Line, at: usize, top: f64) -> impl IntoView {
    let session = table.session;
    let answer = session.answer.get_untracked();
    let key = line.key();
    let id = format!("line-{key}");
    let is_active = move || table.active.see(|a| a.as_deref() == Some(key.as_str()));
    let of_row = line.clone();
    let is_open = move || match &of_row {
        Line::Group { name, .. } => table.groups.see(|g| g.contains(name)),
        Line::Node { row, .. } => table.open.see(|o| o.contains(row)),
    };
    let kind = match &line {
        Line::Group { .. } => " group",
        Line::Node { in_group: true, .. } => " member",
        Line::Node { .. } => "",
    };
    let is_opened = is_open.clone();
    let state = {
        let is_active = is_active.clone();
        move || {
            let (active, opened) = (is_active(), is_opened());
            format!("grid-row line{kind}{}{}", if active { " active" } else { "" }, if opened { " opened" } else { "" })
        }
    };
    let name = name_cell(table, &line, &answer);
    let head = NodeRef::<html::Div>::new();
    effect(move || {
        let is_open = if is_open() { "true" } else { "false" };
        let button = head.get().and_then(|head| head.first_element_child());
        let _ = button.map(|button| button.set_attribute("aria-expanded", is_open));
    });
    let exact = match &line {
        Line::Group { .. } => None,
        Line::Node { row, .. } => Some(table.exact.cell_of(answer.rows[*row].nodes.clone())),
    };
    let cells = move || {
        table.shape.see(|shape| {
            let mut out = String::with_capacity(1024);
            place_cells(&mut out, session, shape, &line, &answer);
            for metric in &shape.metrics {
                shape.sides.iter().for_each(|side| value_cell(&mut out, &line, &answer, *metric, *side));
            }
            if shape.exact {
                out += &exact.map_or_else(|| EMPTY.to_owned(), |exact| exact.get());
            }
            if shape.explanation {
                explanation_cell(&mut out, explained(table, &line, &answer));
            }
            out
        })
    };
    view! {
        <div
            class=follows(state)
            role="row"
            id=id
            aria-rowindex=(at + 2).to_string()
            aria-selected=follows(move || if is_active() { "true" } else { "false" })
            style=format!("transform:translateY({top}px)")
        >
            <div class="cell name" role="gridcell" node_ref=head inner_html=name></div>
            <div class="cells" role="presentation" inner_html=follows(cells)></div>
        </div>
    }
}

fn button(out: &mut String, does: &str, label: &str, title: &str, sign: &str) {
    let class = if does == OPEN { "expand" } else { "act" };
    let title = if title.is_empty() { String::new() } else { format!(" title=\"{title}\"") };
    let _ = write!(
        out,
        "<button type=\"button\" class=\"{class}\" tabindex=\"-1\" data-do=\"{does}\" \
         aria-label=\"{label}\"{title}>{sign}</button>"
    );
}

fn name_cell(table: Table, line: &Line, answer: &Answer) -> String {
    let mut out = String::new();
    let named = |node_type: NodeType, name: &str, href: Option<String>| {
        let class = format!("node-name {}", names::type_class(node_type));
        match href {
            Some(href) => format!(
                "<a class=\"{class}\" href=\"{}\" target=\"_blank\" rel=\"noopener\" tabindex=\"-1\">{name}</a>",
                format::html(&href)
            ),
            None => format!("<span class=\"{class}\">{name}</span>"),
        }
    };
    match line {
        Line::Group { name, rows, .. } => {
            let (name, count) = (format::html(name), rows.len());
            button(&mut out, OPEN, &format!("Details of {name}, {count} nodes"), "", "");
            let _ = write!(
                out,
                "{}<span class=\"quiet times\" title=\"The sums are of these nodes, which the table lists\">{count} \
                 listed</span>",
                named(answer.rows[rows[0]].node.node_type, &name, None),
            );
        }
        Line::Node { row, .. } => {
            let row = &answer.rows[*row];
            let name = format::html(&row.name);
            button(&mut out, OPEN, &format!("Details of {name}"), "", "");
            let href = table.query.peek(|query| node_page(&row.node, &Slug::text(), query));
            let _ = write!(out, "<span class=\"name-text\">{}</span>", named(row.node.node_type, &name, href));
            if let Some(side) = row.only() {
                let side = side.label();
                let _ = write!(
                    out,
                    "<span class=\"quiet times\" data-only=\"{side}\" title=\"One of its tokens has no partner in the \
                     other prompt\">{side} only</span>"
                );
            }
            name_actions(&mut out, row, &name);
        }
    }
    out
}

fn name_actions(out: &mut String, row: &Row, name: &str) {
    if row.only() == Some(Compared::Right) {
        return;
    }
    *out += "<span class=\"row-actions\">";
    if why_fixed(row).is_none() {
        button(out, ABLATE, &format!("Ablate {name}"), "Ablate (a)", "⊘");
    }
    if !ways_to_trace(row).is_empty() {
        button(out, TRACE, &format!("Trace {name}"), "Trace (t)", "↖");
    }
    button(out, MENU, &format!("Actions for {name}"), "Actions", "⋯");
    *out += "</span>";
}

/// Attended-to and attended-from tokens, on both sides where they differ.
fn place_cells(out: &mut String, session: Session, shape: &Shape, line: &Line, answer: &Answer) {
    let Line::Node { row, .. } = line else {
        [shape.to, shape.from].into_iter().filter(|shown| *shown).for_each(|_| out.push_str(EMPTY));
        return;
    };
    let row = &answer.rows[*row];
    // The traced node's token, else the last one: where the question is asked.
    let traced = session.asked.peek(|a| {
        a.as_ref().and_then(|a| a.left.upstream_node_to_trace.as_ref().map(|t| names::token_from(&t.node_index)))
    });
    let asked = traced.flatten().or(answer.tokens().len().checked_sub(1));
    let mut place = |at: [Option<usize>; 2], marks: bool| {
        let token = |side: usize| at[side].and_then(|i| Some((i, answer.sides.get(side)?.tokens.get(i)?)));
        *out += "<div class=\"cell\" role=\"gridcell\">";
        match (token(0), token(1)) {
            (None, None) => {}
            // The same token at two places is written once.
            (Some((left, token)), Some((right, same))) if left != right && token == same => {
                let _ = write!(out, "{}<span class=\"token-index\">/ {right}</span>", token_chip(token, left, false));
            }
            (Some((left, token)), Some((right, other))) if left != right => {
                let _ = write!(out, "{} / {}", token_chip(token, left, false), token_chip(other, right, false));
            }
            (Some((i, token)), _) | (None, Some((i, token))) => {
                *out += &token_chip(token, i, marks && Some(i) == asked);
            }
        }
        *out += "</div>";
    };
    if shape.to {
        place(row.to, false);
    }
    if shape.from {
        place(row.from, true);
    }
}

/// What the component looks for, in words; asked for when it is first wanted. A component's line says it for its
/// members; a layer has none of its own.
fn explained(table: Table, line: &Line, answer: &Answer) -> Option<Explained> {
    let row = match line {
        Line::Group { name, rows, .. } => rows.first().filter(|r| answer.rows[**r].name == *name).copied(),
        Line::Node { row, .. } => Some(*row),
    };
    table.explanations.of(&answer.rows[row?].node).map(|explained| explained.get())
}

fn explanation_cell(out: &mut String, explained: Option<Explained>) {
    let text = match &explained {
        Some(Explained::Done(all)) => all.first().map(|(text, _)| format::html(text)).unwrap_or_default(),
        Some(Explained::Waiting) => "…".to_owned(),
        _ => String::new(),
    };
    let title = explained.as_ref().map(|e| format::html(&explained_text(e))).unwrap_or_default();
    let _ = write!(
        out,
        "<div class=\"cell explanation\" role=\"gridcell\" title=\"{title}\"><span class=\"cut\">{text}</span></div>"
    );
}

fn value_cell(out: &mut String, line: &Line, answer: &Answer, metric: Metric, view: Compared) {
    // Activations of different nodes have no sum.
    if matches!(line, Line::Group { rows, .. } if rows.len() > 1) && metric == Metric::Activation {
        *out += EMPTY;
        return;
    }
    let (metric_name, side) = (metric.wire(), view.label());
    let Some(value) = line.value(answer, view, metric) else {
        let _ = write!(
            out,
            "<div class=\"cell num quiet\" role=\"gridcell\" title=\"No partner in the other prompt\" \
             data-none=\"{metric_name}.{side}\">–</div>"
        );
        return;
    };
    let signed = view == Compared::Diff || matches!(metric, Metric::DirectEffect | Metric::TotalEffect);
    let text = if signed { format::signed(value) } else { format::number(value) };
    let full = format::full(value);
    let (class, style) = (sign_class(value), fill_style(value, answer.most[metric as usize]));
    // The bar is the style sheet's, so that a cell is one element.
    let _ = write!(
        out,
        "<div class=\"cell num {class}\" role=\"gridcell\" style=\"{style}\" title=\"{full}\" data-value=\"{full}\" \
         data-column=\"{metric_name}.{side}\">{text}</div>"
    );
}
