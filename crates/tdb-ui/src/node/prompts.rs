//! The node's activations on prompts: those of the address, and one that is typed.

use leptos::prelude::*;
use tdb_api::numbers::share;
use tdb_api::{
    ActivationLocationType, AllOrOneIndex, DerivedAttentionScalarsRequest, DerivedAttentionScalarsRequestSpec,
    DerivedAttentionScalarsResponse, DerivedScalarsRequest, DerivedScalarsRequestSpec, DerivedScalarsResponse,
    InferenceRequestSpec, MirroredActivationIndex, PassType, TokenAndScalar, routes,
};

use super::Node;
use super::heat_text::{PairMap, line};
use crate::address::Address;
use crate::format;
use crate::remote::{Question, Remote, follow_question};
use crate::requests;
use crate::signals::{Memo, RwSignal, See, Signal, effect};
use crate::ui::{ProblemCard, SequentialLegend, button, dynamic, entered, follows, keyed, sent};

#[component]
pub fn Prompts() -> impl IntoView {
    let node = Node::get();
    let prompts = Memo::new(move |_| node.query.get().prompts_of_interest);
    let typed = RwSignal::new(String::new());
    let here = Address::get();
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
        here.change(&format!("{}?{}", a.path(), query.encode()));
    });
    let remove = StoredValue::new(move |prompt: String| {
        let Some(a) = node.address.get_untracked() else { return };
        let mut query = node.query.get_untracked();
        query.prompts_of_interest.retain(|p| *p != prompt);
        here.change(&format!("{}?{}", a.path(), query.encode()));
    });
    view! {
        <section class="card" aria-label="Activations on a prompt" id="prompts">
            <div class="card-head">
                <h2>"Activations on a prompt"</h2>
                <span class="grow"></span>
                {dynamic(move || node.address.get().map(|a| if a.kind.by_token_pair {
                    view! {
                        <SequentialLegend kind="from" label="as query" most=Signal::stored(None) />
                        <SequentialLegend kind="to" label="as key" most=Signal::stored(None) />
                    }.into_any()
                } else {
                    view! { <SequentialLegend kind="seq" label="activation" most=Signal::stored(None) /> }.into_any()
                }))}
            </div>
            <div class="card-body stack">
                <form class="stack" on:submit=sent(move |e| { e.prevent_default(); run.with_value(|r| r()); })>
                    <textarea
                        class="field"
                        id="typed-prompt"
                        rows="2"
                        spellcheck="false"
                        aria-label="Prompt"
                        placeholder="Any text. Ctrl+Enter runs it."
                        prop:value=follows(move || typed.get())
                        on:input=entered(move |e| typed.set(event_target_value(&e)))
                        on:keydown=keyed(move |e| if e.key() == "Enter" && (e.ctrl_key() || e.meta_key()) {
                            e.prevent_default();
                            run.with_value(|r| r());
                        })
                    ></textarea>
                    <div class="row">
                        <button class="button" type="submit" disabled=follows(move || typed.see(String::is_empty))>
                            "Get activations"
                        </button>
                    </div>
                </form>
                <For each=move || prompts.get() key=|p| p.clone() let(prompt)>
                    {
                        let gone = prompt.clone();
                        view! {
                            <div class="example-box">
                                <OnPrompt prompt=prompt />
                                <div class="foot">
                                    <span></span>
                                    {button(
                                        "button small plain",
                                        "Remove",
                                        move |_| remove.with_value(|r| r(gone.clone())),
                                    )}
                                </div>
                            </div>
                        }
                    }
                </For>
            </div>
        </section>
    }
}

/// The node's values on a prompt.
enum Values {
    Tokens(DerivedScalarsResponse),
    Pairs(DerivedAttentionScalarsResponse),
}

