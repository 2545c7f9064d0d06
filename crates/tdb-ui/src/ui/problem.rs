//! What went wrong, where it went wrong, with a way out.

use leptos::prelude::*;

use super::button;
use crate::client::{Kind, Problem, capital};

fn heading(problem: &Problem) -> &'static str {
    match problem.kind {
        Kind::Unreachable => "No answer",
        Kind::CutOff => "Half an answer",
        Kind::Refused(404) => "Not there",
        Kind::Refused(400..500) => "This question can't be run",
        Kind::Refused(_) => "The server failed",
        Kind::Unreadable => "Not understood",
        Kind::Aborted => "",
    }
}

/// A card's own error, with a button that tries again.
#[component]
pub fn ProblemCard(problem: Problem, #[prop(optional)] retry: Option<Callback<()>>) -> impl IntoView {
    view! {
        <div class="problem" role="alert">
            <div class="grow">
                <strong>{heading(&problem)}</strong>
                ". "
                {capital(&problem.message)}
            </div>
            // What the server refuses once it refuses again.
            {retry
                .filter(|_| !matches!(problem.kind, Kind::Refused(400..=428 | 430..=499)))
                .map(|retry| button("button small", "Try again", move |_| retry.run(())))}
        </div>
    }
}
