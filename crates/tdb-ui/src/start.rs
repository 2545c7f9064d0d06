use leptos::prelude::*;
#[component]
pub fn StartPage() -> impl IntoView {
    view! { <div></div> }
}
