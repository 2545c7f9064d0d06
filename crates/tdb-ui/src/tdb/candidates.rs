//! Candidates for the next token.

use leptos::prelude::*;
use tdb_api::TokenRef;
use tdb_api::numbers::share;
use tdb_api::stream::TOP_OUTPUT_TOKEN_LOGITS;

use super::question::{side_mut, tokens_mut};
use crate::answer::{Answer, Candidate};
use crate::format;
use crate::json::Json;
use crate::session::Session;
use crate::signals::{Change, Memo, Peek, RwSignal, See};
use crate::sorting::sort;
use crate::tasks::spawn;
use crate::token_cache::TokenCache;
use crate::ui::{
    CollectView, JsonButton, Menu, Show, Tip, button, dynamic, follows, menu_item, press, sign_class, token_text,
};

const FEW: usize = 10;

#[derive(Clone, PartialEq)]
struct CandidateLine {
    candidate: Candidate,
    role: Option<String>,
    pinned: bool,
}

/// Role of a token, left roles first: what the reference's labels say.
fn role(candidate: &Candidate, session: Session) -> Option<(usize, String)> {
    let text = candidate.token.as_deref()?;
    if !session.answer.see(|a| a.candidates_are_at_the_end()) {
        return None;
    }
    let asked = session.asked.get()?;
    let find = |list: &[TokenRef]| list.iter().position(|t| t.is(candidate.id, text));
    let (left, right) = (&asked.left, asked.right.as_ref());
    let hit = |l: Option<usize>, r: Option<Option<usize>>, word: &str, base: usize| match (l, r) {
        (Some(at), None) | (Some(at), Some(Some(_))) => Some((base + at, word.to_owned())),
        (Some(at), Some(None)) => Some((base + at, format!("left {word}"))),
        (None, Some(Some(at))) => Some((base + 200 + at, format!("right {word}"))),
        _ => None,
    };
    hit(find(&left.target_tokens), right.map(|r| find(&r.target_tokens)), "target", 0)
        .or_else(|| hit(find(&left.distractor_tokens), right.map(|r| find(&r.distractor_tokens)), "distractor", 100))
}

#[component]
pub fn Candidates() -> impl IntoView {
    let session = Session::get();
    let all = RwSignal::new(false);
    let sort = RwSignal::new((0usize, true));
    let two = move || session.answer.see(|a| a.is_two_sided());
    let has_probabilities = move || session.answer.see(|a| a.candidates.iter().any(|c| c.probabilities[0].is_some()));
    let lines = Memo::new(move |_| session.answer.see(|a| lines(a, session, sort.get())));
    let shown = move || {
        let lines = lines.get();
        let pinned = lines.iter().filter(|l| l.pinned).count();
        let n = if all.get() { lines.len() } else { pinned + FEW };
        lines.into_iter().take(n).collect::<Vec<_>>()
    };
    let json = Callback::new(move |()| {
        session.answer.peek(|a| {
            let lists = a.responses().iter().map(|r| r.ranked(TOP_OUTPUT_TOKEN_LOGITS)).collect::<Vec<_>>();
            Json::of(&(lists, &a.folded.candidates))
        })
    });
    let header = move |at: usize, label: &'static str| {
        view! {
            <th scope="col" class="num" aria-sort=follows(move || match sort.get() {
                (column, true) if column == at => "descending",
                (column, false) if column == at => "ascending",
                _ => "none",
            })>
                <button
                    type="button"
                    class="sort"
                    on:click=press(move |_| sort.change(|s| *s = (at, s.0 != at || !s.1)))
                >
                    {label}
                    <span aria-hidden="true">
                        {dynamic(move || match sort.get() {
                            (column, true) if column == at => " ▾",
                            (column, false) if column == at => " ▴",
                            _ => "",
                        })}
                    </span>
                </button>
            </th>
        }
    };
    view! {
        <section class="card" aria-label="Next token candidates" id="candidates">
            <div class="card-head">
                <h2>
                    "Next token"
                    {dynamic(move || session.answer.see(|a| {
                        let after = a.candidates_after?;
                        Some(format!(" after {} ({after})", format::quoted(a.tokens().get(after)?)))
                    }))}
                </h2>
                <Tip about="candidates">
                    "What the model would write next. A token's menu makes it a target or a distractor."
                </Tip>
                <span class="grow"></span>
                <JsonButton what="the candidates" value=json />
            </div>
            <div class="card-body" class:stale=follows(move || session.is_stale())>
                <table class="candidates" class:two=two>
                    <thead>
                        <tr>
                            <th scope="col">"Token"</th>
                            {dynamic(move || if two() {
                                view! { {header(0, "Left")} {header(2, "Diff")} {header(1, "Right")} }.into_any()
                            } else {
                                view! { {header(0, "Logit")} }.into_any()
                            })}
                            <Show when=has_probabilities>
                                {dynamic(move || if two() {
                                    view! {
                                        <th scope="col" class="num">"Left p"</th>
                                        <th scope="col" class="num">"Right p"</th>
                                    }.into_any()
                                } else {
                                    view! { <th scope="col" class="num">"Probability"</th> }.into_any()
                                })}
                            </Show>
                        </tr>
                    </thead>
                    <tbody>
                        {dynamic(move || shown().into_iter().map(|line| view! {
                            <CandidateRow line=line two=two() probabilities=has_probabilities() />
                        }).collect_view())}
                    </tbody>
                </table>
                <Show when=move || !session.answer.see(|a| a.candidates_are_at_the_end())>
                    <p class="small-text quiet">
                        "At the traced node's token. Targets and distractors are asked about after the last token. "
                        {button("button small", "Back to the logits", move |_| session.trace_back(None))}
                    </p>
                </Show>
                {dynamic(move || {
                    let n = lines.see(Vec::len);
                    let label = move || if all.get() { "Show fewer".to_owned() } else { format!("Show all {n}") };
                    let more = || button("button small plain", dynamic(label), move |_| all.change(|a| *a = !*a));
                    (n > FEW).then(more)
                })}
            </div>
        </section>
    }
}

