//! The prompt drawn as a heat map of what each token's components did.

use leptos::prelude::*;
use tdb_api::numbers::{TokenEffects, largest_magnitude};
use tdb_api::stream::COMPONENT_SUMS;

use crate::answer::Side;
use crate::format;
use crate::json::Json;
use crate::session::Session;
use crate::ui::{CardHead, DivergingLegend, JsonButton, SaveFigure, fill_style, sign_class, token_text};

type Part = (&'static str, &'static str, fn(&TokenEffects) -> &[f64]);

const PARTS: [Part; 4] = [
    ("embeddings", "Estimated total effect, embeddings", |e| &e.embeddings),
    ("MLP layers", "Estimated total effect, MLP layers", |e| &e.mlp),
    ("attention, from", "Estimated total effect, attention layers, attended-from token", |e| &e.attended_from),
    ("attention, to", "Estimated total effect, attention layers, attended-to token", |e| &e.attended_to),
];

#[component]
pub fn TokenEffectsCard() -> impl IntoView {
    let session = Session::get();
    let json = Callback::new(move |()| {
        session
            .answer
            .with_untracked(|a| Json::of(&a.responses().iter().map(|r| r.ranked(COMPONENT_SUMS)).collect::<Vec<_>>()))
    });
    let most = move || {
        session.answer.with(|a| {
            let lists = a.sides.iter().filter_map(|s| s.effects.as_ref()).flat_map(|e| PARTS.map(|(.., get)| get(e)));
            largest_magnitude(lists.flatten().copied())
        })
    };
    view! {
        <section class="card effects" aria-label="Token effects" id="effects">
            <CardHead
                title="Tokens"
                about="token effects"
                tip="Activation times gradient, summed over all components at each token: where in the prompt the \
                    answer comes from. Press a token to see its nodes alone."
            >
                {move || view! { <DivergingLegend most=most() /> }}
                <SaveFigure what="the token effects" of="#effects .heat-sides" file="token-effects" />
                <JsonButton what="the token effects" value=json />
            </CardHead>
            <div class="card-body heat-sides" class:stale=move || session.is_stale()>
                {move || {
                    let answer = session.answer.get();
                    let two = answer.is_two_sided();
                    let most = most();
                    let ablated = session.asked.with(|a| a.as_ref().is_some_and(|a| a.right.is_none()));
                    answer.sides.iter().take(2).enumerate().map(|(i, side)| {
                        let title = match (two, i, ablated) {
                            (false, ..) => None,
                            (_, 0, true) => Some("Left: ablated"),
                            (_, _, true) => Some("Right: baseline"),
                            (_, 0, _) => Some("Left prompt"),
                            _ => Some("Right prompt"),
                        };
                        side_view(session, side, answer.sides.first().map(|s| s.tokens.clone()), title, most)
                    }).collect_view()
                }}
            </div>
        </section>
    }
}

fn side_view(
    session: Session,
    side: &Side,
    left: Option<Vec<String>>,
    title: Option<&'static str>,
    most: f64,
) -> AnyView {
    let differs = |i: usize, token: &str| left.as_ref().is_some_and(|l| l.get(i).is_some_and(|t| t != token));
    let cells = |values: Option<&[f64]>, label: &'static str| {
        side.tokens
            .iter()
            .enumerate()
            .map(|(i, token)| {
                let value = values.and_then(|v| v.get(i).copied());
                let class = value.map_or("", sign_class);
                let style = value.map(|v| fill_style(v, most)).unwrap_or_default();
                let title = value.map(|v| format!("{} ({i}): {}\n{label}", format::quoted(token), format::full(v)));
                view! { <td class=format!("fill {class}") style=style title=title data-value=value.map(format::full)>
                    <span class="heat-number">{value.map(format::signed)}</span>
                </td> }
            })
            .collect_view()
    };
    let heads = side
        .tokens
        .iter()
        .enumerate()
        .map(|(i, token)| {
            let different = differs(i, token);
            let name = format!("Show the nodes at token {i}, {}", format::quoted(token));
            view! {
                <th scope="col" class:differs=different>
                    <button
                        type="button"
                        class="heat-token"
                        aria-pressed=move || session.view.with(|v| v.tokens.contains(&i)).to_string()
                        title=format!("{name}{}", if different { "; it differs from the left prompt" } else { "" })
                        on:click=move |_| session.view.update(|v| match v.tokens.iter().position(|t| *t == i) {
                            Some(at) => { v.tokens.remove(at); }
                            None => v.tokens.push(i),
                        })
                    >
                        <span class="token-plain">{token_text(token)}</span>
                        <span class="token-index">{i}{different.then_some(" ≠")}</span>
                    </button>
                </th>
            }
        })
        .collect_view();
    let rows = PARTS
        .iter()
        .map(|(short, label, get)| {
            let values = side.effects.as_ref().map(get);
            view! { <tr><th scope="row" title=*label>{*short}</th>{cells(values, label)}</tr> }
        })
        .collect_view();
    view! {
        <div class="heat-side">
            {title.map(|t| view! { <h3>{t}</h3> })}
            <div class="heat-scroll" tabindex="0" role="group" aria-label="Effects by token">
                <table class="heat">
                    <thead><tr><td></td>{heads}</tr></thead>
                    <tbody>{rows}</tbody>
                </table>
            </div>
        </div>
    }
    .into_any()
}
