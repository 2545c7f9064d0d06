//! The details of a row: what can be done with the node, what it says in tokens, what it attends to, what explains it.

use leptos::{html, prelude::*};
use tdb_api::{NodeType, TopTokens};

use super::super::actions::node_href;
use super::super::attention::AttentionPattern;
use super::super::explain::explained_text;
use super::super::means::MeanValues;
use super::super::{Slug, interventions::describe_at};
use super::{Table, ways_to_trace, why_fixed};
use crate::answer::Compared;
use crate::dom;
use crate::format;
use crate::signals::{Change, Peek, RwSignal, See, Signal};
use crate::ui::{CollectView, button, dynamic, entered, follows, token_text};

#[component]
pub fn Detail(table: Table, row: usize, top: f64) -> impl IntoView {
    let session = table.session;
    let answer = session.answer.get_untracked();
    let shown = &answer.rows[row];
    let node = shown.node.clone();
    let (fixed, ways) = (why_fixed(shown), ways_to_trace(shown));
    let value = RwSignal::new("0".to_owned());
    let right = shown.only() == Some(Compared::Right);
    let title = describe_at(&node, answer.sides.get(usize::from(right)).map_or(&[][..], |side| &side.tokens));
    let href = node_href(&node, session, &Slug::text());
    let explanation = {
        let node = node.clone();
        move || {
            table
                .shape
                .see(|s| s.explanation)
                .then(|| table.explanations.of(&node))
                .flatten()
                .map(|s| explained_text(&s.get()))
        }
    };
    let ablate = {
        let node = node.clone();
        move |_| {
            if let Some(v) = dom::number(&value.get_untracked()) {
                session.ablate(node.clone(), v);
            }
        }
    };
    let everywhere = {
        let mut node = node.clone();
        let last = node.tensor_indices.len().saturating_sub(1);
        node.tensor_indices[..last].fill(None);
        move |_| {
            if let Some(v) = dom::number(&value.get_untracked()) {
                session.ablate(node.clone(), v);
            }
        }
    };
    let is_head = node.node_type == NodeType::AttentionHead;
    let (head, averaged) = (node.clone(), node.clone());
    let measured = NodeRef::<html::Div>::new();
    dom::follow_height(measured, move |height| {
        let height = height.ceil();
        if table.heights.peek(|h| h.get(&row) != Some(&height)) {
            table.heights.change(|h| {
                h.insert(row, height);
            });
        }
    });
    view! {
        <div class="grid-row detail" role="row" style=format!("transform:translateY({top}px)") node_ref=measured>
            <div class="detail-cell" role="gridcell">
                <div class="detail-side">
                    <strong>{title}</strong>
                    {fixed.map(|why| view! { <span class="quiet">{why}</span> })}
                    {fixed.is_none().then(|| view! {
                        <div class="row">
                            <label class="check">
                                "Value "
                                <input
                                    class="field short"
                                    inputmode="decimal"
                                    prop:value=follows(move || value.get())
                                    on:input=entered(move |e| value.set(event_target_value(&e)))
                                />
                            </label>
                            {button("button small", "Ablate", ablate)}
                            {button("button small", "at every token", everywhere)}
                        </div>
                        <MeanValues node=Signal::stored(Some(averaged.clone())) value=value />
                    })}
                    <div class="row">
                        {ways.into_iter().map(|(through, label)| {
                            let node = node.clone();
                            button("button small", label, move |_| session.trace(node.clone(), through))
                        }).collect_view()}
                        {href.map(|href| view! {
                            <a class="button small" href=href target="_blank" rel="noopener">"Open page"</a>
                        })}
                    </div>
                    <p>{explanation}</p>
                </div>
                <div class="detail-main">
                    {dynamic(move || {
                        let answer = session.answer.get();
                        let two = answer.is_two_sided();
                        let sides = answer.sides.len().min(2);
                        let lists: Vec<_> = (0..sides).map(|side| answer.readings(side, row)).collect();
                        // Two sides that say the same are said once.
                        let same = two && lists[0] == lists[1];
                        let shown = if same { 1 } else { sides };
                        if lists.iter().all(Vec::is_empty) {
                            return view! { <p class="quiet">"No token readings for this node."</p> }.into_any();
                        }
                        let names = if two && !same { ["Left: ", "Right: "] } else { [""; 2] };
                        let of_side = |side: usize| {
                            lists[side].iter().map(move |(label, tokens)| (format!("{}{label}", names[side]), tokens))
                        };
                        (0..shown).flat_map(of_side).map(|(label, tokens)| view! {
                            <Reading label=label tokens=tokens.clone() />
                        }).collect_view().into_any()
                    })}
                    {is_head.then(|| view! { <AttentionPattern node=head right=right /> })}
                </div>
            </div>
        </div>
    }
}

#[component]
fn Reading(label: String, tokens: TopTokens) -> impl IntoView {
    let list = |items: Vec<tdb_api::TokenAndScalar>| {
        items
            .into_iter()
            .map(|t| view! { <span class="token" title=format::full(t.scalar)>{token_text(&t.token)}</span>" " })
            .collect_view()
    };
    view! {
        <div class="reading">
            <span class="label">{label}</span>
            <span class="reading-list"><span class="sign pos">"top "</span>{list(tokens.top)}</span>
            <span class="reading-list"><span class="sign neg">"bottom "</span>{list(tokens.bottom)}</span>
        </div>
    }
}