fn lines(answer: &Answer, session: Session, (column, descending): (usize, bool)) -> Vec<CandidateLine> {
    let mut pinned: Vec<(usize, CandidateLine)> = Vec::new();
    let mut rest: Vec<Candidate> = Vec::new();
    for candidate in &answer.candidates {
        match role(candidate, session) {
            Some((place, role)) => {
                pinned.push((place, CandidateLine { candidate: candidate.clone(), role: Some(role), pinned: true }))
            }
            None => rest.push(candidate.clone()),
        }
    }
    sort(&mut pinned, |a, b| a.0.cmp(&b.0));
    let value = |c: &Candidate| match column {
        2 => c.logit_difference(),
        side => c.logits[side],
    };
    sort(&mut rest, |a, b| match (value(a), value(b)) {
        (Some(x), Some(y)) => {
            if descending {
                y.total_cmp(&x)
            } else {
                x.total_cmp(&y)
            }
        }
        (x, y) => y.is_some().cmp(&x.is_some()),
    });
    pinned
        .into_iter()
        .map(|(_, line)| line)
        .chain(rest.into_iter().map(|candidate| CandidateLine { candidate, role: None, pinned: false }))
        .collect()
}

#[component]
fn CandidateRow(line: CandidateLine, two: bool, probabilities: bool) -> impl IntoView {
    let session = Session::get();
    let token = line.candidate.token.clone().unwrap_or_else(|| "<missing>".into());
    let number = |value: Option<f64>, sign: bool| {
        value.map_or_else(
            || view! { <td class="num"></td> }.into_any(),
            |v| {
                view! {
                    <td
                        class=format!("num {}", if sign { sign_class(v) } else { "" })
                        title=format::full(v)
                        data-value=format::full(v)
                    >
                        {if sign { format::short(v) } else { format::number(v) }}
                    </td>
                }
                .into_any()
            },
        )
    };
    let cache = TokenCache::get();
    let (id, label) = (line.candidate.id, token.clone());
    let pick = Callback::new(move |(distractor, add): (bool, bool)| {
        let text = label.clone();
        spawn(async move {
            let token = cache.name(id, text).await;
            let changed = session.page.try_update(|page| {
                if let Some(side) = side_mut(page, false) {
                    let list = tokens_mut(side, distractor);
                    if !add {
                        list.clear();
                    }
                    if !list.contains(&token) {
                        list.push(token);
                    }
                }
            });
            if changed.is_some() {
                session.submit();
            }
        });
    });
    let name = format!("{}: use as target or distractor", format::quoted(&token));
    view! {
        <tr class:pinned=line.pinned>
            <th scope="row">
                <span class="token">{token_text(&token)}</span>
                <Menu label="⋯" name=name class="button plain icon small pick" left=true>
                    {menu_item("Use as target", move |_| pick.run((false, false)))}
                    {menu_item("Use as distractor", move |_| pick.run((true, false)))}
                    {menu_item("Add to targets", move |_| pick.run((false, true)))}
                </Menu>
                {line.role.map(|r| {
                    let rank = line.candidate.rank.map(|n| format!(", rank {n}"));
                    view! { <span class="role">{r}{rank}</span> }
                })}
            </th>
            {number(line.candidate.logits[0], false)}
            {two.then(|| number(line.candidate.logit_difference(), true))}
            {two.then(|| number(line.candidate.logits[1], false))}
            {probabilities.then(|| {
                let shown = line.candidate.probabilities.into_iter().take(if two { 2 } else { 1 });
                shown.map(|p| match p {
                    Some(p) => view! {
                        <td class="num share" title=format::full(p) data-value=format::full(p)>
                            <span class="share-bar" style=format!("--v:{:.3}", share(p, 1.0))></span>
                            <span>{format::percent(p)}</span>
                        </td>
                    }.into_any(),
                    None => view! { <td class="num"></td> }.into_any(),
                }).collect_view()
            })}
        </tr>
    }
}