fn asked(node: Node, prompt: &str, normalised: bool) -> Option<Question<Values>> {
    let a = node.address.get()?;
    let (dst, layer_index, activation_index) = (a.kind.live, Some(a.layer_index), a.node_index);
    let record = if normalised { Some(node.stored()?) } else { None };
    let latent = || MirroredActivationIndex {
        activation_location_type: ActivationLocationType::OnlineAutoencoderLatent,
        tensor_indices: vec![AllOrOneIndex::All, AllOrOneIndex::One(a.node_index)],
        layer_index,
        pass_type: PassType::Forward,
    };
    let inference_request_spec = InferenceRequestSpec {
        activation_index_for_within_layer_grad: (a.kind.by_token_pair && a.kind.output_side).then(latent),
        ..requests::run(prompt)
    };
    Some(if a.kind.by_token_pair {
        let request = DerivedAttentionScalarsRequest {
            inference_request_spec,
            derived_attention_scalars_request_spec: DerivedAttentionScalarsRequestSpec {
                spec_type: Default::default(),
                dst,
                layer_index,
                activation_index,
                normalize_activations_using_neuron_record: record,
            },
        };
        Question::of::<routes::DerivedAttentionScalars>(&request, Values::Pairs)
    } else {
        let request = DerivedScalarsRequest {
            inference_request_spec,
            derived_scalars_request_spec: DerivedScalarsRequestSpec {
                normalize_activations_using_neuron_record: record,
                ..requests::scalars(dst, layer_index, activation_index)
            },
        };
        Question::of::<routes::DerivedScalars>(&request, Values::Tokens)
    })
}

#[component]
fn OnPrompt(prompt: String) -> impl IntoView {
    let node = Node::get();
    // First scaled by the stored record's maximum; where there is no record, by the prompt's own.
    let plain = RwSignal::new(false);
    let address = node.address;
    effect(move || {
        address.track();
        plain.set(false);
    });
    let request = move || asked(node, &prompt, node.has_records.get()? && !plain.get());
    let (state, again) = follow_question(request);
    effect(move || {
        if let Remote::Failed(problem) = state.get()
            && !problem.is_unanswered()
            && !plain.get_untracked()
        {
            plain.set(true);
        }
    });
    view! {
        {dynamic(move || match state.get() {
            Remote::Ready(values) => draw(&values),
            Remote::Failed(problem) if plain.get() || problem.is_unanswered() => view! {
                <ProblemCard problem=problem retry=again />
            }.into_any(),
            _ => view! { <div class="skeleton"></div> }.into_any(),
        })}
    }
}

fn draw(values: &Values) -> AnyView {
    match values {
        Values::Tokens(values) => draw_tokens(values),
        Values::Pairs(values) => {
            let tokens = values.derived_attention_scalars_response_data.token_and_attention_scalars_list.clone();
            view! { <PairMap tokens=tokens /> }.into_any()
        }
    }
}

fn draw_tokens(values: &DerivedScalarsResponse) -> AnyView {
    let data = &values.derived_scalars_response_data;
    let most = data.activations.iter().fold(0.0f64, |m, v| m.max(*v));
    let normalised = |i: usize| data.normalized_activations.as_ref().and_then(|n| n.get(i).copied());
    let painted: Vec<TokenAndScalar> = values
        .inference_and_token_data
        .tokens_as_strings
        .iter()
        .zip(&data.activations)
        .enumerate()
        .map(|(i, (token, scalar))| TokenAndScalar {
            token: token.clone(),
            scalar: *scalar,
            // Without a stored maximum, by the prompt's own.
            normalized_scalar: normalised(i).unwrap_or_else(|| share(scalar.max(0.0), most)),
        })
        .collect();
    let best = painted.iter().enumerate().max_by(|a, b| a.1.scalar.total_cmp(&b.1.scalar));
    let words =
        best.map(|(i, t)| format!("strongest at {} ({i}): {}", format::quoted(&t.token), format::number(t.scalar)));
    view! { {line(&painted)} <p class="small-text quiet">{words}</p> }.into_any()
}
