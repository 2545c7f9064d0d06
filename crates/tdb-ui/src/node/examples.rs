//! Stored examples: those that excite the node most, and random ones.

use leptos::prelude::*;
use serde_json::Value;

use super::Node;
use super::heat_text::{PairMap, line, read_line, read_pairs};
use crate::client::Kind;
use crate::format;
use crate::remote::{Remote, follow};
use crate::ui::{JsonButton, ProblemCard, SequentialLegend};

const FEW: [usize; 2] = [6, 3];

#[component]
pub fn Examples() -> impl IntoView {
    let node = Node::get();
    let (state, again) = follow(move || {
        if node.has_records.get() != Some(true) {
            return None;
        }
        let pair = node.address.get()?.kind.by_token_pair;
        Some((if pair { "/attention_head_record" } else { "/neuron_record" }, node.stored()?))
    });
    let all = [RwSignal::new(false), RwSignal::new(false)];
    let least = RwSignal::new(0.0f64);
    let most = Memo::new(move |_| match state.get() {
        Remote::Ready(v) => v["maxActivation"].as_f64().or(v["maxAttentionActivation"].as_f64()),
        _ => None,
    });
    let json = Callback::new(move |()| match state.get_untracked() {
        Remote::Ready(value) => value,
        _ => Value::Null,
    });
    view! {
        <section class="card" aria-label="Examples" id="examples">
            <div class="card-head">
                <h2>"Examples from the data set"</h2>
                <span class="grow"></span>
                <Show when=move || most.get().is_some()>
                    <label class="check">
                        "At least "
                        <input type="range" min="0" max="100" prop:value="0" aria-label="Smallest peak activation of the examples shown, in percent of the largest" on:input=move |e| least.set(event_target_value(&e).parse().unwrap_or(0.0) / 100.0) />
                        <span class="num">{move || most.get().map(|m| format::number(m * least.get()))}</span>
                    </label>
                    <SequentialLegend kind="seq" label="activation" most=most />
                </Show>
                <JsonButton what="the examples" value=json />
            </div>
            <div class="card-body stack">
                {move || match state.get() {
                    Remote::Idle if node.has_records.get() == Some(false) => view! {
                        <p class="quiet">"No examples are stored for this model."</p>
                    }.into_any(),
                    Remote::Ready(value) => {
                        let keys = if value.get("topActivations").is_some() { ["topActivations", "randomSample"] } else { ["mostPositiveTokenSequences", "randomTokenSequences"] };
                        let bound = most.get().unwrap_or_default() * least.get();
                        ["Top", "Random"].into_iter().enumerate().map(|(part, title)| {
                            let list = value[keys[part]].as_array().cloned().unwrap_or_default();
                            let passing: Vec<Value> = list.into_iter().filter(|s| bound <= 0.0 || peak(s) >= bound).collect();
                            let total = passing.len();
                            let shown = if all[part].get() { total } else { total.min(FEW[part]) };
                            view! {
                                <h3>{title}" "<span class="quiet">{total}</span></h3>
                                <div class="example-grid">{passing.into_iter().take(shown).map(|s| example(node, &s)).collect_view()}</div>
                                {(total > FEW[part]).then(|| view! {
                                    <div><button type="button" class="button small" on:click=move |_| all[part].update(|a| *a = !*a)>{if all[part].get() { "Show fewer".to_owned() } else { format!("Show all {total}") }}</button></div>
                                })}
                            }
                        }).collect_view().into_any()
                    }
                    Remote::Failed(problem) if problem.kind == Kind::Refused(404) => view! {
                        <p class="quiet">"No examples are stored for this node. "{problem.message}</p>
                    }.into_any(),
                    Remote::Failed(problem) => view! { <ProblemCard problem=problem retry=again /> }.into_any(),
                    _ => view! { <div class="example-grid">{(0..6).map(|_| view! { <div class="example-box"><div class="skeleton"></div><div class="skeleton"></div></div> }).collect_view()}</div> }.into_any(),
                }}
            </div>
        </section>
    }
}

fn peak(sequence: &Value) -> f64 {
    let items = sequence.as_array().into_iter().flatten();
    items.filter_map(|t| t["scalar"].as_f64().or(t["maxScalarIn"].as_f64())).fold(f64::NEG_INFINITY, f64::max)
}

fn example(node: Node, sequence: &Value) -> AnyView {
    let peak = peak(sequence);
    let is_pair = sequence[0].get("scalars").is_some();
    let text: String = sequence.as_array().into_iter().flatten().filter_map(|t| t["token"].as_str()).collect();
    let href = untrack(|| node.debugger(Some(text), false));
    let map =
        if is_pair { view! { <PairMap tokens=read_pairs(sequence) /> }.into_any() } else { line(&read_line(sequence)) };
    view! {
        <div class="example-box">
            {map}
            <div class="foot">
                <span title=format::full(peak)>"peak "{format::number(peak)}</span>
                {href.map(|href| view! { <a href=href>"as a prompt"</a> })}
            </div>
        </div>
    }
    .into_any()
}
