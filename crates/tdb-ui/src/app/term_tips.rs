//! Definitions of terms where they stand: whatever names its term in `data-term` shows it by pointer, focus or touch.

use leptos::prelude::*;
use leptos::{ev, html};
use wasm_bindgen::JsCast;

use crate::dom;
use crate::signals::{Peek, RwSignal, See};
use crate::terms;
use crate::ui::{dynamic, follows};

/// Where a definition is shown: its term, and the corner of the window that it hangs at.
type Shown = (String, f64, f64);

/// The element's own term, or that of what it stands in.
fn term_at(target: Option<web_sys::EventTarget>) -> Option<Shown> {
    let element: web_sys::Element = target?.dyn_into().ok()?;
    let holder = element.closest("[data-term]").ok()??;
    let rect = holder.get_bounding_client_rect();
    Some((holder.get_attribute("data-term")?, rect.left(), rect.bottom() + 4.0))
}

#[component]
pub fn TermTips() -> impl IntoView {
    let shown = RwSignal::new(None::<Shown>);
    let show = move |found: Option<Shown>| {
        if shown.peek(|old| *old != found) {
            shown.set(found);
        }
    };
    let _ = window_event_listener(ev::pointerover, move |e| show(term_at(e.target())));
    let _ = window_event_listener(ev::focusin, move |e| show(term_at(e.target())));
    let _ = window_event_listener(ev::keydown, move |e| {
        if e.key() == "Escape" {
            show(None);
        }
    });
    let node = NodeRef::<html::Div>::new();
    let place = move || {
        let (_, x, y) = shown.get()?;
        let width = dom::window().and_then(|w| w.inner_width().ok()?.as_f64()).unwrap_or(1024.0);
        Some(format!("left:{}px;top:{y}px", x.min(width - 316.0).max(4.0)))
    };
    view! {
        <div
            class="term-tip"
            role="tooltip"
            id="term-tip"
            node_ref=node
            hidden=follows(move || shown.see(Option::is_none))
            style=place
        >
            {dynamic(move || shown.get().map(|(term, ..)| {
                let (formula, unit) = terms::formula(&term).unzip();
                view! {
                    <strong>{term.clone()}</strong>
                    <span>{terms::meaning(&term)}</span>
                    {formula.map(|f| view! { <code>{f}</code> })}
                    {unit.map(|u| view! { <span>"Unit: "{u}</span> })}
                }
            }))}
        </div>
    }
}
