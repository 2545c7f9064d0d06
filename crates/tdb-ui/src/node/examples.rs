//! Stored examples: those that excite the node most, and random ones.

use leptos::prelude::*;
use tdb_api::numbers::largest;
use tdb_api::{NodeType, TokenAndAttentionScalars, TokenAndScalar};

use super::Node;
use super::heat_text::{PairMap, line, peak};
use crate::client::Kind;
use crate::dom;
use crate::format;
use crate::json::Json;
use crate::records::{self, Record};
use crate::remote::{Remote, follow_question};
use crate::signals::{Change, Memo, RwSignal};
use crate::ui::{CollectView, JsonButton, ProblemCard, SequentialLegend, Show, button, dynamic, entered};

const FEW: [usize; 2] = [6, 3];

#[component]
pub fn Examples() -> impl IntoView {
    let node = Node::get();
    let request = move || {
        let by_token_pair = node.address.get()?.kind.by_token_pair;
        (node.has_records.get() == Some(true)).then(|| Some(records::question(&node.stored()?, by_token_pair)))?
    };
    let (state, again) = follow_question(request);
    let least = RwSignal::new(0.0f64);
    let most = Memo::new(move |_| match state.get() {
        Remote::Ready(record) => Some(record.max()),
        _ => None,
    });
    let json = Callback::new(move |()| match state.get_untracked() {
        Remote::Ready(record) => Json::of(&*record),
        _ => Json::default(),
    });
    // Of heads the records hold how much is written, not the attention.
    let is_head = untrack(|| node.address.get().is_some_and(|a| a.kind.node_type == NodeType::AttentionHead));
    let unit = if is_head { "write magnitude" } else { "activation" };
    let all = [RwSignal::new(false), RwSignal::new(false)];
    view! {
        <section class="card" aria-label="Examples" id="examples">
            <div class="card-head">
                <h2>"Examples from the data set"</h2>
                <span class="grow"></span>
                <Show when=move || most.get().is_some()>
                    <label class="check">
                        "At least "
                        <input
                            type="range"
                            min="0"
                            max="100"
                            prop:value="0"
                            aria-label="Smallest peak activation of the examples shown, in percent of the largest"
                            on:input=entered(move |e| {
                                least.set(dom::number(&event_target_value(&e)).unwrap_or_default() / 100.0);
                            })
                        />
                        <span class="num">{dynamic(move || most.get().map(|m| format::number(m * least.get())))}</span>
                    </label>
                    <SequentialLegend kind="seq" label=unit most=most />
                </Show>
                <JsonButton what="the examples" value=json />
            </div>
            <div class="card-body stack">
                {dynamic(move || match state.get() {
                    Remote::Idle if node.has_records.get() == Some(false) => {
                        view! { <p class="quiet">"No examples are stored for this model."</p> }.into_any()
                    }
                    Remote::Ready(record) => {
                        let bound = most.get().unwrap_or_default() * least.get();
                        parts(&record, bound)
                            .into_iter()
                            .zip(["Top", "Random"])
                            .enumerate()
                            .map(|(i, (examples, title))| part(node, title, examples, FEW[i], all[i]))
                            .collect_view()
                            .into_any()
                    }
                    Remote::Failed(problem) if problem.kind == Kind::Refused(404) => {
                        view! { <p class="quiet">"No examples are stored for this node. " {problem.message}</p> }
                            .into_any()
                    }
                    Remote::Failed(problem) => view! { <ProblemCard problem=problem retry=again /> }.into_any(),
                    _ => skeleton(),
                })}
            </div>
        </section>
    }
}

/// One text.
enum Example {
    Tokens(Vec<TokenAndScalar>),
    Pairs(Vec<TokenAndAttentionScalars>),
}

impl Example {
    fn peak(&self) -> f64 {
        match self {
            Self::Tokens(tokens) => peak(tokens),
            Self::Pairs(tokens) => largest(tokens.iter().map(|t| t.max_scalar_in)),
        }
    }

    /// The place of the token with the largest value.
    fn strongest(&self) -> usize {
        let values: Vec<f64> = match self {
            Self::Tokens(tokens) => tokens.iter().map(|t| t.scalar).collect(),
            Self::Pairs(tokens) => tokens.iter().map(|t| t.max_scalar_in).collect(),
        };
        values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(at, _)| at)
    }

    fn text(&self) -> String {
        match self {
            Self::Tokens(tokens) => tokens.iter().map(|t| t.token.as_str()).collect(),
            Self::Pairs(tokens) => tokens.iter().map(|t| t.token.as_str()).collect(),
        }
    }

    fn draw(self) -> AnyView {
        match self {
            Self::Tokens(tokens) => line(&tokens),
            Self::Pairs(tokens) => view! { <PairMap tokens=tokens /> }.into_any(),
        }
    }
}

/// Top and random examples whose peak reaches `bound`.
fn parts(record: &Record, bound: f64) -> [Vec<Example>; 2] {
    let all: [Vec<Example>; 2] = match record {
        Record::Tokens(r) => {
            [&r.top_activations, &r.random_sample].map(|list| list.iter().cloned().map(Example::Tokens).collect())
        }
        Record::Pairs(r) => [&r.most_positive_token_sequences, &r.random_token_sequences]
            .map(|list| list.iter().cloned().map(Example::Pairs).collect()),
    };
    all.map(|list| list.into_iter().filter(|e| bound <= 0.0 || e.peak() >= bound).collect())
}

fn part(node: Node, title: &'static str, examples: Vec<Example>, few: usize, all: RwSignal<bool>) -> impl IntoView {
    let total = examples.len();
    let shown = if all.get() { total } else { total.min(few) };
    // Components that fire at the first token of any text have no other top examples.
    let is_first_only = title == "Top" && total > 1 && examples.iter().all(|e| e.strongest() == 0);
    let label = move || if all.get() { "Show fewer".to_owned() } else { format!("Show all {total}") };
    view! {
        <h3>{title} " " <span class="quiet">{total}</span></h3>
        {is_first_only.then(|| view! {
            <p class="notice">"First token only: it is strongest at the first token of every one of these texts."</p>
        })}
        <div class="example-grid">{examples.into_iter().take(shown).map(|e| example(node, e)).collect_view()}</div>
        {(total > few)
            .then(|| {
                view! {
                    <div>
                        {button("button small", label, move |_| all.change(|a| *a = !*a))}
                    </div>
                }
            })}
    }
}

fn example(node: Node, example: Example) -> AnyView {
    let (peak, at) = (example.peak(), example.strongest());
    let href = untrack(|| node.debugger(Some(example.text()), false));
    view! {
        <div class="example-box">
            {example.draw()}
            <div class="foot">
                <span title=format::full(peak)>
                    "peak " {format::number(peak)} " at token " {at} {(at == 0).then_some(", the first")}
                </span>
                {href.map(|href| view! { <a href=href>"as a prompt"</a> })}
            </div>
        </div>
    }
    .into_any()
}

fn skeleton() -> AnyView {
    let boxes = (0..6)
        .map(|_| view! { <div class="example-box"><div class="skeleton"></div><div class="skeleton"></div></div> })
        .collect_view();
    view! { <div class="example-grid">{boxes}</div> }.into_any()
}
