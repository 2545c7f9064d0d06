//! A modal dialog on the browser's own element: it keeps focus inside, closes on Escape, and gives focus back.

use super::press;
use super::{Show, dynamic, follows};
use crate::signals::{RwSignal, Signal, effect};
use leptos::{html, prelude::*};

#[component]
pub fn Dialog(
    open: RwSignal<bool>,
    #[prop(into)] title: Signal<String>,
    /// A drawer stands at the right edge, over the page's full height.
    #[prop(optional)]
    drawer: bool,
    /// As wide as the window.
    #[prop(optional)]
    wide: bool,
    children: ChildrenFn,
) -> impl IntoView {
    let node = NodeRef::<html::Dialog>::new();
    effect(move || {
        let Some(dialog) = node.get() else { return };
        match (open.get(), dialog.open()) {
            (true, false) => {
                let _ = dialog.show_modal();
            }
            (false, true) => dialog.close(),
            _ => {}
        }
    });
    // A press on the backdrop is a press on the dialog element itself: everything visible lies in its children.
    let on_click = move |event: web_sys::MouseEvent| {
        let on_backdrop = event.target().zip(node.get_untracked()).is_some_and(|(target, dialog)| {
            let dialog: &web_sys::EventTarget = dialog.as_ref();
            &target == dialog
        });
        if on_backdrop {
            open.set(false);
        }
    };
    view! {
        <dialog
            node_ref=node
            class:drawer=drawer
            class:wide=wide
            aria-label=follows(move || title.get())
            on:close=move |_| open.set(false)
            on:click=press(on_click)
        >
            <div class="dialog-head">
                <h2 class="grow">{dynamic(move || title.get())}</h2>
                <button
                    type="button"
                    class="button plain icon"
                    aria-label="Close"
                    on:click=press(move |_| open.set(false))
                >
                    "✕"
                </button>
            </div>
            <div class="dialog-body" tabindex="0">
                <Show when=move || open.get()>{children()}</Show>
            </div>
        </dialog>
    }
}
