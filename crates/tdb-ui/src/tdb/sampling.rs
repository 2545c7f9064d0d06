//! Continuing the prompt, with the present ablations and without, and the logit difference at several strengths of one.

use std::fmt::Write as _;

use leptos::prelude::*;
use tdb_api::numbers::largest_magnitude;
use tdb_api::page::{PageState, SideState};
use tdb_api::routes::{BatchedTdb, SampleStream};
use tdb_api::stream::TdbEvent;
use tdb_api::{BatchedTdbRequest, NodeAblation, NodeIndex, NodeType, PassType, SampleRequest};

use super::interventions::describe;
use super::notebook::Log;
use crate::client::{self, Abort, Kind, Problem};
use crate::dom;
use crate::format;
use crate::names::parse_jump;
use crate::session::Session;
use crate::signals::{Memo, RwSignal, See};
use crate::tasks::spawn;
use crate::ui::{CollectView, ProblemCard, Show, button, dynamic, entered, follows, number_field, sent};

/// Strengths of the curve.
const DOSES: usize = 11;

/// A token that was drawn, and its probability.
type Drawn = (String, f64);

#[component]
pub fn Sampling() -> impl IntoView {
    let session = Session::get();
    let log = Log::get();
    let field = |start: &str| RwSignal::new(start.to_owned());
    let [tokens, temperature, top_p, seed] = ["20", "1", "1", "1"].map(field);
    let drawn = RwSignal::new([Vec::<Drawn>::new(), Vec::new()]);
    let problem = RwSignal::new(None::<Problem>);
    let running = RwSignal::new(false);
    let abort = StoredValue::new_local(None::<Abort>);
    let [held_node, held_value] = ["", "0"].map(field);
    let held = move || held(&held_node.get(), &held_value.get());
    // What is continued: the left prompt, with its ablations and the node that is held besides.
    let side = Memo::new(move |_| {
        let mut side = session.asked.see(|a| a.as_ref().map(|a| a.left.clone()))?;
        side.node_ablations.extend(held().ok().flatten());
        Some(side)
    });
    let has_ablations = move || side.see(|s| s.as_ref().is_some_and(|s| !s.node_ablations.is_empty()));
    let start = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let (Some(side), Ok(_)) = (side.get_untracked(), untrack(held)) else { return };
        let number = |signal: RwSignal<String>| dom::number(&signal.get_untracked()).unwrap_or(f64::NAN);
        let request = SampleRequest {
            prompt: side.prompt,
            node_ablations: Some(side.node_ablations),
            tokens: number(tokens) as i64,
            temperature: number(temperature),
            top_p: number(top_p),
            seed: number(seed) as i64,
        };
        drawn.set(Default::default());
        problem.set(None);
        running.set(true);
        abort.set_value(Abort::new());
        let signal = abort.with_value(|a| a.as_ref().map(Abort::signal));
        spawn(async move {
            let mut refused = None;
            let outcome = client::stream::<SampleStream>(&request, signal, |event| match event {
                TdbEvent::Sampled { side, token, probability, .. } => {
                    let _ = drawn.try_update(|d| d.get_mut(side).map(|d| d.push((token, probability))));
                }
                TdbEvent::Error { status, message, field } => refused = Some(Problem::refused(status, &message, field)),
                _ => {}
            })
            .await;
            if running.try_set(false).is_none() {
                return;
            }
            match refused.map_or(outcome, Err) {
                Ok(()) => log.continued(&request, &drawn.get_untracked().map(|d| d.into_iter().map(|t| t.0).collect())),
                Err(found) if found.kind == Kind::Aborted => {}
                Err(found) => problem.set(Some(found)),
            }
        });
    };
    let input = |label, id, text| number_field(label, id, "decimal", text);
    let pane = move |at: usize, title: &'static str| {
        let text = move || {
            drawn.see(|d| {
                let piece = |(token, p): &Drawn| {
                    let title = format::html(&format!("{}: {}", format::quoted(token), format::percent(*p)));
                    let shown = format::html(&token.replace('\n', "↵\n"));
                    format!("<span class=\"piece fill seq\" style=\"--v:{p:.3}\" title=\"{title}\">{shown}</span>")
                };
                d[at].iter().map(piece).collect::<String>()
            })
        };
        view! {
            <div class="example-box grow">
                <h3>{title}</h3>
                <div class="text-map" id=format!("continued-{at}") inner_html=text></div>
            </div>
        }
    };
    view! {
        <div class="stack" id="sampling">
            <form class="row" on:submit=sent(start)>
                {input("Tokens", "sample-tokens", tokens)}
                {input("Temperature", "sample-temperature", temperature)}
                {input("Top-p", "sample-top-p", top_p)}
                {input("Seed", "sample-seed", seed)}
                <label class="stack tight">
                    <span class="label">"Hold a node"</span>
                    <input
                        class="field short"
                        id="hold-node"
                        placeholder="mlp_L3_44"
                        aria-invalid=follows(move || held().is_err().to_string())
                        prop:value=follows(move || held_node.get())
                        on:input=entered(move |e| held_node.set(event_target_value(&e)))
                    />
                </label>
                {input("at", "hold-value", held_value)}
                <button class="button primary" type="submit" disabled=follows(move || running.get())>"Continue"</button>
                <Show when=move || running.get()>
                    {button("button", "Cancel", move |_| abort.set_value(None))}
                </Show>
            </form>
            <p class="quiet small-text">
                "Both continuations are drawn with the same seed. A node that is held has this value at every token, \
                    also at those that are drawn, beside the question's ablations. Temperature 0 takes the likeliest \
                    token. Colour: probability."
            </p>
            {dynamic(move || held().err().map(|wrong| view! { <p class="field-error" role="alert">{wrong}</p> }))}
            {dynamic(move || problem.get().map(|p| view! { <ProblemCard problem=p /> }))}
            <div class="row continued">
                {dynamic(move || if has_ablations() {
                    view! { {pane(0, "With what is held")} {pane(1, "Without")} }.into_any()
                } else {
                    pane(0, "Continuation").into_any()
                })}
            </div>
            <Show when=has_ablations>
                <Doses side=side />
            </Show>
        </div>
    }
}

