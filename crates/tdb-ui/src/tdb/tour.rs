//! A tour through one question, step by step. What it says is tried by a test (`tests/tests/statements.rs`).

use leptos::prelude::*;
use tdb_api::page::TOUR;

use crate::session::Session;
use crate::signals::{Change, Memo, See};
use crate::ui::{Show, button, dynamic};
use crate::view::ViewState;

/// Goes to a step, counted from 1; beyond the last one the tour ends where it is.
fn go(session: Session, step: usize) {
    match TOUR.get(step.wrapping_sub(1)) {
        Some(to) => {
            let view = ViewState { tour: Some(step), ..ViewState::default() };
            session.open(to.example.state(Some(&to.statement)), view);
        }
        None => session.view.change(|v| v.tour = None),
    }
}

#[component]
pub fn Tour() -> impl IntoView {
    let session = Session::get();
    let step = Memo::new(move |_| session.view.see(|v| v.tour).filter(|step| (1..=TOUR.len()).contains(step)));
    view! {
        {dynamic(move || step.get().map(|step| {
            let here = &TOUR[step - 1];
            view! {
                <section class="card tour" aria-label="Tour" id="tour">
                    <div class="card-head">
                        <h2>{here.title}</h2>
                        <span class="quiet">{format!("step {step} of {}", TOUR.len())}</span>
                        <span class="grow"></span>
                        <Show when=move || { step > 1 }>
                            {button("button small", "Back", move |_| go(session, step - 1))}
                        </Show>
                        {button(
                            "button small primary",
                            if step < TOUR.len() { "Next" } else { "Done" },
                            move |_| go(session, step + 1),
                        )}
                        <Show when=move || { step < TOUR.len() }>
                            {button("button small plain", "Skip the tour", move |_| go(session, 0))}
                        </Show>
                    </div>
                    <p class="card-body" aria-live="polite">{here.statement.text()}</p>
                </section>
            }
        }))}
    }
}
