//! The head of the table, and how wide its columns are.

use leptos::prelude::*;
use tdb_api::ComponentTypeForAttention;

use super::Table;
use crate::answer::{Compared, Metric};
use crate::signals::{Change, See, Signal};
use crate::ui::{CollectView, Show, dynamic, follows, press};
use crate::view::{Sort, SortBy};

/// The columns' widths as a custom property: head and rows share it.
pub fn template(table: Table) -> String {
    table.shape.see(|shape| {
        let n = shape.sides.len() * shape.metrics.len() + usize::from(shape.exact);
        let (name, token, value) = match (shape.narrow, shape.two_sided) {
            (true, _) => (142, 48, 56),
            (_, true) => (154, 92, 58),
            // Together they fit beside the side column of a window of 1280 pixels.
            _ => (206, 78, 88),
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
        let latents = session.asked.see(|a| {
            a.as_ref().is_some_and(|a| a.component_type_for_attention == ComponentTypeForAttention::AutoencoderLatent)
        });
        match (table.shape.see(|s| s.narrow), latents) {
            (true, _) => "To",
            (_, true) => "Attributed to",
            _ => "Attended to",
        }
    };
    let from = move || if table.shape.see(|s| s.narrow) { "From" } else { "Attended from" };
    view! {
        <div class="grid-head" role="rowgroup" style=follows(move || template(table))>
            <div class="grid-row" role="row" aria-rowindex="1">
                <SortHead
                    table=table
                    by=SortBy::Name
                    label=Signal::derive(|| "Name".to_owned())
                    class="name"
                    term="Layer and index"
                />
                <Show when=move || table.shape.see(|s| s.to)>
                    <SortHead
                        table=table
                        by=SortBy::To
                        label=Signal::derive(move || attended().to_owned())
                        class=""
                        term="Attended to"
                    />
                </Show>
                <Show when=move || table.shape.see(|s| s.from)>
                    <SortHead
                        table=table
                        by=SortBy::From
                        label=Signal::derive(move || from().to_owned())
                        class=""
                        term="Attended from"
                    />
                </Show>
                {dynamic(move || {
                    let shape = table.shape.get();
                    let heads = shape.metrics.iter().flat_map(|m| shape.sides.iter().map(move |v| (*m, *v)));
                    heads.map(|(metric, v)| {
                        let sides = shape.two_sided;
                        let label = match (sides, shape.narrow) {
                            (true, _) => format!("{} {}", short(metric), v.label().to_ascii_lowercase()),
                            (_, true) => short(metric).to_owned(),
                            _ => metric.label().to_owned(),
                        };
                        let class = match (sides, v) {
                            (false, _) => "num",
                            (_, Compared::Left) => "num of-left",
                            (_, Compared::Diff) => "num of-diff",
                            (_, Compared::Right) => "num of-right",
                        };
                        view! {
                            <SortHead
                                table=table
                                by=SortBy::Value(metric, v)
                                label=Signal::derive(move || label.clone())
                                class=class
                                term=metric.label()
                            />
                        }
                    }).collect_view()
                })}
                <Show when=move || table.shape.see(|s| s.exact)>
                    <div
                        class="cell head num"
                        role="columnheader"
                        title="What the objective loses when this node alone is set to zero, or to a mean as chosen \
                            below the table, computed by a run without it. ≠ marks where the estimated total effect \
                            parts from it by more than 20 % and 2 % of the objective."
                    >
                        <span class="sort-label">
                            {move || table.exact.heading(table.shape.see(|s| s.two_sided))}
                        </span>
                    </div>
                </Show>
                <Show when=move || table.shape.see(|s| s.explanation)>
                    <div
                        class="cell head explanation"
                        role="columnheader"
                        tabindex="0"
                        data-term="Explanation"
                        aria-describedby="term-tip"
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

/// How a column orders the rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Descending,
    Ascending,
    Size,
}

impl Order {
    fn of(sort: Sort, by: SortBy) -> Option<Self> {
        match (sort.by, by) {
            (SortBy::Size(m, v), SortBy::Value(metric, view)) if (m, v) == (metric, view) => Some(Self::Size),
            (now, by) if now == by => Some(if sort.descending { Self::Descending } else { Self::Ascending }),
            _ => None,
        }
    }

    /// The order that a press on the column's head leads to.
    fn next(now: Option<Self>, by: SortBy) -> Sort {
        match (now, by) {
            (Some(Self::Ascending), SortBy::Value(metric, view)) => {
                Sort { by: SortBy::Size(metric, view), descending: true }
            }
            (None | Some(Self::Size), SortBy::Value(..)) => Sort { by, descending: true },
            (now, _) => Sort { by, descending: now == Some(Self::Ascending) },
        }
    }
}

#[component]
fn SortHead(
    table: Table,
    by: SortBy,
    label: Signal<String>,
    class: &'static str,
    /// What the column holds, as the terms have it.
    term: &'static str,
) -> impl IntoView {
    let session = table.session;
    let order = move || session.view.see(|v| Order::of(v.sort, by));
    let sort = move |_| {
        session.view.change(|v| v.sort = Order::next(Order::of(v.sort, by), by));
    };
    view! {
        <div
            class=format!("cell head {class}")
            role="columnheader"
            data-term=term
            aria-sort=follows(move || match order() {
                Some(Order::Descending) => "descending",
                Some(Order::Ascending) => "ascending",
                Some(Order::Size) => "other",
                None => "none",
            })
        >
            <button type="button" class="sort" aria-describedby="term-tip" on:click=press(sort)>
                {dynamic(move || label.get())}
                <span aria-hidden="true">
                    {dynamic(move || match order() {
                        Some(Order::Descending) => " ▾",
                        Some(Order::Ascending) => " ▴",
                        Some(Order::Size) => " |▾|",
                        None => "",
                    })}
                </span>
            </button>
        </div>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_goes_through_three_orders() {
        let by = SortBy::Value(Metric::DirectEffect, Compared::Left);
        let mut sort = crate::view::ViewState::default().sort;
        let mut seen = Vec::new();
        for _ in 0..3 {
            sort = Order::next(Order::of(sort, by), by);
            seen.push(Order::of(sort, by));
        }
        assert!(seen == [Some(Order::Descending), Some(Order::Ascending), Some(Order::Size)]);
        let by_name = Order::next(Order::of(sort, SortBy::Name), SortBy::Name);
        assert_eq!(by_name, Sort { by: SortBy::Name, descending: false });
    }
}
