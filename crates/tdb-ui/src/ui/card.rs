//! The top of a card: what it is, a word of explanation, and its tools.

use leptos::prelude::*;

use super::Tip;

#[component]
pub fn CardHead(
    title: &'static str,
    /// What the tip is about.
    about: &'static str,
    tip: &'static str,
    /// Tools, at the end of the line.
    #[prop(optional)]
    children: Option<Children>,
) -> impl IntoView {
    view! {
        <div class="card-head">
            <h2>{title}</h2>
            <Tip about=about>{tip}</Tip>
            {children.map(|children| view! { <span class="grow"></span>{children()} })}
        </div>
    }
}
