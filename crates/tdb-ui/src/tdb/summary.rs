//! The answer in a sentence.

use leptos::prelude::*;
use tdb_api::numbers::{difference, sum};
use tdb_api::page::PageState;
use tdb_api::{AttentionTraceType, NodeAblation, NodeType, TokenRef};

use super::exact::ExactEffects;
use super::export;
use super::tools::ToolButtons;
use crate::answer::{Answer, Compared, Metric};
use crate::client::capital;
use crate::dom;
use crate::format;
use crate::session::{Layers, Session};
use crate::signals::See;
use crate::ui::{CollectView, JsonButton, dynamic, follows, token_text};
use crate::view::{Line, ViewState, arrange};

fn tokens(list: &[TokenRef]) -> AnyView {
    let n = list.len();
    list.iter()
        .enumerate()
        .map(|(i, t)| {
            let id = t.id().map(|id| format!(" (token {id})"));
            view! { <span class="token">{token_text(t.text())}</span>{id}{(i + 1 < n).then_some(", ")} }
        })
        .collect_view()
        .into_any()
}

const ESTIMATE: &str = "The ablated nodes' estimated total effects in the baseline, taken away:";

/// What the estimates of the baseline say that the ablations do, where they set nodes of the table to 0 and nothing
/// else.
fn estimated(answer: &Answer, asked: &PageState) -> Option<f64> {
    if asked.right.is_some() {
        return None;
    }
    let effect = |a: &NodeAblation| {
        let row = answer.rows.iter().find(|row| a.value == 0.0 && row.node == a.node_index)?;
        row.value(Compared::Right, Metric::TotalEffect)
    };
    let effects: Option<Vec<f64>> = asked.left.node_ablations.iter().map(effect).collect();
    effects.filter(|effects| !effects.is_empty()).map(|effects| difference(0.0, sum(effects)))
}

#[component]
pub fn Summary() -> impl IntoView {
    let session = Session::get();
    let exact = ExactEffects::get();
    let json = Callback::new(move |()| {
        let url = session.url(&session.page.get_untracked(), &session.view.get_untracked());
        export::whole(&session.answer.get_untracked(), &exact.checks(), &format!("{}{url}", dom::origin()))
    });
    view! {
        <section class="summary" class:stale=follows(move || session.is_stale()) aria-label="Summary" id="summary">
            <div class="grow">{dynamic(move || sentence(session))}</div>
            <ToolButtons />
            <JsonButton what="the whole answer" value=json />
        </section>
    }
}

fn sentence(session: Session) -> AnyView {
    let answer = session.answer.get();
    let Some(asked) = session.asked.get() else {
        return match session.busy.see(Option::is_some) {
            true => view! { <span class="skeleton wide-skeleton"></span> }.into_any(),
            false => view! { <span class="quiet">"No answer yet."</span> }.into_any(),
        };
    };
    let (left, right) = (&asked.left, asked.right.as_ref());
    let numbers = answer.objectives();
    let traced = left.upstream_node_to_trace.as_ref();
    let by_value = traced.is_some_and(|t| t.attention_trace_type == Some(AttentionTraceType::V));
    let asks_activation = traced.is_some() && numbers.first().is_none_or(|(_, loss)| !loss);
    // What the number is: of a head traced through query or key it is the score before the softmax.
    let (what, term) = match traced.filter(|_| asks_activation) {
        None => ("logit difference", "Logit difference"),
        Some(node) if node.node_index.node_type == NodeType::AttentionHead => match node.attention_trace_type {
            Some(AttentionTraceType::V) => ("effect of the value on the traced node", "Activation"),
            _ => ("attention score before the softmax", "Activation"),
        },
        Some(_) => ("activation before the nonlinearity", "Activation"),
    };
    let shown: Vec<AnyView> = numbers
        .iter()
        .enumerate()
        .map(|(i, (value, _))| {
            let side = match (numbers.len(), i, right.is_some()) {
                (1, ..) => "",
                (_, 0, true) => "left ",
                (_, _, true) => "right ",
                (_, 0, false) => "ablated ",
                _ => "baseline ",
            };
            view! {
                <span class="figure" title=format::full(*value)>
                    {side}
                    <strong data-value=format::full(*value)>{format::signed(*value)}</strong>
                </span>
            }
            .into_any()
        })
        .collect();
    let diff = match numbers.as_slice() {
        [(l, _), (r, _)] => Some({
            let difference = difference(*l, *r);
            view! {
                <span class="figure" title=format::full(difference)>
                    "difference "
                    <strong>{format::signed(difference)}</strong>
                    {estimated(&answer, &asked).map(|estimate| {
                        let title = format!("{ESTIMATE} {}", format::full(estimate));
                        view! {
                            <span class="quiet" id="estimate" data-value=format::full(estimate) title=title>
                                " estimated "{format::signed(estimate)}
                            </span>
                        }
                    })}
                </span>
            }
        }),
        _ => None,
    };
    let question = if asks_activation || by_value {
        ().into_any()
    } else if left.distractor_tokens.iter().all(|t| *t == TokenRef::default()) {
        view! { <span>"of "{tokens(&left.target_tokens)}</span> }.into_any()
    } else {
        view! { <span>"for "{tokens(&left.target_tokens)}" rather than "{tokens(&left.distractor_tokens)}</span> }
            .into_any()
    };
    let best = arrange(&answer, &ViewState::default(), &Default::default(), Layers::of(&asked));
    let names: Vec<String> = best
        .iter()
        .take(3)
        .filter_map(|line| match line {
            Line::Node { row, .. } => {
                let effect = line.value(&answer, Compared::Left, Metric::DirectEffect)?;
                Some(format!("{} {}", answer.rows[*row].name, format::signed(effect)))
            }
            Line::Group { .. } => None,
        })
        .collect();
    view! {
        <span class="sentence">
            <span class="question" data-term=term>{capital(what)}" "{question}</span>
            {shown}
            {diff}
            {(!names.is_empty()).then(|| view! {
                <span class="quiet helpers" title=format!("Largest direct effects: {}", names.join(", "))>
                    "Most: "{names.join(", ")}
                </span>
            })}
        </span>
    }
    .into_any()
}
