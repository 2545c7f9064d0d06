//! Questions that have an instructive answer, each with what to look for.

use leptos::prelude::*;
use tdb_api::page::PageState;

use crate::server::Server;
use crate::ui::token_text;

struct Example {
    title: &'static str,
    prompt: &'static str,
    target: &'static str,
    distractor: &'static str,
    look: &'static str,
}

const EXAMPLES: [Example; 6] = [
    Example {
        title: "Indirect object",
        prompt: "When Mary and John went to the store, John gave a drink to",
        target: " Mary",
        distractor: " John",
        look: "Heads in late layers that attend from “ to” back to “ Mary” and write her name. Ablate the strongest, \
            then trace its query: who told it to look away from the name that came twice?",
    },
    Example {
        title: "Capitals",
        prompt: "Paris, France. Ottawa,",
        target: " Canada",
        distractor: " Germany",
        look: "MLP neurons at “ Ottawa” that know the country, and a head that carries what they wrote to the last \
            comma.",
    },
    Example {
        title: "Greater than",
        prompt: "The war lasted from the year 1732 to the year 17",
        target: "45",
        distractor: "12",
        look: "Heads that read “32” from the end, and neurons after them that favour every larger number at once.",
    },
    Example {
        title: "Induction",
        prompt: "Say: lamp tree king, lamp tree",
        target: " king",
        distractor: " lamp",
        look: "A head at the last “ tree” that attends to the word after the first one. Trace its key: a head one \
            layer down has told that place what came before it.",
    },
    Example {
        title: "Pronoun",
        prompt: "When Mary came back from the park,",
        target: " she",
        distractor: " he",
        look: "A head that reads the name from the comma, and the embedding of the name itself, which already leans \
            one way.",
    },
    Example {
        title: "Who else?",
        prompt: "When Mary and John went to the store, Mary gave a drink to",
        target: " John",
        distractor: " Mary",
        look: "The first question with the names' roles exchanged. Add a second prompt to compare the two token by \
            token: which heads follow the name, and which its place?",
    },
];

#[component]
pub fn Examples() -> impl IntoView {
    let server = Server::get();
    let base = move || server.facts.get().and_then(|f| f.slug()).map(|s| s.debugger_path());
    view! {
        <div class="examples">
            {EXAMPLES.iter().map(|e| {
                // As the model's texts begin.
                let prompt = move || {
                    let beginning = server.facts.get().map(|facts| facts.beginning_of_text()).unwrap_or_default();
                    format!("{beginning}{}", e.prompt)
                };
                let href = move || base().map(|base| {
                    let mut state = PageState::default();
                    state.left.prompt = prompt();
                    state.left.target_tokens = vec![e.target.into()];
                    state.left.distractor_tokens = vec![e.distractor.into()];
                    let query = state.to_query();
                    if query.is_empty() { base } else { format!("{base}?{query}") }
                });
                view! {
                    <a class="card example" href=href>
                        <h3>{e.title}</h3>
                        <span class="example-prompt">{prompt}</span>
                        <span>
                            <span class="token">{token_text(e.target)}</span>
                            " rather than "
                            <span class="token">{token_text(e.distractor)}</span>
                            "?"
                        </span>
                        <span class="why">{e.look}</span>
                    </a>
                }
            }).collect_view()}
        </div>
    }
}
