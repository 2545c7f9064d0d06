//! A short field for a number, with its label above.

use crate::signals::RwSignal;
use leptos::prelude::*;

use super::{entered, follows};

/// `mode` is the keyboard that phones show: `numeric` or `decimal`.
pub fn number_field(
    label: &'static str,
    id: &'static str,
    mode: &'static str,
    text: RwSignal<String>,
) -> impl IntoView {
    view! {
        <label class="stack tight">
            <span class="label">{label}</span>
            <input
                class="field short"
                id=id
                inputmode=mode
                prop:value=follows(move || text.get())
                on:input=entered(move |e| text.set(event_target_value(&e)))
            />
        </label>
    }
}
