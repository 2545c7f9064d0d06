//! Explanations in words: stored ones with method and score, and ways to generate and score one.

use leptos::prelude::*;
use tdb_api::routes::{ExistingExplanations, Explain, Route, Score};
use tdb_api::wire::Decode;
use tdb_api::{
    AttributedScoredExplanation, ExistingExplanationsRequest, ExplanationResult, ScoreKind, ScoreRequest, ScoreResult,
};

use super::Node;
use crate::client::{self, Problem};
use crate::format;
use crate::remote::{Remote, follow};
use crate::server::Server;
use crate::signals::{RwSignal, See, effect};
use crate::tasks::spawn;
use crate::ui::{CardHead, CollectView, ProblemCard, Show, dynamic, entered, follows, press, sent};

/// Examples that a score is taken over: it has to be there soon.
const SCORED_ON: i64 = 2;

/// The stored explanations of the sets that the address names, else of those that belong to the node's records.
fn request(node: Node) -> Option<ExistingExplanationsRequest> {
    let stored = node.stored()?;
    let explanation_datasets = node.query.get().explanation_datasets;
    if explanation_datasets.is_empty() && node.has_records.get() != Some(true) {
        return None;
    }
    let neuron_dataset = if explanation_datasets.is_empty() { stored.datasets.into_iter().next() } else { None };
    Some(ExistingExplanationsRequest {
        dst: stored.dst,
        layer_index: stored.layer_index,
        activation_index: stored.activation_index,
        explanation_datasets,
        neuron_dataset,
    })
}

/// What was asked for last on this page, and what came of it.
#[derive(Clone, Copy)]
struct Work {
    node: Node,
    busy: RwSignal<bool>,
    outcome: RwSignal<Option<Result<String, Problem>>>,
}

impl Work {
    fn new(node: Node) -> Self {
        Self { node, busy: RwSignal::new(false), outcome: RwSignal::new(None) }
    }

    fn ask<R: Route<Answer: Decode> + 'static>(self, request: R::Request, words: fn(R::Answer) -> String) {
        self.busy.set(true);
        self.outcome.set(None);
        let address = self.node.address.get_untracked();
        spawn(async move {
            let answer = client::call::<R>(&request, None).await;
            // An answer about a node that has been left is not shown.
            if self.node.address.try_get_untracked().is_some_and(|now| now == address) {
                self.busy.set(false);
                self.outcome.set(Some(answer.map(words)));
            }
        });
    }
}

