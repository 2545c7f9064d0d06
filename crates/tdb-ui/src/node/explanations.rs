//! Explanations in words: stored ones with method and score, and ways to write and score one.

use leptos::prelude::*;
use leptos::task::spawn_local;
use serde_json::{Value, json};

use super::Node;
use crate::app::Server;
use crate::client::{self, Problem};
use crate::format;
use crate::remote::{Remote, follow};
use crate::ui::{CardHead, ProblemCard};

#[component]
pub fn Explanations() -> impl IntoView {
    let node = Node::get();
    let server = Server::get();
    let (state, again) = follow(move || {
        let stored = node.stored()?;
        let query = node.query.get();
        if query.explanation_datasets.is_empty() && node.has_records.get() != Some(true) {
            return None;
        }
        let mut body = json!({ "dst": stored["dst"], "layerIndex": stored["layerIndex"], "activationIndex": stored["activationIndex"], "explanationDatasets": query.explanation_datasets });
        if query.explanation_datasets.is_empty() {
            body["neuronDataset"] = stored["datasets"][0].clone();
        }
        Some(("/existing_explanations", body))
    });
    let own = RwSignal::new(String::new());
    let outcome = RwSignal::new(None::<Result<String, Problem>>);
    let busy = RwSignal::new(false);
    Effect::new(move |_| {
        node.address.track();
        outcome.set(None);
        own.set(String::new());
    });
    let post = move |path: &'static str, body: Value, read: fn(&Value) -> String| {
        busy.set(true);
        outcome.set(None);
        let address = node.address.get_untracked();
        spawn_local(async move {
            let answer = client::post::<Value>(path, &body, None).await;
            // An answer about a node that has been left is not shown.
            if node.address.try_get_untracked().is_some_and(|now| now == address) {
                busy.set(false);
                outcome.set(Some(answer.map(|a| read(&a))));
            }
        });
    };
    let score = move || {
        if let Some(mut body) = untrack(|| node.stored()) {
            body["explanation"] = json!(own.get_untracked());
            body["maxSequences"] = json!(2);
            post("/score", body, |a| {
                format!("Score {}", a["score"].as_f64().map(|s| format!("{s:.2}")).unwrap_or_else(|| "unknown".into()))
            });
        }
    };
    let write = move |_| {
        if let Some(body) = untrack(|| node.stored()) {
            post("/explain", body, |a| {
                a["explanations"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect::<Vec<_>>()
                    .join(" · ")
            });
        }
    };
    view! {
        <section class="card" aria-label="Explanations" id="explanations">
            <CardHead
                title="Explanations"
                about="explanations"
                tip="What the component seems to look for, in words. The score says how well the words predict its activations: 1 is perfect, 0 is chance."
            />
            <div class="card-body stack">
                {move || match state.get() {
                    Remote::Idle if node.has_records.get() == Some(false) => view! { <p class="quiet">"None is stored for this model."</p> }.into_any(),
                    Remote::Ready(Value::Array(items)) if items.is_empty() => view! { <p class="quiet">"None is stored for this node."</p> }.into_any(),
                    Remote::Ready(Value::Array(items)) => view! {
                        <table class="explanations">
                            <thead><tr><th scope="col">"Explanation"</th><th scope="col">"Made by"</th><th scope="col" class="num">"Score"</th></tr></thead>
                            <tbody>
                                {items.iter().map(|e| {
                                    let score = e["score"].as_f64();
                                    view! {
                                        <tr>
                                            <td>{e["explanation"].as_str().unwrap_or_default().to_owned()}</td>
                                            <td class="quiet" title=origin(e)>{made_by(e)}</td>
                                            <td class="num" title=scored(e)>{score.map_or_else(|| "–".to_owned(), |s| format!("{s:.2}"))}</td>
                                        </tr>
                                    }
                                }).collect_view()}
                            </tbody>
                        </table>
                    }.into_any(),
                    Remote::Failed(problem) if problem.is_missing_route() => view! { <p class="quiet">"None is stored for this node."</p> }.into_any(),
                    Remote::Failed(problem) => view! { <ProblemCard problem=problem retry=again /> }.into_any(),
                    _ => view! { <div class="skeleton"></div> }.into_any(),
                }}
                <Show when=move || node.address.get().is_some_and(|a| !a.kind.by_token_pair)>
                    <form class="stack" on:submit=move |e| { e.prevent_default(); score(); }>
                        <label class="stack tight">
                            <span class="label">"Your explanation"</span>
                            <input class="field" id="own-explanation" prop:value=move || own.get() on:input=move |e| own.set(event_target_value(&e)) />
                        </label>
                        <div class="row">
                            <button class="button small" type="submit" disabled=move || own.with(String::is_empty) || busy.get()>"Score it"</button>
                            <Show when=move || server.facts.with(|f| f.as_ref().is_some_and(|f| f.explains))>
                                <button class="button small" type="button" disabled=move || busy.get() on:click=write>"Write one"</button>
                            </Show>
                            <span aria-live="polite">{move || busy.get().then_some("working…")}</span>
                        </div>
                    </form>
                </Show>
                {move || outcome.get().map(|o| match o {
                    Ok(text) => view! { <p role="status">{text}</p> }.into_any(),
                    Err(problem) => view! { <ProblemCard problem=problem /> }.into_any(),
                })}
            </div>
        </section>
    }
}

/// How an explanation was made; of files that do not tell it, the set.
fn made_by(e: &Value) -> String {
    let text = |key: &str| e[key].as_str();
    match (text("method"), text("model")) {
        (Some(method), Some(model)) => format!("{method}, {model}"),
        (Some(method), None) => method.to_owned(),
        (None, _) => text("datasetName").unwrap_or_default().to_owned(),
    }
}

/// The set that it is from, and when it was made.
fn origin(e: &Value) -> String {
    [&e["datasetName"], &e["date"]].into_iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

/// The whole score, and how it was found.
fn scored(e: &Value) -> Option<String> {
    let score = format::full(e["score"].as_f64()?);
    Some(e["scoreMethod"].as_str().map_or(score.clone(), |method| format!("{score}, {method}")))
}
