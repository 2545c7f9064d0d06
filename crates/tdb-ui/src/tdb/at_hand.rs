//! The node at hand: what is known of its component beyond this prompt. It follows the table's row, so that explanations
//! and examples need no page of their own.

use leptos::prelude::*;
use serde_json::Value;
use tdb_api::NodeIndex;
use tdb_api::page::{ModelSlug, NodePage, NodePageKind};

use super::Slug;
use super::actions::node_href;
use super::explain::{Explained, Explanations, stored_node};
use crate::app::Server;
use crate::format;
use crate::names;
use crate::node::heat_text::{Painted, excerpt, line, read_line, read_pairs};
use crate::remote::{Remote, follow};
use crate::session::Session;
use crate::ui::{ProblemCard, Tip};

/// Examples shown, and tokens around the strongest of each.
const FEW: usize = 4;
const AROUND: (usize, usize) = (4, 4);

#[derive(Clone, Copy)]
pub struct AtHand(RwSignal<Option<NodeIndex>>);

impl AtHand {
    pub fn provide() {
        provide_context(Self(RwSignal::new(None)));
    }

    pub fn get() -> Self {
        expect_context()
    }

    pub fn put(self, node: Option<NodeIndex>) {
        if self.0.with_untracked(|old| *old != node) {
            self.0.set(node);
        }
    }
}

#[component]
pub fn AtHandCard() -> impl IntoView {
    let at_hand = AtHand::get();
    let session = Session::get();
    let server = Server::get();
    let explanations = Explanations::get();
    let slug = StoredValue::new(Slug::text());
    let wanted = Memo::new(move |_| at_hand.0.with(|n| names::component(n.as_ref()?)));
    let (state, again) = follow(move || {
        let (node_type, layer, unit) = wanted.get()?;
        let kind = NodePageKind::of(node_type)?;
        let slug = ModelSlug::parse(&slug.get_value());
        let page = NodePage { slug: slug.clone(), kind, layer_index: layer, node_index: unit };
        let may_be = server.facts.with(|f| f.as_ref().is_some_and(|f| f.may_have_records(&page)));
        let route = if kind.by_token_pair { "/attention_head_record" } else { "/neuron_record" };
        may_be.then(|| stored_node(&slug, node_type, layer, unit)).flatten().map(|body| (route, body))
    });
    // The old node stays, whole, until the new one's examples are there.
    let shown = RwSignal::new(None::<(NodeIndex, Remote)>);
    Effect::new(move |_| {
        let state = state.get();
        let node = at_hand.0.get();
        if state != Remote::Loading {
            shown.set(node.map(|n| (n, state)));
        }
    });
    let is_old = move || shown.with(|s| s.as_ref().map(|(n, _)| n.clone())) != at_hand.0.get();
    view! {
        <Show when=move || shown.with(Option::is_some)>
            <section class="card at-hand" aria-label="Node at hand" id="at-hand" class:stale=is_old>
                <div class="card-head">
                    <h2>{move || shown.with(|s| s.as_ref().map(|(n, _)| view! { <span class=format!("node-name {}", names::type_class(n.node_type))>{names::node_name(n)}</span> }))}</h2>
                    <Tip about="the node at hand">"The component of the table's row that you are at: what it looks for, and the texts that excite it most. Its page has more."</Tip>
                    <span class="grow"></span>
                    {move || {
                        let node = shown.with(|s| s.as_ref().map(|(n, _)| n.clone()))?;
                        node_href(&node, session, &slug.get_value()).map(|href| view! { <a class="small-text" href=href target="_blank" rel="noopener">"its page"</a> })
                    }}
                </div>
                <div class="card-body stack">
                    {move || {
                        let node = shown.with(|s| s.as_ref().map(|(n, _)| n.clone()))?;
                        let explained = explanations.are_here().then(|| explanations.of(&node)).flatten()?;
                        match explained.get() {
                            Explained::Done(all) => Some(all.into_iter().take(1).map(|(text, score)| view! {
                                <p class="explained">{text}" "{score.map(|s| view! { <span class="quiet nowrap" title="How well the words predict the activations: 1 is perfect, 0 is chance">{format!("score {s:.2}")}</span> })}</p>
                            }).collect_view()),
                            _ => None,
                        }
                    }}
                    {move || match shown.get() {
                        None => ().into_any(),
                        Some((_, Remote::Ready(value))) => examples(&value),
                        Some((_, Remote::Failed(problem))) if !problem.is_missing_route() => view! { <ProblemCard problem=problem retry=again /> }.into_any(),
                        Some((node, _)) if names::component(&node).is_none() => view! { <p class="quiet">"An embedding answers to its own token alone."</p> }.into_any(),
                        Some(_) => view! { <p class="quiet">"No examples are stored for it."</p> }.into_any(),
                    }}
                </div>
            </section>
        </Show>
    }
}

fn examples(value: &Value) -> AnyView {
    let pairs = value.get("mostPositiveTokenSequences");
    let list = pairs.unwrap_or(&value["topActivations"]).as_array().cloned().unwrap_or_default();
    let rows = list
        .iter()
        .take(FEW)
        .map(|sequence| {
            let tokens = match pairs {
                Some(_) => read_pairs(sequence)
                    .into_iter()
                    .map(|t| Painted { token: t.token, value: t.max_in, fill: t.fill_in })
                    .collect(),
                None => read_line(sequence),
            };
            let (before, tokens, after) = excerpt(tokens, AROUND.0, AROUND.1);
            // On one line each: what breaks it is marked, not done.
            let tokens: Vec<Painted> =
                tokens.into_iter().map(|t| Painted { token: t.token.replace('\n', "↵"), ..t }).collect();
            let peak = tokens.iter().fold(f64::NEG_INFINITY, |m, t| m.max(t.value));
            view! {
                <li>
                    <span class="excerpt">{before.then_some("…")}{line(&tokens)}{after.then_some("…")}</span>
                    <span class="num quiet" title=format::full(peak)>{format::number(peak)}</span>
                </li>
            }
        })
        .collect_view();
    if list.is_empty() {
        return view! { <p class="quiet">"No examples are stored for it."</p> }.into_any();
    }
    view! { <ul class="excerpts" aria-label="Texts that excite it most, around the strongest token">{rows}</ul> }
        .into_any()
}
