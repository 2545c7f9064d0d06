//! The head of the table, and how wide its columns are.

use leptos::prelude::*;
use tdb_api::ComponentTypeForAttention;

use super::Table;
use crate::answer::{Compared, Metric};
use crate::terms;
use crate::view::{Sort, SortBy};

/// The columns' widths as a custom property: head and rows share it.
pub fn template(table: Table) -> String {
    table.shape.with(|shape| {
        let n = shape.sides.len() * shape.metrics.len() + usize::from(shape.exact);
        let (name, token, value) = match (shape.narrow, shape.two_sided) {
            (true, _) => (118, 48, 62),
            (_, true) => (146, 84, 58),
            _ => (180, 80, 92),
        };
        let tokens = usize::from(shape.to) + usize::from(shape.from);
        let explanation = if shape.two_sided { 260 } else { 200 };
        // Fixed least widths, so that head and rows agree without looking at each other's contents.
        let mut least = name + tokens * token + n * value;
        let mut columns = format!("{name}px");
        if tokens > 0 {
            columns += &format!(" repeat({tokens}, minmax({token}px, 1fr))");
        }
        if n > 0 {
            columns += &format!(" repeat({n}, minmax({value}px, 1fr))");
        }
        if shape.explanation {
            least += explanation;
            columns += &format!(" minmax({explanation}px, 10fr)");
        }
        format!("--columns:{columns};--least:{least}px")
    })
}

#[component]
pub fn Head(table: Table) -> impl IntoView {
    let session = table.session;
    let attended = move || {
        let latents = session.asked.with(|a| {
            a.as_ref().is_some_and(|a| a.component_type_for_attention == ComponentTypeForAttention::AutoencoderLatent)
        });
        match (table.shape.with(|s| s.narrow), latents) {
            (true, _) => "To",
            (_, true) => "Attributed to",
            _ => "Attended to",
        }
    };
    let from = move || if table.shape.with(|s| s.narrow) { "From" } else { "Attended from" };
    view! {
        <div class="grid-head" role="rowgroup" style=move || template(table)>
            <div class="grid-row" role="row" aria-rowindex="1">
                <SortHead
                    table=table
                    by=SortBy::Name
                    label=Signal::derive(|| "Name".to_owned())
                    class="name"
                    title="Sort by layer, type and index"
                />
                <Show when=move || table.shape.with(|s| s.to)>
                    <SortHead
                        table=table
                        by=SortBy::To
                        label=Signal::derive(move || attended().to_owned())
                        class=""
                        title="The token that a head reads, or that an attention latent's activation comes from"
                    />
                </Show>
                <Show when=move || table.shape.with(|s| s.from)>
                    <SortHead
                        table=table
                        by=SortBy::From
                        label=Signal::derive(move || from().to_owned())
                        class=""
                        title="The token that the node sits at"
                    />
                </Show>
                {move || {
                    let shape = table.shape.get();
                    let heads = shape.metrics.iter().flat_map(|m| shape.sides.iter().map(move |v| (*m, *v)));
                    heads.map(|(metric, v)| {
                        let sides = shape.two_sided;
                        let label = match (sides, shape.narrow) {
                            (true, _) => format!("{} {}", short(metric), v.label().to_lowercase()),
                            (_, true) => short(metric).to_owned(),
                            _ => metric.label().to_owned(),
                        };
                        let class = match (sides, v) {
                            (false, _) => "num",
                            (_, Compared::Left) => "num of-left",
                            (_, Compared::Diff) => "num of-diff",
                            (_, Compared::Right) => "num of-right",
                        };
                        let title = match v {
                            Compared::Diff => format!("{}: left minus right. {}", metric.label(), terms::meaning(metric.label())),
                            _ if sides => format!("{}, {}. {}", metric.label(), v.label().to_lowercase(), terms::meaning(metric.label())),
                            _ => terms::meaning(metric.label()).to_owned(),
                        };
                        view! {
                            <SortHead
                                table=table
                                by=SortBy::Value(metric, v)
                                label=Signal::derive(move || label.clone())
                                class=class
                                title=title
                            />
                        }
                    }).collect_view()
                }}
                <Show when=move || table.shape.with(|s| s.exact)>
                    <div
                        class="cell head num"
                        role="columnheader"
                        title="What the objective loses when this node alone is set to zero, computed by a run without it. ≠ marks \
                            where the estimated total effect parts from it by more than 20 % and 2 % of the objective."
                    >
                        <span class="sort-label">
                            {move || if table.shape.with(|s| s.two_sided) { "Exact left" } else { "Exact effect" }}
                        </span>
                    </div>
                </Show>
                <Show when=move || table.shape.with(|s| s.explanation)>
                    <div
                        class="cell head explanation"
                        role="columnheader"
                        title="What the component looks for on texts of the data set, in words"
                    >
                        "Explanation"
                    </div>
                </Show>
            </div>
        </div>
    }
}

fn short(metric: Metric) -> &'static str {
    match metric {
        Metric::Activation => "Act.",
        Metric::WriteMagnitude => "Write",
        Metric::DirectEffect => "Direct",
        Metric::TotalEffect => "Total",
    }
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
                <span aria-hidden="true">
                    {move || match state() { Some(true) => " ▾", Some(false) => " ▴", None => "" }}
                </span>
            </button>
        </div>
    }
}
