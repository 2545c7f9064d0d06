//! A word of explanation behind an `i`: by pointer, focus or press; Escape dismisses it.

use super::{Show, follows};
use super::{keyed, press};
use crate::signals::{Change, RwSignal};
use leptos::prelude::*;

#[component]
pub fn Tip(
    /// What is explained, for the button's name.
    about: &'static str,
    /// Opens towards the left, for tips near the right edge.
    #[prop(optional)]
    end: bool,
    children: ChildrenFn,
) -> impl IntoView {
    let hovered = RwSignal::new(false);
    let pressed = RwSignal::new(false);
    let open = move || hovered.get() || pressed.get();
    let children = StoredValue::new(children);
    view! {
        <span
            class="tip"
            class:end=end
            on:mouseenter=move |_| hovered.set(true)
            on:mouseleave=move |_| hovered.set(false)
        >
            <button
                type="button"
                aria-label=format!("About {about}")
                aria-expanded=follows(move || open().to_string())
                on:click=press(move |_| pressed.change(|p| *p = !*p))
                on:blur=move |_| pressed.set(false)
                on:keydown=keyed(move |e| {
                    if e.key() == "Escape" && open() {
                        e.stop_propagation();
                        pressed.set(false);
                        hovered.set(false);
                    }
                })
            >
                "i"
            </button>
            <Show when=open>
                <span class="tip-text" role="tooltip">
                    {children.with_value(|c| c())}
                </span>
            </Show>
        </span>
    }
}
