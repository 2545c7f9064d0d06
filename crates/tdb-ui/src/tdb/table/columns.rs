//! The head of the table, and how wide its columns are.

use leptos::prelude::*;
use tdb_api::ComponentTypeForAttention;

use super::Table;
use crate::answer::{Metric, View};
use crate::terms;
use crate::view::{Sort, SortBy};

/// The columns' widths as a custom property: head and rows share it.
pub fn template(table: Table) -> String {
    let views = table.views();
    let two = table.session.answer.with(|a| a.is_two_sided());
    let (name, token, value) = if two { (152, 84, 60) } else { (176, 118, 112) };
    let n = views.len() * Metric::ALL.len();
    // Fixed least widths, so that head and rows agree without looking at each other's contents.
    let least = name + 2 * token + n * value;
    format!(
        "--columns:{name}px repeat(2, minmax({token}px, 1fr)) repeat({n}, minmax({value}px, 1fr));--least:{least}px"
    )
}

#[component]
pub fn Head(table: Table) -> impl IntoView {
    let session = table.session;
    let attended = move || {
        let latents = session.asked.with(|a| {
            a.as_ref().is_some_and(|a| a.component_type_for_attention == ComponentTypeForAttention::AutoencoderLatent)
        });
        if latents { "Attributed to" } else { "Attended to" }
    };
    let two = move || session.answer.with(|a| a.is_two_sided());
    view! {
        <div class="grid-head" role="rowgroup" style=move || template(table)>
            <div class="grid-row" role="row" aria-rowindex="1">
                <SortHead table=table by=SortBy::Name label=Signal::derive(|| "Name".to_owned()) class="name" title="Sort by layer, type and index" />
                <SortHead table=table by=SortBy::To label=Signal::derive(move || attended().to_owned()) class="" title="The token that a head reads, or that an attention latent's activation comes from" />
                <SortHead table=table by=SortBy::From label=Signal::derive(|| "Attended from".to_owned()) class="" title="The token that the node sits at" />
                {move || Metric::ALL.into_iter().flat_map(|metric| table.views().into_iter().map(move |v| (metric, v))).map(|(metric, v)| {
                    let sides = two();
                    let label = if sides { short(metric, v) } else { metric.label().to_owned() };
                    let class = match (sides, v) {
                        (false, _) => "num",
                        (_, View::Left) => "num of-left",
                        (_, View::Diff) => "num of-diff",
                        (_, View::Right) => "num of-right",
                    };
                    let title = match v {
                        View::Diff => format!("{}: left minus right. {}", metric.label(), terms::meaning(metric.label())),
                        _ if sides => format!("{}, {}. {}", metric.label(), v.label().to_lowercase(), terms::meaning(metric.label())),
                        _ => terms::meaning(metric.label()).to_owned(),
                    };
                    view! { <SortHead table=table by=SortBy::Value(metric, v) label=Signal::derive(move || label.clone()) class=class title=title /> }
                }).collect_view()}
            </div>
        </div>
    }
}

fn short(metric: Metric, view: View) -> String {
    let name = match metric {
        Metric::Activation => "Act.",
        Metric::WriteMagnitude => "Write",
        Metric::DirectEffect => "Direct",
        Metric::TotalEffect => "Total",
    };
    format!("{name} {}", view.label().to_lowercase())
}

#[component]
fn SortHead(
    table: Table,
    by: SortBy,
    label: Signal<String>,
    class: &'static str,
    #[prop(into)] title: String,
) -> impl IntoView {
    let session = table.session;
    let state = move || session.view.with(|v| (v.sort.by == by).then_some(v.sort.descending));
    let first_descending = matches!(by, SortBy::Value(..));
    let sort = move |_| {
        session.view.update(|v| {
            let descending = if v.sort.by == by { !v.sort.descending } else { first_descending };
            v.sort = Sort { by, descending };
        });
    };
    view! {
        <div class=format!("cell head {class}") role="columnheader" title=title aria-sort=move || match state() {
            Some(true) => "descending",
            Some(false) => "ascending",
            None => "none",
        }>
            <button type="button" class="sort" on:click=sort>
                {move || label.get()}
                <span aria-hidden="true">{move || match state() { Some(true) => " ▾", Some(false) => " ▴", None => "" }}</span>
            </button>
        </div>
    }
}
