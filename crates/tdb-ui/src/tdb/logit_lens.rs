//! What the residual stream of each layer would predict, by layer and token.

use std::fmt::Write as _;

use leptos::prelude::*;
use tdb_api::page::PageState;
use tdb_api::routes::LogitLens as Route;
use tdb_api::{LogitLensCell, LogitLensRequest, LogitLensResponse};

use crate::format;
use crate::remote::{Remote, follow};
use crate::session::Session;
use crate::signals::{RwSignal, See};
use crate::ui::{CollectView, ProblemCard, SaveFigure, Show, dynamic, entered};

/// Tokens at the end of the prompt that are asked about: each costs an unembedding in each layer.
const LAST: i64 = 40;

/// What the cells say.
const SHOWN: [(&str, &str); 5] = [
    ("top", "likeliest token"),
    ("target", "probability of the target"),
    ("target-rank", "rank of the target"),
    ("distractor", "probability of the distractor"),
    ("distractor-rank", "rank of the distractor"),
];

#[component]
pub fn LogitLens() -> impl IntoView {
    let session = Session::get();
    let shown = RwSignal::new("top".to_owned());
    let unablated = RwSignal::new(false);
    let has_ablations = move || session.asked.see(|a| a.as_ref().is_some_and(|a| !a.left.node_ablations.is_empty()));
    let right = RwSignal::new(false);
    let two_prompts = move || session.asked.see(|a| a.as_ref().is_some_and(PageState::compares_prompts));
    let (state, again) = follow::<Route>(move || {
        let at = usize::from(right.get() && two_prompts());
        let side = session.answer.see(|a| a.request.sub_requests.get(at).cloned())?;
        Some(LogitLensRequest {
            prompt: side.prompt,
            target_tokens: side.target_tokens,
            distractor_tokens: side.distractor_tokens,
            node_ablations: Some(if unablated.get() { Vec::new() } else { side.node_ablations.unwrap_or_default() }),
            last_tokens: Some(LAST),
        })
    });
    view! {
        <div class="stack" id="logit-lens">
            <div class="row">
                <select
                    class="field"
                    aria-label="What the cells say"
                    id="lens-shown"
                    on:change=entered(move |e| shown.set(event_target_value(&e)))
                >
                    {SHOWN.map(|(word, label)| view! { <option value=word>{label}</option> }).collect_view()}
                </select>
                <Show when=two_prompts>
                    <select
                        class="field"
                        aria-label="Of which prompt"
                        id="lens-side"
                        on:change=entered(move |e| right.set(event_target_value(&e) == "right"))
                    >
                        <option value="left">"left prompt"</option>
                        <option value="right">"right prompt"</option>
                    </select>
                </Show>
                <Show when=has_ablations>
                    <label class="check">
                        <input type="checkbox" on:change=entered(move |e| unablated.set(event_target_checked(&e))) />
                        "Without the ablations"
                    </label>
                </Show>
                <span class="grow"></span>
                <SaveFigure what="the logit lens" of="#logit-lens table" file="logit-lens" />
            </div>
            <p class="quiet small-text">
                "The residual stream after each layer through the final norm and the unembedding, as if the layers \
                    above did nothing. The top row is what the model predicts. Colour: probability."
            </p>
            {dynamic(move || match state.get() {
                Remote::Ready(lens) => {
                    let table = draw(&lens, &shown.get());
                    view! {
                        <div
                            class="heat-scroll"
                            tabindex="0"
                            role="group"
                            aria-label="Logit lens"
                            inner_html=table
                        ></div>
                    }.into_any()
                }
                Remote::Failed(problem) => view! { <ProblemCard problem=problem retry=again /> }.into_any(),
                _ => view! { <div class="skeleton tall-skeleton"></div> }.into_any(),
            })}
        </div>
    }
}

/// A cell's text, the probability that paints it, and its exact value.
fn cell(cell: &LogitLensCell, shown: &str) -> (String, f64, String) {
    let probability = |p: Option<f64>| p.map_or_else(Default::default, |p| (format::percent(p), p, format::full(p)));
    let rank = |rank: Option<i64>, p: Option<f64>| {
        rank.map_or_else(Default::default, |rank| (rank.to_string(), p.unwrap_or_default(), rank.to_string()))
    };
    match shown {
        "target" => probability(cell.target_probability),
        "target-rank" => rank(cell.target_rank, cell.target_probability),
        "distractor" => probability(cell.distractor_probability),
        "distractor-rank" => rank(cell.distractor_rank, cell.distractor_probability),
        _ => (cell.top.replace(' ', "·"), cell.probability, format::full(cell.probability)),
    }
}

fn draw(lens: &LogitLensResponse, shown: &str) -> String {
    let mut out = String::from("<table class=\"lens-grid\"><tbody>");
    for layer in lens.layers.iter().rev() {
        let name = layer.layer.map_or_else(|| "embedding".to_owned(), |layer| format!("after L{layer}"));
        let _ = write!(out, "<tr><th scope=\"row\">{name}</th>");
        for of in &layer.cells {
            let (text, full, value) = cell(of, shown);
            let also = [
                ("target", of.target_rank, of.target_probability),
                ("distractor", of.distractor_rank, of.distractor_probability),
            ]
            .into_iter()
            .filter_map(|(role, rank, p)| Some(format!("; {role}: rank {}, {}", rank?, format::percent(p?))));
            let title =
                format!("{} {}{}", format::quoted(&of.top), format::percent(of.probability), also.collect::<String>());
            let _ = write!(
                out,
                "<td class=\"fill seq\" style=\"--v:{full:.3}\" title=\"{}\" data-value=\"{value}\">{}</td>",
                format::html(&title),
                format::html(&text)
            );
        }
        out.push_str("</tr>");
    }
    end_with_tokens(&mut out, lens);
    out
}

/// The end of a grid's table: the tokens below their columns.
pub fn end_with_tokens(out: &mut String, lens: &LogitLensResponse) {
    out.push_str("</tbody><tfoot><tr><td></td>");
    for (i, token) in lens.tokens_as_strings.iter().enumerate() {
        let at = lens.first_token as usize + i;
        let _ = write!(out, "<th scope=\"col\">{} <span class=\"token-index\">{at}</span></th>", format::html(token));
    }
    out.push_str("</tr></tfoot></table>");
}