/// A node at every token, and the value it is held at; none without a name.
///
/// # Errors
/// A sentence if the name or the value cannot be read.
fn held(name: &str, value: &str) -> Result<Option<NodeAblation>, String> {
    if name.trim().is_empty() {
        return Ok(None);
    }
    let (node_type, layer, unit) = parse_jump(name, NodeType::MlpNeuron)
        .ok_or("Name a node with layer and index, as mlp_L3_44 or mlp_ae_L1_7.")?;
    let value = dom::number(value).ok_or("Hold it at a number.")?;
    let (node_type, tensor_indices) = match node_type {
        NodeType::AttentionHead => (node_type, vec![None, None, Some(unit)]),
        // A latent of attention is one by what it reads, too.
        NodeType::AutoencoderLatentByTokenPair => (NodeType::AttentionAutoencoderLatent, vec![None, Some(unit)]),
        _ => (node_type, vec![None, Some(unit)]),
    };
    let node_index = NodeIndex { node_type, tensor_indices, layer_index: Some(layer), pass_type: PassType::Forward };
    Ok(Some(NodeAblation { node_index, value }))
}

/// The question about a side with one of its ablations at several values.
fn doses(page: &PageState, held: SideState, at: usize, values: &[f64]) -> BatchedTdbRequest {
    let mut page = PageState { left: held, ..page.clone() };
    page.top_and_bottom_k_for_node_table = 1;
    page.right = None;
    let side = |value: &f64| {
        page.left.node_ablations[at].value = *value;
        page.to_request().sub_requests.remove(0)
    };
    BatchedTdbRequest { sub_requests: values.iter().map(side).collect(), alignment: None, checks: None }
}

/// A value, and the asked quantity with the node held at it.
type Dose = (f64, f64);

