//! Questions that have an instructive answer, each with statements that a press tries out.

use leptos::prelude::*;
use tdb_api::page::{EXAMPLES, EXAMPLES_MODEL, Example, Statement};

use crate::server::{Facts, Server};
use crate::signals::{Memo, See};
use crate::ui::{CollectView, Show, token_text};

/// The address of a question, or of a statement about it; the prompt begins as the model's texts do.
fn href(base: &str, beginning: &str, example: &Example, statement: Option<&Statement>) -> String {
    let mut state = example.state(statement);
    state.left.prompt = example.prompt_after(beginning);
    match state.to_query() {
        query if query.is_empty() => base.to_owned(),
        query => format!("{base}?{query}"),
    }
}

#[component]
pub fn Examples() -> impl IntoView {
    let server = Server::get();
    let slug = Memo::new(move |_| server.facts.get().and_then(|f| f.slug()));
    // Another model has been taught other things.
    let is_described = move || slug.see(|s| s.as_ref().is_some_and(|s| s.model == EXAMPLES_MODEL));
    let beginning =
        Memo::new(move |_| server.facts.see(|f| f.as_ref().map(Facts::beginning_of_text)).unwrap_or_default());
    let address = move |example: &'static Example, statement: Option<&'static Statement>| {
        move || slug.get().map(|s| beginning.see(|b| href(&s.debugger_path(), b, example, statement)))
    };
    view! {
        <div class="examples">
            {EXAMPLES.iter().map(|e| view! {
                <article class="card example-card">
                    <a class="example" href=address(e, None)>
                        <h3>{e.title}</h3>
                        <span class="example-prompt">{move || beginning.see(|b| e.prompt_after(b))}</span>
                        <span>
                            <span class="token">{token_text(e.target)}</span>
                            " rather than "
                            <span class="token">{token_text(e.distractor)}</span>
                            "?"
                        </span>
                    </a>
                    <Show when=is_described>
                        <ul class="statements">
                            {e.statements.iter().map(|s| view! {
                                <li>
                                    {s.text()}
                                    {(!s.held.is_empty()).then(|| view! {
                                        " "
                                        <a href=address(e, Some(s)) aria-label=format!("Try: {}", s.text())>"Try it"</a>
                                    })}
                                </li>
                            }).collect_view()}
                        </ul>
                    </Show>
                </article>
            }).collect_view()}
        </div>
    }
}
