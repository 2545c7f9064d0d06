//! Boxes for single tokens, with completion from the vocabulary and a word at once on whether it is one token.

use leptos::prelude::*;
use tdb_api::TokenRef;

use super::question::{Field, field_of, side, side_mut, tokens, tokens_mut};
use crate::format;
use crate::session::Session;
use crate::signals::{Change, Memo, RwSignal, See, Signal};
use crate::tasks::spawn;
use crate::token_cache::{TokenCache, Tokens};
use crate::ui::{CollectView, Combobox, Show, Tip, dynamic, icon_button};

#[component]
pub fn TokenList(right: bool, distractor: bool) -> impl IntoView {
    let session = Session::get();
    let count = Memo::new(move |_| session.page.see(|p| side(p, right).map_or(0, |s| tokens(s, distractor).len())));
    let change = move |f: &dyn Fn(&mut Vec<TokenRef>)| {
        session.page.change(|page| {
            if let Some(side) = side_mut(page, right) {
                f(tokens_mut(side, distractor));
            }
        });
    };
    let least = if distractor { 0 } else { 1 };
    let what = if distractor { "distractor" } else { "target" };
    view! {
        <div
            class="token-list"
            class:distractor=distractor
            role="group"
            aria-label=if distractor { "Distractor tokens" } else { "Target tokens" }
        >
            <div class="field-head">
                <span class="label">{if distractor { "Distractor" } else { "Target" }}</span>
                {if distractor {
                    view! {
                        <Tip about="distractors">
                            "The token to compare with. What favours it counts as negative. Left empty, the target's \
                                logit itself is asked about."
                        </Tip>
                    }.into_any()
                } else {
                    view! {
                        <Tip about="targets">
                            "The token whose logit is asked about. What favours it counts as positive."
                        </Tip>
                    }.into_any()
                }}
            </div>
            <div class="token-boxes">
                {dynamic(move || (0..count.get()).map(|at| view! {
                    <TokenBox right=right distractor=distractor at=at />
                }).collect_view())}
                {icon_button(format!("Add a {what} token"), "", "+", || false, move |_| {
                    change(&|tokens| tokens.push(TokenRef::default()));
                })}
                <Show when=move || { count.get() > least }>
                    {icon_button(format!("Remove the last {what} token"), "", "−", || false, move |_| {
                        change(&|tokens| {
                            tokens.pop();
                        });
                    })}
                </Show>
            </div>
        </div>
    }
}

#[component]
fn TokenBox(right: bool, distractor: bool, at: usize) -> impl IntoView {
    let session = Session::get();
    let token_cache = TokenCache::get();
    let what = if distractor { "distractor" } else { "target" };
    let id = format!("{what}{}-{at}", if right { "-right" } else { "" });
    let problem_id = format!("{id}-problem");
    let named = Memo::new(move |_| {
        session.page.see(|p| side(p, right).and_then(|s| tokens(s, distractor).get(at).cloned()).unwrap_or_default())
    });
    let text = Memo::new(move |_| named.see(|token| token.text().to_owned()));
    let by_id = move || named.see(TokenRef::id);
    let edit = move |value: TokenRef| {
        session.page.change(|page| {
            if let Some(token) = side_mut(page, right).and_then(|s| tokens_mut(s, distractor).get_mut(at)) {
                *token = value;
            }
        });
    };
    let suggestions = RwSignal::new(Vec::<TokenRef>::new());
    let on_input = Callback::new(move |value: String| {
        edit(value.clone().into());
        spawn(async move {
            let found = token_cache.complete(value.clone()).await;
            if text.try_get_untracked().as_ref() == Some(&value) {
                suggestions.set(found.into_iter().filter(|s| *s != TokenRef::Text(value.clone())).collect());
            }
        });
    });
    let field = if distractor { Field::Distractor { right, at } } else { Field::Target { right, at } };
    let split = token_cache.follow(move || text.get());
    let problem = Memo::new(move |_| {
        let told = session.problem.get().filter(|p| field_of(p) == Some(field)).map(|p| p.message);
        // A distractor may be left empty, a target may not.
        let is_left_out = distractor && text.see(|t| t.is_empty());
        let own = || by_id().is_none().then(|| text.see(|text| wrong(text, split.get()))).flatten();
        told.or_else(|| if is_left_out { None } else { own() })
    });
    let warning = move || {
        let bare = text.see(|t| t.starts_with(|c: char| c.is_alphanumeric()));
        (bare && problem.see(Option::is_none)).then_some("does not start with a space")
    };
    view! {
        <div class="token-box">
            <Combobox
                id=id
                label=format!("{} token {}", if distractor { "Distractor" } else { "Target" }, at + 1)
                list_label="Tokens of the vocabulary"
                text=text
                suggestions=suggestions
                invalid=Signal::derive(move || problem.see(Option::is_some))
                described_by=problem_id.clone()
                on_input=on_input
                on_choose=Callback::new(edit)
            />
            <div class="token-note" id=problem_id aria-live="polite">
                {dynamic(move || problem.get().map(|p| view! { <span class="field-error">{p}</span> }))}
                {dynamic(move || by_id().map(|id| view! {
                    <span class="field-warning">{format!("token {id}")}</span>
                }))}
                {dynamic(move || warning().map(|w| view! { <span class="field-warning">{w}</span> }))}
            </div>
        </div>
    }
}

/// Why a text is not one token, as far as that is known.
fn wrong(text: &str, split: Option<Tokens>) -> Option<String> {
    if text.is_empty() {
        return Some("A token is needed here.".to_owned());
    }
    let split = split.filter(|tokens| tokens.of == text && tokens.count != 1)?;
    let parts: Vec<_> = split.spans.iter().map(|s| format::quoted(&s.text)).collect();
    Some(format!("{} tokens: {}", split.count, parts.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token_cache::Span;

    #[test]
    fn a_text_of_several_tokens_is_told_by_them() {
        let span = |text: &str| Span { text: text.into(), tokens: 1 };
        let split = Tokens { of: " ab".into(), spans: vec![span(" a"), span("b")], count: 2 };
        assert_eq!(wrong(" ab", Some(split.clone())).as_deref(), Some("2 tokens: “ a” “b”"));
        assert_eq!(wrong(" abc", Some(split)), None, "another text's tokens say nothing");
        assert_eq!(wrong(" ab", None), None);
        assert!(wrong("", None).is_some());
    }
}
