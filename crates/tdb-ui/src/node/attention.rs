//! A head's standard scores, and its pattern on the prompt among those of all heads.

use leptos::prelude::*;
use tdb_api::routes::HeadScores;
use tdb_api::{ComponentRequest, NodeType};

use super::Node;
use crate::format;
use crate::remote::{Remote, follow};
use crate::signals::See;
use crate::tdb::patterns::PatternsOn;
use crate::ui::ProblemCard;
use crate::ui::{Show, dynamic};

#[component]
pub fn HeadAttention() -> impl IntoView {
    let node = Node::get();
    let (state, again) = follow::<HeadScores>(move || {
        let a = node.address.get()?;
        let node_type = NodeType::AttentionHead;
        Some(ComponentRequest { node_type, layer_index: a.layer_index, activation_index: a.node_index })
    });
    let chosen = RwSignal::new(None::<(i64, i64)>);
    Effect::new(move |_| chosen.set(node.address.get().map(|a| (a.layer_index, a.node_index))));
    let prompt = Memo::new(move |_| node.query.get().prompts_of_interest.into_iter().next());
    view! {
        <section class="card" aria-label="Attention" id="attention">
            <div class="card-head"><h2>"Attention"</h2></div>
            <div class="card-body stack">
                {dynamic(move || match state.get() {
                    Remote::Ready(scores) => {
                        let (n, sampled) = (scores.repeated_tokens, scores.sampled_tokens);
                        let badges = [
                            ("Previous token", scores.previous_token, format!("mean attention to the token before, on random tokens ({n} that come twice)")),
                            ("Duplicate token", scores.duplicate_token, "mean attention to the earlier occurrence of the same token".to_owned()),
                            ("Induction", scores.induction, "mean attention to the token after the earlier occurrence".to_owned()),
                            ("Copying", scores.copying, format!("share of {sampled} tokens that are among the 5 most promoted when they are attended to, from the embedding alone")),
                        ];
                        view! {
                            <ul class="badges" id="head-scores">
                                {badges.into_iter().map(|(name, value, meaning)| view! {
                                    <li>
                                        <strong title=format::full(value)>{format!("{name} {value:.2}")}</strong>
                                        " "<span class="quiet small-text">{meaning}</span>
                                    </li>
                                }).collect_view()}
                            </ul>
                        }.into_any()
                    }
                    Remote::Failed(problem) => view! { <ProblemCard problem=problem retry=again /> }.into_any(),
                    _ => view! { <div class="skeleton"></div> }.into_any(),
                })}
                <Show
                    when=move || prompt.see(Option::is_some)
                    fallback=|| view! { <p class="quiet">"Run a prompt below to see the patterns on it."</p> }
                >
                    <PatternsOn prompt=prompt chosen=chosen />
                </Show>
            </div>
        </section>
    }
}
