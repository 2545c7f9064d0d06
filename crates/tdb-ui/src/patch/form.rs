//! The two prompts, the tokens, and how the runs are measured.

use leptos::prelude::*;
use tdb_api::{PatchDirection, PatchMetric};

use super::Bench;
use super::state::Asked;
use crate::signals::{Change, See};
use crate::ui::{choice, entered, follows, press, sent};

#[component]
pub fn Form() -> impl IntoView {
    let bench = Bench::get();
    let set = move |change: &dyn Fn(&mut Asked)| bench.draft.change(|draft| change(draft));
    let prompt =
        move |id: &'static str, label: &'static str, get: fn(&Asked) -> &String, put: fn(&mut Asked) -> &mut String| {
            view! {
                <label class="stack tight">
                    <span class="label">{label}</span>
                    <textarea
                        id=id
                        class="field patch-prompt"
                        rows="2"
                        spellcheck="false"
                        prop:value=follows(move || bench.draft.see(|draft| get(draft).clone()))
                        on:input=entered(move |e| {
                            let text = event_target_value(&e);
                            set(&|draft| *put(draft) = text.clone());
                        })
                    ></textarea>
                </label>
            }
        };
    let token =
        move |id: &'static str, label: &'static str, get: fn(&Asked) -> &String, put: fn(&mut Asked) -> &mut String| {
            view! {
                <label class="stack tight">
                    <span class="label">{label}</span>
                    <input
                        id=id
                        class="field"
                        spellcheck="false"
                        autocomplete="off"
                        prop:value=follows(move || bench.draft.see(|draft| get(draft).clone()))
                        on:input=entered(move |e| {
                            let text = event_target_value(&e);
                            set(&|draft| *put(draft) = text.clone());
                        })
                    />
                </label>
            }
        };
    let metrics = [
        (PatchMetric::LogitDifference, "Logit difference"),
        (PatchMetric::LogProbability, "Log-probability"),
        (PatchMetric::Probability, "Probability"),
        (PatchMetric::KlDivergence, "KL divergence from the clean run"),
    ];
    let directions = [
        (PatchDirection::Denoising, "Denoising: clean activations into the corrupted run"),
        (PatchDirection::Noising, "Noising: corrupted activations into the clean run"),
    ];
    view! {
        <form
            class="card card-body stack"
            aria-label="Prompts"
            on:submit=sent(move |e| {
                e.prevent_default();
                bench.run();
            })
        >
            <div class="patch-prompts">
                {prompt("clean", "Clean prompt", |a| &a.clean, |a| &mut a.clean)}
                {prompt("corrupted", "Corrupted prompt", |a| &a.corrupted, |a| &mut a.corrupted)}
            </div>
            <div class="row patch-fields">
                {token("patch-target", "Target token", |a| &a.target, |a| &mut a.target)}
                {token("patch-distractor", "Distractor token", |a| &a.distractor, |a| &mut a.distractor)}
                <label class="stack tight">
                    <span class="label">"Metric"</span>
                    <select
                        id="metric"
                        class="field"
                        prop:value=follows(move || bench.draft.see(|draft| draft.metric.as_str()))
                        on:change=entered(move |e| {
                            let metric = event_target_value(&e).parse();
                            set(&|draft| draft.metric = metric.clone().unwrap_or(draft.metric));
                        })
                    >
                        {metrics.map(|(metric, label)| {
                            choice(metric.as_str(), label, move || bench.draft.see(|draft| draft.metric == metric))
                        }).collect_view()}
                    </select>
                </label>
                <label class="stack tight">
                    <span class="label">"Direction"</span>
                    <select
                        id="direction"
                        class="field"
                        prop:value=follows(move || bench.draft.see(|draft| draft.direction.as_str()))
                        on:change=entered(move |e| {
                            let direction = event_target_value(&e).parse();
                            set(&|draft| draft.direction = direction.clone().unwrap_or(draft.direction));
                        })
                    >
                        {directions.map(|(direction, label)| {
                            let is_chosen = move || bench.draft.see(|draft| draft.direction == direction);
                            choice(direction.as_str(), label, is_chosen)
                        }).collect_view()}
                    </select>
                </label>
                {token("alignment", "Alignment (clean:corrupted …)", |a| &a.alignment, |a| &mut a.alignment)}
            </div>
            <div class="row">
                <button type="submit" class="button primary" id="patch">"Patch"</button>
                <button
                    type="button"
                    class="button"
                    title="The clean prompt with target and distractor exchanged wherever they stand"
                    disabled=follows(move || bench.draft.see(|draft| draft.swapped().is_none()))
                    on:click=press(move |_| set(&|draft| {
                        if let Some(swapped) = draft.swapped() {
                            draft.corrupted = swapped;
                        }
                    }))
                >
                    "Corrupt by exchanging the tokens"
                </button>
            </div>
        </form>
    }
}
