//! Boxes for single tokens, with completion from the vocabulary and a word at once on whether it is one token.

use leptos::prelude::*;
use leptos::task::spawn_local;
use tdb_api::TokenRef;

use super::ask_bar::{Field, field_of, side, side_mut};
use crate::lexicon::Lexicon;
use crate::session::Session;
use crate::ui::{Tip, token_text};

#[component]
pub fn TokenList(right: bool, distractor: bool) -> impl IntoView {
    let session = Session::get();
    let count = Memo::new(move |_| {
        session.page.with(|p| {
            side(p, right).map_or(0, |s| if distractor { s.distractor_tokens.len() } else { s.target_tokens.len() })
        })
    });
    let change = move |f: &dyn Fn(&mut Vec<TokenRef>)| {
        session.page.update(|page| {
            if let Some(side) = side_mut(page, right) {
                f(if distractor { &mut side.distractor_tokens } else { &mut side.target_tokens });
            }
        });
    };
    let least = if distractor { 0 } else { 1 };
    let what = if distractor { "distractor" } else { "target" };
    view! {
        <div class="token-list" class:distractor=distractor role="group" aria-label=if distractor { "Distractor tokens" } else { "Target tokens" }>
            <div class="field-head">
                <span class="label">{if distractor { "Distractor" } else { "Target" }}</span>
                {if distractor {
                    view! { <Tip about="distractors">"The token to compare with. What favours it counts as negative. It may be left out."</Tip> }.into_any()
                } else {
                    view! { <Tip about="targets">"The token whose logit is asked about. What favours it counts as positive."</Tip> }.into_any()
                }}
            </div>
            <div class="token-boxes">
                {move || (0..count.get()).map(|at| view! {
                    <TokenBox right=right distractor=distractor at=at />
                }).collect_view()}
                <button type="button" class="button small plain icon" aria-label=format!("Add a {what} token") title=format!("Add a {what} token") on:click=move |_| change(&|tokens| tokens.push(TokenRef::default()))>
                    "+"
                </button>
                <Show when=move || { count.get() > least }>
                    <button type="button" class="button small plain icon" aria-label=format!("Remove the last {what} token") title=format!("Remove the last {what} token") on:click=move |_| change(&|tokens| { tokens.pop(); })>
                        "−"
                    </button>
                </Show>
            </div>
        </div>
    }
}

