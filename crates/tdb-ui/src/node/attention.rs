//! A head's standard scores, and its pattern on the prompt among those of all heads.

use leptos::prelude::*;
use tdb_api::routes::HeadScores;
use tdb_api::{ComponentRequest, NodeType};

use super::Node;
use crate::format;
use crate::remote::{Remote, follow};
use crate::signals::{Memo, RwSignal, See, effect};
use crate::tdb::patterns::PatternsOn;
use crate::ui::{CollectView, ProblemCard, Show, dynamic};

#[component]
pub fn HeadAttention() -> impl IntoView {
    let node = Node::get();
    let (state, again) = follow::<HeadScores>(move || {
        let a = node.address.get()?;
        let node_type = NodeType::AttentionHead;
        Some(ComponentRequest { node_type, layer_index: a.layer_index, activation_index: a.node_index })
    });
    let chosen = RwSignal::new(None::<(i64, i64)>);
    effect(move || chosen.set(node.address.get().map(|a| (a.layer_index, a.node_index))));
    let prompt = Memo::new(move |_| node.query.get().prompts_of_interest.into_iter().next());
    view! {
        <section class="card" aria-label="Attention" id="attention">
            <div class="card-head"><h2>"Attention"</h2></div>
            <div class="card-body stack">
                {dynamic(move || match state.get() {
                    Remote::Ready(scores) => {
                        let (n, sampled) = (scores.repeated_tokens, scores.sampled_tokens);
                        let copying = format!("share of {sampled} words that are among the 5 most promoted when they \
                            are attended to, from the embedding alone");
                        let previous = (scores.previous_token, scores.previous_token_chance);
                        let duplicate = "mean attention to the earlier occurrence of the same token";
                        let induction = "mean attention to the token after the earlier occurrence";
                        let badges = [
                            ("Previous token", previous.0, previous.1, "mean attention to the token before"),
                            ("Duplicate token", scores.duplicate_token, scores.repeat_chance, duplicate),
                            ("Induction", scores.induction, scores.repeat_chance, induction),
                            ("Copying", scores.copying, scores.copying_chance, &copying),
                        ];
                        view! {
                            <ul class="badges" id="head-scores">
                                {badges.into_iter().map(|(name, value, chance, meaning)| view! {
                                    <li>
                                        <strong title=format::full(value)>{format!("{name} {value:.2}")}</strong>
                                        {format!(" (chance {}) ", format::number(chance))}
                                        <span class="quiet small-text">{meaning.to_owned()}</span>
                                    </li>
                                }).collect_view()}
                            </ul>
                            <p class="quiet small-text">
                                {format!("The first three are taken over {n} random words of the vocabulary, written \
                                    twice. A model that was taught few kinds of text can be near chance there although \
                                    the head does so on texts of those kinds: run one below.")}
                            </p>
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
