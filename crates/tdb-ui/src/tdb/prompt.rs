//! The prompt, with the borders of its tokens drawn behind the text as it is typed.

use leptos::prelude::*;

use super::question::{Field, field_of, side, side_mut};
use crate::format;
use crate::server::Server;
use crate::session::Session;
use crate::signals::{Change, Memo, See, Signal};
use crate::token_cache::Tokens;
use crate::ui::{CollectView, Tip, dynamic, entered, follows};

#[component]
pub fn PromptEditor(right: bool, label: Signal<String>, tokens: Signal<Option<Tokens>>) -> impl IntoView {
    let session = Session::get();
    let server = Server::get();
    let id = if right { "prompt-right" } else { "prompt" };
    let text = Memo::new(move |_| session.page.see(|p| side(p, right).map(|s| s.prompt.clone()).unwrap_or_default()));
    let limit = move || {
        server.facts.get().and_then(|f| f.server).map_or(500, |s| {
            s.shape.map_or(s.limits.max_prompt_tokens, |shape| shape.context_length.min(s.limits.max_prompt_tokens))
        })
    };
    let count = move || tokens.get().filter(|t| text.see(|x| *x == t.of)).map(|t| t.count);
    let too_long = move || count().is_some_and(|n| n as i64 > limit());
    // What the page knows itself it says first: it knows the model's limit, too.
    let own = move || {
        if text.see(|t| t.is_empty()) {
            return Some("The prompt is empty; the question is about the token that follows it.".to_owned());
        }
        too_long().then(|| {
            let found = format::count(count().unwrap_or_default() as u64);
            format!("{found} tokens; this model reads at most {}.", limit())
        })
    };
    let told =
        move || session.problem.get().filter(|p| field_of(p) == Some(Field::Prompt { right })).map(|p| p.message);
    let problem = Memo::new(move |_| own().or_else(told));
    let warning = move || {
        text.see(|t| t.ends_with(' '))
            .then_some("The prompt ends with a space: the next word would begin with another one.")
    };
    let edit = move |value: String| {
        session.page.change(|page| {
            if let Some(side) = side_mut(page, right) {
                side.prompt = value;
            }
        });
    };
    // Borders are those of the last text that the server saw; where the text has gone on, the rest is plain.
    let backdrop = move || {
        let text = text.get();
        let Some(tokens) = tokens.get() else { return vec![(text, None)] };
        let mut rest = text.as_str();
        let mut parts = Vec::new();
        for (i, span) in tokens.spans.iter().enumerate() {
            let Some(after) = rest.strip_prefix(span.text.as_str()) else { break };
            parts.push((span.text.clone(), Some(i % 2 == 1)));
            rest = after;
        }
        parts.push((rest.to_owned(), None));
        parts
    };
    view! {
        <div class="prompt-field">
            <div class="field-head">
                <label class="label" for=id>{dynamic(move || label.get())}</label>
                <Tip about="the prompt">
                    "The text before the token in question. "
                    {move || {
                        let begin = server.facts.get().map(|facts| facts.beginning_of_text());
                        begin.filter(|begin| !begin.is_empty()).map(|begin| {
                            format!("This model has seen {begin} before every text, so begin with it; it is not put \
                                there by itself.")
                        })
                    }}
                </Tip>
                <span class="grow"></span>
                <span class="label" class:field-error=too_long id=format!("{id}-count") aria-live="off">
                    {dynamic(move || count().map(|n| format!("{n} / {} tokens", limit())))}
                </span>
            </div>
            <div class="prompt-box">
                <div class="prompt-back" aria-hidden="true">
                    {dynamic(move || backdrop().into_iter().map(|(part, odd)| match odd {
                        Some(odd) => view! { <span class="piece" class:odd=odd>{part}</span> }.into_any(),
                        None => part.into_any(),
                    }).collect_view())}
                    "\u{200b}"
                </div>
                <textarea
                    id=id
                    rows="1"
                    spellcheck="false"
                    autocapitalize="off"
                    autocomplete="off"
                    aria-invalid=follows(move || problem.get().is_some().to_string())
                    aria-describedby=format!("{id}-count {id}-problem")
                    prop:value=follows(move || text.get())
                    on:input=entered(move |e| edit(event_target_value(&e)))
                ></textarea>
            </div>
            <div class="field-problem" id=format!("{id}-problem") aria-live="polite">
                {dynamic(move || problem.get().map(|p| view! { <div class="field-error">{p}</div> }))}
                {dynamic(move || warning().map(|w| view! { <div class="field-warning">"Warning: "{w}</div> }))}
            </div>
        </div>
    }
}
