//! Controls that the pages have many of: functions rather than views, so that each is compiled once.

use leptos::prelude::*;
use web_sys::MouseEvent;

use super::events::Handler;
use super::{entered, follows, press};

/// A button of this class.
pub fn button(class: &'static str, label: impl IntoAny, handler: impl FnMut(MouseEvent) + 'static) -> AnyView {
    button_of(class, label.into_any(), press(handler))
}

fn button_of(class: &'static str, label: AnyView, on_press: Handler<MouseEvent>) -> AnyView {
    view! { <button type="button" class=class on:click=on_press>{label}</button> }.into_any()
}

/// A button that shows a sign; what it does, and which keys do it, is said in words.
pub fn icon_button(
    name: impl Into<String>,
    keys: &'static str,
    sign: &'static str,
    is_off: impl Fn() -> bool + Send + 'static,
    handler: impl FnMut(MouseEvent) + 'static,
) -> AnyView {
    icon_button_of(name.into(), keys, sign, follows(is_off), press(handler))
}

fn icon_button_of(
    name: String,
    keys: &'static str,
    sign: &'static str,
    is_off: Box<dyn FnMut() -> bool + Send>,
    on_press: Handler<MouseEvent>,
) -> AnyView {
    let title = if keys.is_empty() { name.clone() } else { format!("{name} ({keys})") };
    view! {
        <button
            type="button"
            class="button small plain icon"
            aria-label=name
            title=title
            disabled=is_off
            on:click=on_press
        >
            {sign}
        </button>
    }
    .into_any()
}

/// A line of a menu.
pub fn menu_item(label: impl IntoAny, handler: impl FnMut(MouseEvent) + 'static) -> AnyView {
    menu_item_of(label.into_any(), press(handler))
}

fn menu_item_of(label: AnyView, on_press: Handler<MouseEvent>) -> AnyView {
    view! { <button type="button" role="menuitem" on:click=on_press>{label}</button> }.into_any()
}

/// A switch with its label; `id` may be empty.
pub fn checkbox(
    id: &'static str,
    label: &'static str,
    is_on: impl Fn() -> bool + Send + 'static,
    set: impl Fn(bool) + 'static,
) -> AnyView {
    checkbox_of(id, label, follows(is_on), Box::new(set))
}

fn checkbox_of(
    id: &'static str,
    label: &'static str,
    is_on: Box<dyn FnMut() -> bool + Send>,
    set: Box<dyn Fn(bool)>,
) -> AnyView {
    view! {
        <label class="check">
            <input
                type="checkbox"
                id=(!id.is_empty()).then_some(id)
                prop:checked=is_on
                on:change=entered(move |event| set(event_target_checked(&event)))
            />
            {label}
        </label>
    }
    .into_any()
}

/// What can be chosen from a list.
pub fn choice(
    value: impl Into<String>,
    label: impl Into<String>,
    is_chosen: impl Fn() -> bool + Send + 'static,
) -> AnyView {
    choice_of(value.into(), label.into(), follows(is_chosen))
}

fn choice_of(value: String, label: String, is_chosen: Box<dyn FnMut() -> bool + Send>) -> AnyView {
    view! { <option value=value selected=is_chosen>{label}</option> }.into_any()
}
