//! The prompt drawn as a heat map of what each token's components did.

use leptos::{html, prelude::*};
use tdb_api::numbers::{TokenEffects, largest_magnitude, sum};
use tdb_api::stream::COMPONENT_SUMS;

use crate::answer::{Answer, Side};
use crate::dom;
use crate::format;
use crate::json::Json;
use crate::session::Session;
use crate::signals::{Change, Peek, See, effect};
use crate::ui::{
    CardHead, CollectView, DivergingLegend, JsonButton, SaveFigure, dynamic, fill_style, follows, press, sign_class,
    token_text,
};

type Part = (&'static str, &'static str, fn(&TokenEffects) -> &[f64]);

/// What the total is made of.
const PARTS: [Part; 3] = [
    ("embeddings", "Estimated total effect, embeddings", |e| &e.embeddings),
    ("MLP layers", "Estimated total effect, MLP layers", |e| &e.mlp),
    ("attention, from", "Estimated total effect, attention layers, attended-from token", |e| &e.attended_from),
];

/// What is in the total already, at another token.
const READ: Part = (
    "attention, to",
    "Estimated total effect, attention layers, attended-to token: the attention of the total once more, at the tokens \
     that are read",
    |e| &e.attended_to,
);

#[component]
pub fn TokenEffectsCard() -> impl IntoView {
    let session = Session::get();
    let json = Callback::new(move |()| {
        session.answer.peek(|a| Json::of(&a.responses().iter().map(|r| r.ranked(COMPONENT_SUMS)).collect::<Vec<_>>()))
    });
    let most = move || {
        session.answer.see(|a| {
            let lists = a
                .sides
                .iter()
                .filter_map(|s| s.effects.as_ref())
                .flat_map(|e| PARTS.map(|(.., get)| get(e)).into_iter().chain([(READ.2)(e)]));
            largest_magnitude(lists.flatten().copied())
        })
    };
    view! {
        <section class="card effects" aria-label="Token effects" id="effects">
            <CardHead
                title="Tokens"
                about="token effects"
                tip="Activation times gradient, summed over all heads, neurons and the embedding at each token, \
                    whatever the table's rows are. Embeddings, MLP layers and attention at the token that reads add \
                    up to the total. The row below it shows the attention once more, at the token that is read. \
                    These are first-order estimates: they need not add up to the logit difference. Press a token to \
                    see its nodes alone."
            >
                {dynamic(move || {
                    session.answer.see(|a| (!a.is_two_sided()).then(|| a.sides.first().map(added)))
                })}
                {dynamic(move || view! { <DivergingLegend most=most() /> })}
                <SaveFigure what="the token effects" of="#effects .heat-sides" file="token-effects" />
                <JsonButton what="the token effects" value=json />
            </CardHead>
            <div class="card-body heat-sides" class:stale=follows(move || session.is_stale())>
                {dynamic(move || {
                    let answer = session.answer.get();
                    let two = answer.is_two_sided();
                    let most = most();
                    let ablated = session.asked.see(|a| a.as_ref().is_some_and(|a| a.right.is_none()));
                    (0..answer.sides.len().min(2)).map(|i| {
                        let title = match (two, i, ablated) {
                            (false, ..) => None,
                            (_, 0, true) => Some("Left: ablated"),
                            (_, _, true) => Some("Right: baseline"),
                            (_, 0, _) => Some("Left prompt"),
                            _ => Some("Right prompt"),
                        };
                        side_view(session, &answer, i, title, most)
                    }).collect_view()
                })}
            </div>
        </section>
    }
}

fn side_view(session: Session, answer: &Answer, at: usize, title: Option<&'static str>, most: f64) -> AnyView {
    let side = &answer.sides[at];
    // The left prompt's token that one stands for, by which the table is filtered.
    let on_left = |i: usize| if at == 0 { Some(i) } else { answer.partner(at, i) };
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
            let left = on_left(i);
            let different = left.is_none_or(|left| answer.tokens().get(left) != Some(token));
            let name = format!("Show the nodes at token {i}, {}", format::quoted(token));
            let remark = match left {
                None => "; it stands for no token of the left prompt",
                Some(_) if different => "; it differs from the left prompt",
                Some(_) => "",
            };
            view! {
                <th scope="col" class:differs=different>
                    <button
                        type="button"
                        class="heat-token"
                        aria-pressed=follows(move || {
                            session.view.see(|v| left.is_some_and(|i| v.tokens.contains(&i))).to_string()
                        })
                        title=format!("{name}{remark}")
                        disabled=left.is_none()
                        on:click=press(move |_| session.view.change(|v| {
                            match left.map(|left| v.tokens.iter().position(|t| *t == left)) {
                                Some(Some(at)) => { v.tokens.remove(at); }
                                _ => v.tokens.extend(left),
                            }
                        }))
                    >
                        <span class="token-plain">{token_text(token)}</span>
                        <span class="token-index">{i}{different.then_some(" ≠")}</span>
                    </button>
                </th>
            }
        })
        .collect_view();
    let row = |(short, label, get): Part, is_part: bool| {
        let values = side.effects.as_ref().map(get);
        // One total is not shown twice.
        let all = values.filter(|_| is_part).map(|v| sum(v.iter().copied()));
        view! { <tr><th scope="row" title=label>{short}</th>{cells(values, label)}{total(all)}</tr> }
    };
    let rows = PARTS.map(|part| row(part, true)).collect_view();
    let totals = side.effects.as_ref().map(TokenEffects::totals);
    let whole = totals.as_ref().map(|t| sum(t.iter().copied()));
    // A long prompt shows first the token that the question is asked at.
    let scroll = NodeRef::<html::Div>::new();
    let asked = answer.candidates_after.and_then(|token| if at == 0 { Some(token) } else { answer.partner(0, token) });
    effect(move || dom::scroll_to_column(scroll.get(), asked));
    view! {
        <div class="heat-side">
            {title.map(|t| view! { <h3>{t}{added(side)}</h3> })}
            <div class="heat-scroll" tabindex="0" role="group" aria-label="Effects by token" node_ref=scroll>
                <table class="heat">
                    <thead><tr><td></td>{heads}<th scope="col" class="total">"total"</th></tr></thead>
                    <tbody>
                        {rows}
                        <tr class="totals">
                            <th scope="row" title="Embeddings, MLP layers and attention from">"total"</th>
                            {cells(totals.as_deref(), "Estimated total effect, all components, each once")}
                            {total(whole)}
                        </tr>
                        {row(READ, false)}
                    </tbody>
                </table>
            </div>
        </div>
    }
    .into_any()
}

/// What the estimates of a side add up to, beside what was asked.
fn added(side: &Side) -> Option<AnyView> {
    let whole = sum(side.effects.as_ref()?.totals());
    let asked = side.loss.or(side.activation)?;
    let what = if side.loss.is_some() { "logit difference" } else { "traced value" };
    Some(
        view! {
            <span class="quiet small-text added" data-sum=format::full(whole) data-of=format::full(asked)>
                "estimates add up to "{format::signed(whole)}", "{what}" "{format::signed(asked)}
            </span>
        }
        .into_any(),
    )
}

/// The sum of a row.
fn total(value: Option<f64>) -> impl IntoView {
    view! {
        <td class="num total" title=value.map(format::full) data-value=value.map(format::full)>
            {value.map(format::signed)}
        </td>
    }
}
