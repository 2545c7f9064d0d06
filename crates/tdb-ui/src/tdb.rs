use leptos::prelude::*;
#[component]
pub fn DebuggerPage() -> impl IntoView { view! { <div></div> } }
