use leptos::prelude::*;
#[component]
pub fn NodePage() -> impl IntoView {
    view! { <div></div> }
}
