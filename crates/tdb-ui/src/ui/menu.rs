//! A button with a menu: arrows move, Escape and a press elsewhere close, focus returns to the button.

use super::{Show, dynamic, follows};
use super::{keyed, press};
use crate::signals::{Change, RwSignal, Signal, effect};
use leptos::{html, prelude::*};
use wasm_bindgen::JsCast;

#[component]
pub fn Menu(
    #[prop(into)] label: Signal<String>,
    /// What a screen reader says when the label is only a sign.
    #[prop(optional, into)]
    name: Option<String>,
    #[prop(default = "button small")] class: &'static str,
    #[prop(optional)] left: bool,
    children: ChildrenFn,
) -> impl IntoView {
    let open = RwSignal::new(false);
    let anchor = NodeRef::<html::Div>::new();
    let button = NodeRef::<html::Button>::new();
    let close = move || {
        open.set(false);
        if let Some(button) = button.get_untracked() {
            let _ = button.focus();
        }
    };
    let items = move || -> Vec<web_sys::HtmlElement> {
        let Some(anchor) = anchor.get_untracked() else { return Vec::new() };
        let Ok(list) = anchor.query_selector_all("[role=menu] button:not(:disabled), [role=menu] a") else {
            return Vec::new();
        };
        (0..list.length()).filter_map(|i| list.item(i)?.dyn_into().ok()).collect()
    };
    effect(move || {
        if open.get()
            && let Some(first) = items().first()
        {
            let _ = first.focus();
        }
    });
    let on_key = move |event: web_sys::KeyboardEvent| {
        if !open.get_untracked() {
            return;
        }
        let items = items();
        let active = document().active_element();
        let at = items.iter().position(|i| active.as_ref().is_some_and(|a| i.is_same_node(Some(a)))).unwrap_or(0);
        let to = match event.key().as_str() {
            "Escape" => {
                event.stop_propagation();
                return close();
            }
            "ArrowDown" => (at + 1) % items.len().max(1),
            "ArrowUp" => (at + items.len().max(1) - 1) % items.len().max(1),
            "Home" => 0,
            "End" => items.len().saturating_sub(1),
            _ => return,
        };
        event.prevent_default();
        if let Some(item) = items.get(to) {
            let _ = item.focus();
        }
    };
    let on_leave = move |event: web_sys::FocusEvent| {
        let stays = event
            .related_target()
            .and_then(|t| t.dyn_into::<web_sys::Node>().ok())
            .zip(anchor.get_untracked())
            .is_some_and(|(node, anchor)| anchor.contains(Some(&node)));
        if !stays {
            open.set(false);
        }
    };
    let children = StoredValue::new(children);
    view! {
        <div class="menu-anchor" node_ref=anchor on:keydown=keyed(on_key) on:focusout=on_leave>
            <button
                type="button"
                node_ref=button
                class=class
                aria-haspopup="menu"
                aria-expanded=follows(move || open.get().to_string())
                aria-label=name.clone()
                title=name
                on:click=press(move |_| open.change(|o| *o = !*o))
            >
                {dynamic(move || label.get())}
            </button>
            <Show when=move || open.get()>
                <div class="menu" class:left=left role="menu" on:click=press(move |_| close())>
                    {children.with_value(|c| c())}
                </div>
            </Show>
        </div>
    }
}
