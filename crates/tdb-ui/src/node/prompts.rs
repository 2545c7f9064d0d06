//! The node's activations on prompts: those of the address, and one that is typed.

use leptos::prelude::*;
use leptos_router::hooks::use_navigate;
use serde_json::{Value, json};

use super::Node;
use super::heat_text::{Painted, PairMap, line, read_pairs};
use crate::remote::{Question, Remote, follow};
use crate::ui::{ProblemCard, SequentialLegend};

#[component]
pub fn Prompts() -> impl IntoView {
    let node = Node::get();
    let prompts = Memo::new(move |_| node.query.get().prompts_of_interest);
    let typed = RwSignal::new(String::new());
    let navigate = use_navigate();
    // What was run stands in the address, so that a link shows it.
    let run = StoredValue::new(move || {
        let prompt = typed.get_untracked();
        let Some(a) = node.address.get_untracked() else { return };
        if prompt.is_empty() {
            return;
        }
        let mut query = node.query.get_untracked();
        query.prompts_of_interest.retain(|p| *p != prompt);
        query.prompts_of_interest.insert(0, prompt);
        navigate(
            &format!("{}?{}", a.path(), query.encode()),
            leptos_router::NavigateOptions { scroll: false, ..Default::default() },
        );
    });
    let remove = {
        let navigate = use_navigate();
        StoredValue::new(move |prompt: String| {
            let Some(a) = node.address.get_untracked() else { return };
            let mut query = node.query.get_untracked();
            query.prompts_of_interest.retain(|p| *p != prompt);
            navigate(
                &format!("{}?{}", a.path(), query.encode()),
                leptos_router::NavigateOptions { scroll: false, ..Default::default() },
            );
        })
    };
    view! {
        <section class="card" aria-label="Activations on a prompt" id="prompts">
            <div class="card-head">
                <h2>"Activations on a prompt"</h2>
                <span class="grow"></span>
                {move || node.address.get().map(|a| if a.kind.by_token_pair {
                    view! { <SequentialLegend kind="from" label="read into a token" most=Signal::stored(None) /> <SequentialLegend kind="to" label="read from it" most=Signal::stored(None) /> }.into_any()
                } else {
                    view! { <SequentialLegend kind="seq" label="activation" most=Signal::stored(None) /> }.into_any()
                })}
            </div>
            <div class="card-body stack">
                <form class="stack" on:submit=move |e| { e.prevent_default(); run.with_value(|r| r()); }>
                    <textarea
                        class="field"
                        id="typed-prompt"
                        rows="2"
                        spellcheck="false"
                        aria-label="Prompt"
                        placeholder="Any text. Ctrl+Enter runs it."
                        prop:value=move || typed.get()
                        on:input=move |e| typed.set(event_target_value(&e))
                        on:keydown=move |e| if e.key() == "Enter" && (e.ctrl_key() || e.meta_key()) {
                            e.prevent_default();
                            run.with_value(|r| r());
                        }
                    ></textarea>
                    <div class="row"><button class="button" type="submit" disabled=move || typed.with(String::is_empty)>"Get activations"</button></div>
                </form>
                <For each=move || prompts.get() key=|p| p.clone() let(prompt)>
                    {
                        let gone = prompt.clone();
                        view! {
                            <div class="example-box">
                                <OnPrompt prompt=prompt />
                                <div class="foot"><span></span><button type="button" class="button small plain" on:click=move |_| remove.with_value(|r| r(gone.clone()))>"Remove"</button></div>
                            </div>
                        }
                    }
                </For>
            </div>
        </section>
    }
}

fn question(node: Node, prompt: &str, normalised: bool) -> Question {
    let a = node.address.get()?;
    let mut spec = json!({ "dst": a.kind.live, "layerIndex": a.layer_index, "activationIndex": a.node_index });
    if normalised {
        spec["normalizeActivationsUsingNeuronRecord"] = node.stored()?;
    }
    let mut run = json!({ "prompt": prompt });
    if !a.kind.by_token_pair {
        return Some(("/derived_scalars", json!({ "inferenceRequestSpec": run, "derivedScalarsRequestSpec": spec })));
    }
    if a.kind.output_side {
        run["activationIndexForWithinLayerGrad"] = json!({ "layerIndex": a.layer_index, "activationLocationType": "online_autoencoder_latent", "tensorIndices": ["All", a.node_index], "passType": "forward" });
    }
    Some((
        "/derived_attention_scalars",
        json!({ "inferenceRequestSpec": run, "derivedAttentionScalarsRequestSpec": spec }),
    ))
}

#[component]
fn OnPrompt(prompt: String) -> impl IntoView {
    let node = Node::get();
    // First scaled by the stored record's maximum; where there is no record, by the prompt's own.
    let plain = RwSignal::new(false);
    let address = node.address;
    Effect::new(move |_| {
        address.track();
        plain.set(false);
    });
    let (state, again) = follow(move || {
        let has_records = node.has_records.get()?;
        question(node, &prompt, has_records && !plain.get())
    });
    Effect::new(move |_| {
        if let Remote::Failed(problem) = state.get()
            && problem.kind != crate::client::Kind::Unreachable
            && !plain.get_untracked()
        {
            plain.set(true);
        }
    });
    view! {
        {move || match state.get() {
            Remote::Ready(value) => draw(&value),
            Remote::Failed(problem) if plain.get() || problem.kind == crate::client::Kind::Unreachable => view! { <ProblemCard problem=problem retry=again /> }.into_any(),
            _ => view! { <div class="skeleton"></div> }.into_any(),
        }}
    }
}

fn draw(value: &Value) -> AnyView {
    if let Some(list) = value["derivedAttentionScalarsResponseData"].get("tokenAndAttentionScalarsList") {
        return view! { <PairMap tokens=read_pairs(list) /> }.into_any();
    }
    let tokens = value["inferenceAndTokenData"]["tokensAsStrings"].as_array().cloned().unwrap_or_default();
    let data = &value["derivedScalarsResponseData"];
    let values: Vec<f64> = data["activations"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    let normalised: Option<Vec<f64>> =
        data["normalizedActivations"].as_array().map(|a| a.iter().filter_map(Value::as_f64).collect());
    let most = values.iter().fold(0.0f64, |m, v| m.max(*v));
    let painted: Vec<Painted> = tokens
        .iter()
        .zip(&values)
        .enumerate()
        .map(|(i, (t, v))| Painted {
            token: t.as_str().unwrap_or_default().to_owned(),
            value: *v,
            fill: normalised.as_ref().and_then(|n| n.get(i).copied()).unwrap_or(if most > 0.0 {
                v / most
            } else {
                0.0
            }),
        })
        .collect();
    let best = painted.iter().enumerate().max_by(|a, b| a.1.value.total_cmp(&b.1.value)).map(|(i, p)| {
        format!("strongest at {} ({i}): {}", crate::format::quoted(&p.token), crate::format::number(p.value))
    });
    view! { {line(&painted)} <p class="small-text quiet">{best}</p> }.into_any()
}