#[component]
pub fn Explanations() -> impl IntoView {
    let node = Node::get();
    let server = Server::get();
    let (state, again) = follow::<ExistingExplanations>(move || request(node));
    let writes = move || server.facts.see(|f| f.as_ref().is_some_and(|f| f.writes_explanations));
    let own = RwSignal::new(String::new());
    let work = Work::new(node);
    effect(move || {
        node.address.track();
        work.outcome.set(None);
        own.set(String::new());
    });
    let score = move || {
        if let Some(node) = untrack(|| node.stored()) {
            let request = ScoreRequest {
                dst: node.dst,
                layer_index: node.layer_index,
                activation_index: node.activation_index,
                datasets: node.datasets,
                explanation: own.get_untracked(),
                max_sequences: Some(SCORED_ON),
            };
            work.ask::<Score>(request, |a: ScoreResult| format::score(a.score, Some(ScoreKind::Correlation)));
        }
    };
    let write = move |_| {
        if let Some(node) = untrack(|| node.stored()) {
            work.ask::<Explain>(node, |a: ExplanationResult| a.explanations.join(" · "));
        }
    };
    view! {
        <section class="card" aria-label="Explanations" id="explanations">
            <CardHead
                title="Explanations"
                about="explanations"
                tip="What the component seems to respond to, in words. The score says how well the words predict its \
                    activations, by which measure, and what chance would give."
            />
            <div class="card-body stack">
                {dynamic(move || match state.get() {
                    Remote::Idle if node.has_records.get() == Some(false) => view! {
                        <p class="quiet">"None is stored for this model."</p>
                    }.into_any(),
                    Remote::Ready(all) if all.is_empty() => view! {
                        <p class="quiet">"None is stored for this node."</p>
                    }.into_any(),
                    Remote::Ready(all) => table(&all),
                    Remote::Failed(problem) if problem.is_missing_route() => view! {
                        <p class="quiet">"None is stored for this node."</p>
                    }.into_any(),
                    Remote::Failed(problem) => view! { <ProblemCard problem=problem retry=again /> }.into_any(),
                    _ => view! { <div class="skeleton"></div> }.into_any(),
                })}
                <Show when=move || !writes()>
                    <p class="quiet small-text">
                        "New explanations are not written or scored here: the server has no language model set up."
                    </p>
                </Show>
                <Show when=move || writes() && node.address.get().is_some_and(|a| !a.kind.by_token_pair)>
                    <form class="stack" on:submit=sent(move |e| { e.prevent_default(); score(); })>
                        <label class="stack tight">
                            <span class="label">"Your explanation"</span>
                            <input
                                class="field"
                                id="own-explanation"
                                prop:value=follows(move || own.get())
                                on:input=entered(move |e| own.set(event_target_value(&e)))
                            />
                        </label>
                        <div class="row">
                            <button
                                class="button small"
                                type="submit"
                                disabled=follows(move || own.see(String::is_empty) || work.busy.get())
                            >
                                "Score it"
                            </button>
                            <button
                                class="button small"
                                type="button"
                                disabled=follows(move || work.busy.get())
                                on:click=press(write)
                            >
                                "Generate"
                            </button>
                            <span aria-live="polite">{dynamic(move || work.busy.get().then_some("working…"))}</span>
                        </div>
                    </form>
                </Show>
                {dynamic(move || work.outcome.get().map(|o| match o {
                    Ok(text) => view! { <p role="status">{text}</p> }.into_any(),
                    Err(problem) => view! { <ProblemCard problem=problem /> }.into_any(),
                }))}
            </div>
        </section>
    }
}

fn table(all: &[AttributedScoredExplanation]) -> AnyView {
    let row = |e: &AttributedScoredExplanation| {
        let score = e.score.map_or_else(|| "–".to_owned(), |s| format::score(s, e.score_kind));
        view! {
            <tr>
                <td>{e.explanation.clone()}</td>
                <td class="quiet" title=origin(e)>{made_by(e)}</td>
                <td class="num" title=scored(e)>{score}</td>
            </tr>
        }
    };
    view! {
        <table class="explanations">
            <thead>
                <tr>
                    <th scope="col">"Explanation"</th>
                    <th scope="col">"Method"</th>
                    <th scope="col" class="num" data-term="Explanation score">"Score"</th>
                </tr>
            </thead>
            <tbody>{all.iter().map(row).collect_view()}</tbody>
        </table>
    }
    .into_any()
}

/// How an explanation was made; of files that do not tell it, the set.
fn made_by(e: &AttributedScoredExplanation) -> String {
    match (&e.method, &e.model) {
        (Some(method), Some(model)) => format!("{method}, {model}"),
        (Some(method), None) if method == "offline-statistics" => "token statistics".to_owned(),
        (Some(method), None) => method.clone(),
        (None, _) => e.dataset_name.clone(),
    }
}

/// The set that it is from, and when it was made.
fn origin(e: &AttributedScoredExplanation) -> String {
    match &e.date {
        Some(date) => format!("{}, {date}", e.dataset_name),
        None => e.dataset_name.clone(),
    }
}

/// The whole score, and how it was found.
fn scored(e: &AttributedScoredExplanation) -> Option<String> {
    let score = format::full(e.score?);
    Some(e.score_method.as_ref().map_or(score.clone(), |method| format!("{score}, {method}")))
}