/// The asked quantity as a function of the value that a node is held at.
#[component]
fn Doses(side: Memo<Option<SideState>>) -> impl IntoView {
    let session = Session::get();
    let chosen = RwSignal::new(0usize);
    let (low, high) = (RwSignal::new("-5".to_owned()), RwSignal::new("5".to_owned()));
    let curve = RwSignal::new(Vec::<Dose>::new());
    let problem = RwSignal::new(None::<Problem>);
    let ablations = move || side.see(|s| s.as_ref().map(|s| s.node_ablations.clone()).unwrap_or_default());
    let ask = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let number = |signal: RwSignal<String>| dom::number(&signal.get_untracked());
        let (page, held) = (session.asked.get_untracked(), side.get_untracked());
        let (Some(page), Some(held), Some(low), Some(high)) = (page, held, number(low), number(high)) else { return };
        let at = chosen.get_untracked();
        if at >= held.node_ablations.len() {
            return;
        }
        let step = (high - low) / (DOSES - 1) as f64;
        let values: Vec<f64> = (0..DOSES).map(|i| low + step * i as f64).collect();
        problem.set(None);
        spawn(async move {
            match client::call::<BatchedTdb>(&doses(&page, held, at, &values), None).await {
                Ok(answer) => {
                    let sides = answer.inference_sub_responses.into_iter();
                    let found = sides.map(|side| side.inference_response.inference_and_token_data);
                    let found = found.map(|data| data.loss.or(data.activation_value_for_backward_pass));
                    let points = values.into_iter().zip(found).filter_map(|(value, loss)| Some((value, loss?)));
                    let _ = curve.try_set(points.collect());
                }
                Err(found) => {
                    let _ = problem.try_set(Some(found));
                }
            }
        });
    };
    view! {
        <h3>"Logit difference by the value that a node is held at"</h3>
        <form class="row" on:submit=sent(ask) id="doses">
            <select
                class="field"
                aria-label="Which ablation"
                on:change=entered(move |e| chosen.set(event_target_value(&e).parse().unwrap_or_default()))
            >
                {dynamic(move || ablations().into_iter().enumerate().map(|(i, a)| view! {
                    <option value=i.to_string()>{session.answer.see(|answer| describe(&a.node_index, answer))}</option>
                }).collect_view())}
            </select>
            <label class="check">"from"<input
                class="field short"
                prop:value=follows(move || low.get())
                on:input=entered(move |e| low.set(event_target_value(&e)))
            /></label>
            <label class="check">"to"<input
                class="field short"
                prop:value=follows(move || high.get())
                on:input=entered(move |e| high.set(event_target_value(&e)))
            /></label>
            <button class="button" type="submit">"Draw"</button>
        </form>
        {dynamic(move || problem.get().map(|p| view! { <ProblemCard problem=p /> }))}
        <div class="heat-scroll" id="dose-curve" inner_html=move || curve.see(|points| plot(points))></div>
    }
}

fn plot(points: &[Dose]) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    let most = largest_magnitude(points.iter().map(|p| p.1)).max(f64::MIN_POSITIVE);
    let width = if last.0 > first.0 { last.0 - first.0 } else { 1.0 };
    let place = |p: &Dose| (40.0 + (p.0 - first.0) / width * 480.0, 90.0 - p.1 / most * 75.0);
    let line: Vec<String> = points.iter().map(|p| format!("{:.1},{:.1}", place(p).0, place(p).1)).collect();
    let mut out = format!(
        "<svg width=\"560\" height=\"190\" viewBox=\"0 0 560 190\" role=\"img\" aria-label=\"Logit difference by \
         value\"><line x1=\"40\" x2=\"520\" y1=\"90\" y2=\"90\" stroke=\"currentColor\" opacity=\"0.4\"/><polyline \
         points=\"{}\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"1.5\"/>",
        line.join(" ")
    );
    for p in points {
        let (x, y) = place(p);
        let _ = write!(
            out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"currentColor\" data-value=\"{}\"><title>{}: \
             {}</title></circle><text x=\"{x:.1}\" y=\"{:.1}\" font-size=\"10\" text-anchor=\"middle\" \
             fill=\"currentColor\">{}</text><text x=\"{x:.1}\" y=\"184\" font-size=\"10\" text-anchor=\"middle\" \
             fill=\"currentColor\">{}</text>",
            format::full(p.1),
            format::full(p.0),
            format::full(p.1),
            y - 7.0,
            format::number(p.1),
            format::number(p.0)
        );
    }
    out.push_str("</svg>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_held_at_every_token() {
        assert_eq!(held(" ", "x"), Ok(None));
        let node = |name: &str| held(name, "-2.5").map(|held| held.map(|h| (h.node_index.tensor_indices, h.value)));
        assert_eq!(node("mlp_L3_44"), Ok(Some((vec![None, Some(44)], -2.5))));
        assert_eq!(node("attn_L1_2"), Ok(Some((vec![None, None, Some(2)], -2.5))));
        let latent = held("attn_ae_L1_7", "1").unwrap().unwrap().node_index;
        assert_eq!(latent.node_type, NodeType::AttentionAutoencoderLatent);
        assert!(held("mlp", "1").is_err() && held("mlp_L3_44", "much").is_err());
    }
}
