//! What the table leaves out, and how it groups.

use leptos::prelude::*;
use tdb_api::NodeType;

use super::Table;
use crate::answer::{Compared, Metric};
use crate::dom;
use crate::format;
use crate::names;
use crate::signals::{Change, Memo, Peek, RwSignal, See};
use crate::sorting::sort;
use crate::ui::{CollectView, Show, button, choice, dynamic, entered, follows, press};
use crate::view::{Grouping, NumberFilter, Op};

#[component]
pub fn Filters(table: Table) -> impl IntoView {
    let session = table.session;
    let explanations = table.explanations;
    let two = move || session.answer.see(|a| a.is_two_sided());
    view! {
        <input
            class="field filter"
            id="filter"
            type="search"
            placeholder="Filter: name, type or token ( / )"
            aria-label="Filter by name, type or token"
            prop:value=follows(move || session.view.see(|v| v.text.clone()))
            on:input=entered(move |e| session.view.change(|v| v.text = event_target_value(&e)))
        />
        <select
            class="field"
            id="group"
            aria-label="Rows: each node, or sums"
            on:change=entered(move |e| session.view.change(|v| v.grouped = Grouping::of(&event_target_value(&e))))
        >
            {Grouping::ALL.into_iter().map(|(grouping, word, label)| {
                choice(word, label, move || session.view.see(|v| v.grouped == grouping))
            }).collect_view()}
        </select>
        <Show when=two>
            <span class="row nowrap" role="group" aria-label="Columns shown">
                {[Compared::Left, Compared::Diff, Compared::Right].into_iter().map(|side| view! {
                    <button
                        type="button"
                        class="chip"
                        aria-pressed=follows(move || session.view.see(|v| v.sides.contains(&side)).to_string())
                        on:click=press(move |_| session.view.change(|v| {
                            match v.sides.iter().position(|s| *s == side) {
                                Some(at) if v.sides.len() > 1 => { v.sides.remove(at); }
                                Some(_) => {}
                                None => v.sides.push(side),
                            }
                        }))
                    >
                        {side.label()}
                    </button>
                }).collect_view()}
            </span>
        </Show>
        <Show when=move || table.shape.see(|s| s.explanation) && explanations.can_be_written()>
            <label
                class="check"
                title="Stored explanations are shown as they are; with this, missing ones are written and scored by \
                    the language model that the server is set up with"
            >
                <input
                    type="checkbox"
                    id="write-explanations"
                    prop:checked=follows(move || explanations.writing.get())
                    on:change=entered(move |e| explanations.writing.set(event_target_checked(&e)))
                />
                "Write explanations"
            </label>
        </Show>
    }
}

#[component]
pub fn Chips(table: Table) -> impl IntoView {
    let session = table.session;
    let kinds = Memo::new(move |_| {
        session.answer.see(|a| {
            let mut kinds: Vec<NodeType> = a.rows.iter().map(|r| r.node.node_type).collect();
            sort(&mut kinds, Ord::cmp);
            kinds.dedup();
            kinds
        })
    });
    let layers = Memo::new(move |_| {
        session.answer.see(|a| {
            let mut layers: Vec<i64> = a.rows.iter().filter_map(|r| r.node.layer_index).collect();
            sort(&mut layers, Ord::cmp);
            layers.dedup();
            layers
        })
    });
    let bound = RwSignal::new(session.view.peek(|v| v.number.map(|n| n.bound.to_string()).unwrap_or_default()));
    let metric = RwSignal::new(session.view.peek(|v| v.number.map_or(Metric::DirectEffect, |n| n.metric)));
    let op = RwSignal::new(session.view.peek(|v| v.number.map_or(Op::SizeAbove, |n| n.op)));
    let apply = move || {
        let number = dom::number(&bound.get_untracked()).filter(|b| b.is_finite());
        session.view.change(|v| {
            v.number =
                number.map(|bound| NumberFilter { metric: metric.get_untracked(), op: op.get_untracked(), bound })
        });
    };
    view! {
        <div class="filter-chips" role="group" aria-label="Filters">
            {dynamic(move || kinds.get().into_iter().map(|kind| view! {
                <button
                    type="button"
                    class=format!("chip {}", names::type_class(kind))
                    aria-pressed=follows(move || session.view.see(|v| v.kinds.contains(&kind)).to_string())
                    on:click=press(move |_| session.view.change(|v| toggle(&mut v.kinds, kind)))
                >
                    {names::type_short(kind)}
                </button>
            }).collect_view())}
            <span class="divider" aria-hidden="true"></span>
            {dynamic(move || layers.get().into_iter().map(|layer| view! {
                <button
                    type="button"
                    class="chip layer"
                    aria-label=format!("L{layer}: only layer {layer}")
                    aria-pressed=follows(move || session.view.see(|v| v.layers.contains(&layer)).to_string())
                    on:click=press(move |_| session.view.change(|v| toggle(&mut v.layers, layer)))
                >
                    "L"{layer}
                </button>
            }).collect_view())}
            {dynamic(move || session.view.see(|v| v.tokens.clone()).into_iter().map(|token| {
                let text = session.answer.see(|a| a.tokens().get(token).map(|t| format::quoted(t)).unwrap_or_default());
                view! {
                    <button
                        type="button"
                        class="chip"
                        aria-pressed="true"
                        aria-label=format!("Only token {token}; press to show all")
                        on:click=press(move |_| session.view.change(|v| toggle(&mut v.tokens, token)))
                    >
                        "token "{token}" "{text}" ✕"
                    </button>
                }
            }).collect_view())}
            <span class="divider" aria-hidden="true"></span>
            <span class="row nowrap number-filter">
                <select class="field" aria-label="Column of the number filter" on:change=entered(move |e| {
                    if let Some(m) = Metric::ALL.into_iter().find(|m| m.wire() == event_target_value(&e)) {
                        metric.set(m);
                        apply();
                    }
                })>
                    {Metric::ALL.into_iter().map(|m| {
                        choice(m.wire(), m.label(), move || m == metric.get_untracked())
                    }).collect_view()}
                </select>
                <select class="field" aria-label="Kind of the number filter" on:change=entered(move |e| {
                    if let Some((o, ..)) = Op::ALL.into_iter().find(|(_, w, _)| *w == event_target_value(&e)) {
                        op.set(o);
                        apply();
                    }
                })>
                    {Op::ALL.into_iter().map(|(o, word, label)| {
                        choice(word, label, move || o == op.get_untracked())
                    }).collect_view()}
                </select>
                <input
                    class="field short"
                    inputmode="decimal"
                    placeholder="any"
                    aria-label="Bound of the number filter"
                    prop:value=follows(move || bound.get())
                    on:input=entered(move |e| { bound.set(event_target_value(&e)); apply(); })
                />
            </span>
            <Show when=move || session.view.see(|v| v.is_filtered())>
                {button(
                    "button small plain",
                    "Clear filters",
                    move |_| { session.view.change(|v| v.clear_filters()); bound.set(String::new()); },
                )}
            </Show>
        </div>
    }
}

fn toggle<T: PartialEq>(list: &mut Vec<T>, item: T) {
    match list.iter().position(|x| *x == item) {
        Some(at) => {
            list.remove(at);
        }
        None => list.push(item),
    }
}
