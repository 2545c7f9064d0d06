//! Every question of this visit with its outcome: more than two conditions side by side.

use leptos::prelude::*;
use tdb_api::TokenRef;
use tdb_api::page::SideState;

use super::interventions::describe;
use crate::answer::Answer;
use crate::format;
use crate::session::Session;
use crate::signals::See;
use crate::ui::{CollectView, Show, Tip, dynamic, press};

#[component]
pub fn Runs() -> impl IntoView {
    let session = Session::get();
    view! {
        <Show when=move || session.runs.see(|r| r.len() > 1)>
            <section class="card" aria-label="Runs" id="runs">
                <div class="card-head">
                    <h2>"Runs of this visit"</h2>
                    <Tip about="runs">
                        "Each question asked since the page was opened. Press one to go back to it; its answer is kept."
                    </Tip>
                </div>
                <div class="card-body scroll-x" tabindex="0" role="group" aria-label="Runs">
                    <table class="runs">
                        <thead>
                            <tr>
                                <th scope="col">"Run"</th>
                                <th scope="col">"Changed"</th>
                                <th scope="col" class="num">"Left"</th>
                                <th scope="col" class="num">"Right"</th>
                            </tr>
                        </thead>
                        <tbody>
                            {dynamic(move || session.runs.get().into_iter().rev().map(|run| {
                                let present = session.asked.see(|a| a.as_ref() == Some(&run.page));
                                let what = session.answer.see(|answer| asked(&run.page.left, answer));
                                let cell = |i: usize| match run.loss[i].or(run.activation[i]) {
                                    Some(v) => view! {
                                        <td class="num" title=format::full(v)>{format::signed(v)}</td>
                                    }.into_any(),
                                    None => view! { <td></td> }.into_any(),
                                };
                                let (left, right) = (cell(0), cell(1));
                                let page = run.page.clone();
                                view! {
                                    <tr class:present=present>
                                        <th scope="row">
                                            <button
                                                type="button"
                                                class="button small plain"
                                                aria-current=present.then_some("true")
                                                on:click=press(move |_| {
                                                    let view = session.view.get_untracked();
                                                    session.open(page.clone(), view);
                                                })
                                            >
                                                {run.id}
                                            </button>
                                        </th>
                                        <td class="what" title=format!("{}\n{what}", run.page.left.prompt)>
                                            {what.clone()}
                                        </td>
                                        {left}
                                        {right}
                                    </tr>
                                }
                            }).collect_view())}
                        </tbody>
                    </table>
                </div>
            </section>
        </Show>
    }
}

/// What was ablated and traced; without either, the targets.
fn asked(side: &SideState, answer: &Answer) -> String {
    let ablated = side.node_ablations.iter().map(|a| format!("{} = {}", describe(&a.node_index, answer), a.value));
    let traced = side.upstream_node_to_trace.iter().map(|t| format!("trace {}", describe(&t.node_index, answer)));
    let parts: Vec<String> = ablated.chain(traced).collect();
    match parts.is_empty() {
        true => side.target_tokens.iter().map(TokenRef::to_string).collect::<Vec<_>>().join(" "),
        false => parts.join("; "),
    }
}
