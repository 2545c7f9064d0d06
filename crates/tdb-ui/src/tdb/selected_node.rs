//! The selected node: what is known of its component beyond this prompt. It follows the table's row, so that
//! explanations and examples need no page of their own.

use leptos::prelude::*;
use tdb_api::page::{ModelSlug, NodePage, NodePageKind};
use tdb_api::{NodeIndex, TokenAndScalar};

use super::Slug;
use super::actions::node_href;
use super::explain::{Explained, Explanations};
use crate::context::{expect_context, provide_context};
use crate::format;
use crate::names;
use crate::node::heat_text::{excerpt, into_tokens, line, peak};
use crate::records::{self, Record, stored_node};
use crate::remote::{Remote, follow_question};
use crate::server::Server;
use crate::session::Session;
use crate::signals::{Memo, Peek, RwSignal, See, effect};
use crate::ui::{CollectView, ProblemCard, Show, Tip, dynamic};

/// Examples shown, and tokens around the strongest of each.
const FEW: usize = 4;
const AROUND: (usize, usize) = (4, 4);

#[derive(Clone, Copy)]
pub struct SelectedNode(RwSignal<Option<NodeIndex>>);

impl SelectedNode {
    pub fn provide() {
        provide_context(Self(RwSignal::new(None)));
    }

    pub fn get() -> Self {
        expect_context()
    }

    pub fn put(self, node: Option<NodeIndex>) {
        if self.0.peek(|old| *old != node) {
            self.0.set(node);
        }
    }
}

#[component]
pub fn SelectedNodeCard() -> impl IntoView {
    let selected = SelectedNode::get();
    let session = Session::get();
    let server = Server::get();
    let explanations = Explanations::get();
    let slug = Slug::get();
    let wanted = Memo::new(move |_| selected.0.see(|n| names::component(n.as_ref()?)));
    let request = move || {
        let (node_type, layer_index, node_index) = wanted.get()?;
        let slug = ModelSlug::parse(&slug.now());
        let page = NodePage { slug, kind: NodePageKind::of(node_type)?, layer_index, node_index };
        let may_be = server.facts.see(|f| f.as_ref().is_some_and(|f| f.may_have_records(&page)));
        let by_token_pair = page.kind.by_token_pair;
        Some(records::question(&stored_node(&page).filter(|_| may_be)?, by_token_pair))
    };
    let (state, again) = follow_question(request);
    // The old node stays, whole, until the new one's examples are there.
    let shown = RwSignal::new(None::<(NodeIndex, Remote<Record>)>);
    effect(move || {
        let state = state.get();
        let node = selected.0.get();
        if !matches!(state, Remote::Loading) {
            shown.set(node.map(|n| (n, state)));
        }
    });
    let is_old = move || shown.see(|s| s.as_ref().map(|(n, _)| n.clone())) != selected.0.get();
    view! {
        <Show when=move || shown.see(Option::is_some)>
            <section class="card at-hand" aria-label="Selected node" id="at-hand" class:stale=is_old>
                <div class="card-head">
                    <h2>
                        {dynamic(move || shown.see(|s| s.as_ref().map(|(n, _)| view! {
                            <span class=format!("node-name {}", names::type_class(n.node_type))>
                                {names::node_name(n)}
                            </span>
                        })))}
                    </h2>
                    <Tip about="the selected node">
                        "The component of the selected row: what it looks for, and the texts that excite it most. Its \
                            page has more."
                    </Tip>
                    <span class="grow"></span>
                    {dynamic(move || {
                        let node = shown.see(|s| s.as_ref().map(|(n, _)| n.clone()))?;
                        node_href(&node, session, &slug.now()).map(|href| view! {
                            <a class="small-text" href=href target="_blank" rel="noopener">"Open page"</a>
                        })
                    })}
                </div>
                <div class="card-body stack">
                    {dynamic(move || {
                        let node = shown.see(|s| s.as_ref().map(|(n, _)| n.clone()))?;
                        let explained = explanations.are_here().then(|| explanations.of(&node)).flatten()?;
                        match explained.get() {
                            Explained::Done(all) => Some(all.into_iter().take(1).map(|(text, score)| view! {
                                <p class="explained">
                                    {text}
                                    " "
                                    {score.map(|s| view! {
                                        <span class="quiet nowrap" data-term="Explanation score">{s}</span>
                                    })}
                                </p>
                            }).collect_view()),
                            _ => None,
                        }
                    })}
                    {dynamic(move || match shown.get() {
                        None => ().into_any(),
                        Some((_, Remote::Ready(record))) => examples(&record),
                        Some((_, Remote::Failed(problem))) if !problem.is_missing_route() => view! {
                            <ProblemCard problem=problem retry=again />
                        }.into_any(),
                        Some((node, _)) if names::component(&node).is_none() => view! {
                            <p class="quiet">"Embeddings depend only on their token."</p>
                        }.into_any(),
                        Some(_) => view! { <p class="quiet">"No examples are stored for it."</p> }.into_any(),
                    })}
                </div>
            </section>
        </Show>
    }
}

fn examples(record: &Record) -> AnyView {
    let texts: Vec<Vec<TokenAndScalar>> = match record {
        Record::Tokens(record) => record.top_activations.iter().take(FEW).cloned().collect(),
        Record::Pairs(record) => {
            record.most_positive_token_sequences.iter().take(FEW).map(|text| into_tokens(text)).collect()
        }
    };
    if texts.is_empty() {
        return view! { <p class="quiet">"No examples are stored for it."</p> }.into_any();
    }
    let rows = texts.iter().map(|text| example(text)).collect_view();
    view! {
        <ul class="excerpts" aria-label="Texts that excite it most, around the strongest token">
            {rows}
        </ul>
    }
    .into_any()
}

fn example(text: &[TokenAndScalar]) -> impl IntoView + use<> {
    let (before, tokens, after) = excerpt(text, AROUND.0, AROUND.1);
    // On one line each: a line break is marked and does not break it.
    let one_line = |t: &TokenAndScalar| TokenAndScalar { token: t.token.replace('\n', "↵"), ..t.clone() };
    let tokens: Vec<TokenAndScalar> = tokens.iter().map(one_line).collect();
    let peak = peak(&tokens);
    view! {
        <li>
            <span class="excerpt">{before.then_some("…")}{line(&tokens)}{after.then_some("…")}</span>
            <span class="num quiet" title=format::full(peak)>{format::number(peak)}</span>
        </li>
    }
}