#[component]
fn TokenBox(right: bool, distractor: bool, at: usize) -> impl IntoView {
    let session = Session::get();
    let lexicon = Lexicon::get();
    let id = format!("{}{}-{at}", if distractor { "distractor" } else { "target" }, if right { "-right" } else { "" });
    let list_id = format!("{id}-list");
    let named = Memo::new(move |_| {
        session.page.with(|p| {
            let side = side(p, right);
            let tokens = side.map(|s| if distractor { &s.distractor_tokens } else { &s.target_tokens });
            tokens.and_then(|t| t.get(at)).cloned().unwrap_or_default()
        })
    });
    let text = Memo::new(move |_| named.with(|n| n.text().to_owned()));
    let by_id = move || named.with(TokenRef::id);
    let tokens = lexicon.follow(move || text.get());
    let suggestions = RwSignal::new(Vec::<TokenRef>::new());
    let open = RwSignal::new(false);
    let active = RwSignal::new(None::<usize>);
    let edit = move |value: TokenRef| {
        session.page.update(|page| {
            if let Some(side) = side_mut(page, right) {
                let tokens = if distractor { &mut side.distractor_tokens } else { &mut side.target_tokens };
                if let Some(token) = tokens.get_mut(at) {
                    *token = value;
                }
            }
        });
    };
    let suggest = move |prefix: String| {
        spawn_local(async move {
            let found = lexicon.complete(prefix.clone()).await;
            if text.try_with_untracked(|t| *t == prefix) == Some(true) {
                suggestions.set(found.into_iter().filter(|s| *s != TokenRef::Text(prefix.clone())).collect());
                active.set(None);
            }
        });
    };
    let choose = move |token: TokenRef| {
        edit(token);
        open.set(false);
        suggestions.set(Vec::new());
    };
    let on_key = move |event: web_sys::KeyboardEvent| {
        let n = suggestions.with_untracked(Vec::len);
        let is_open = open.get_untracked() && n > 0;
        match event.key().as_str() {
            "ArrowDown" if n > 0 => {
                event.prevent_default();
                open.set(true);
                active.update(|a| *a = Some(a.map_or(0, |i| (i + 1) % n)));
            }
            "ArrowUp" if is_open => {
                event.prevent_default();
                active.update(|a| *a = Some(a.map_or(n - 1, |i| (i + n - 1) % n)));
            }
            "Enter" if is_open && active.get_untracked().is_some() && !event.ctrl_key() && !event.meta_key() => {
                event.prevent_default();
                if let Some(token) =
                    active.get_untracked().and_then(|i| suggestions.with_untracked(|s| s.get(i).cloned()))
                {
                    choose(token);
                }
            }
            "Escape" if is_open => {
                event.stop_propagation();
                open.set(false);
            }
            _ => {}
        }
    };
    let role = if distractor { Field::Distractor { right, at } } else { Field::Target { right, at } };
    let problem = Memo::new(move |_| {
        let told = session.problem.get().filter(|p| field_of(p) == Some(role)).map(|p| p.message);
        let tokens = tokens.get().filter(|t| text.with(|x| *x == t.of));
        told.or_else(|| match tokens {
            _ if by_id().is_some() => None,
            _ if text.with(|t| t.is_empty()) => Some("A token is needed here.".to_owned()),
            Some(t) if t.count != 1 => {
                let parts: Vec<_> = t.spans.iter().map(|s| crate::format::quoted(&s.text)).collect();
                Some(format!("{} tokens: {}", t.count, parts.join(" ")))
            }
            _ => None,
        })
    });
    let warning = move || {
        let bare = text.with(|t| t.starts_with(|c: char| c.is_alphanumeric()));
        (bare && problem.with(Option::is_none)).then_some("does not start with a space")
    };
    let option_id = {
        let list_id = list_id.clone();
        move |i: usize| format!("{list_id}-{i}")
    };
    let active_id = {
        let option_id = option_id.clone();
        move || active.get().map(&option_id)
    };
    let label = format!("{} token {}", if distractor { "Distractor" } else { "Target" }, at + 1);
    view! {
        <div class="token-box">
            <div class="token-input" class:invalid=move || problem.with(Option::is_some)>
                <span class="token-back" aria-hidden="true">{move || text.with(|t| token_text(t))}</span>
                <input
                    id=id.clone()
                    type="text"
                    role="combobox"
                    aria-label=label
                    aria-expanded=move || (open.get() && suggestions.with(|s| !s.is_empty())).to_string()
                    aria-controls=list_id.clone()
                    aria-autocomplete="list"
                    aria-activedescendant=active_id
                    aria-invalid=move || problem.with(Option::is_some).to_string()
                    aria-describedby=format!("{id}-problem")
                    autocomplete="off"
                    autocapitalize="off"
                    spellcheck="false"
                    prop:value=move || text.get()
                    on:input=move |e| {
                        let value = event_target_value(&e);
                        edit(value.clone().into());
                        open.set(true);
                        suggest(value);
                    }
                    on:blur=move |_| open.set(false)
                    on:keydown=on_key
                />
            </div>
            <div class="token-note" id=format!("{id}-problem") aria-live="polite">
                {move || problem.get().map(|p| view! { <span class="field-error">{p}</span> })}
                {move || by_id().map(|id| view! { <span class="field-warning">{format!("token {id}")}</span> })}
                {move || warning().map(|w| view! { <span class="field-warning">{w}</span> })}
            </div>
            <ul class="suggestions" id=list_id role="listbox" aria-label="Tokens of the vocabulary" hidden=move || !(open.get() && suggestions.with(|s| !s.is_empty()))>
                {move || suggestions.get().into_iter().enumerate().map(|(i, token)| {
                    let chosen = token.clone();
                    view! {
                        <li
                            id=option_id(i)
                            role="option"
                            aria-selected=move || (active.get() == Some(i)).to_string()
                            on:mousedown=move |e| {
                                // Before the field loses the focus, or the list would be gone.
                                e.prevent_default();
                                choose(chosen.clone());
                            }
                        >
                            <span class="token">{token_text(token.text())}</span>
                            {token.id().map(|id| format!(" token {id}"))}
                        </li>
                    }
                }).collect_view()}
            </ul>
        </div>
    }
}
