//! Short messages: seen in a corner for a while, and said to screen readers.

use super::CollectView;
use super::dynamic;
use crate::context::{provide_context, use_context};
use crate::signals::{Change, RwSignal};
use leptos::prelude::*;
use std::time::Duration;

#[derive(Clone, Copy)]
pub struct Notices {
    shown: RwSignal<Vec<(u32, String)>>,
    spoken: RwSignal<String>,
    next: StoredValue<u32>,
}

impl Notices {
    pub fn provide() {
        provide_context(Self { shown: RwSignal::default(), spoken: RwSignal::default(), next: StoredValue::new(0) });
    }

    /// The page's notices. Outside the page (there is no such place in production) messages go nowhere.
    pub fn get() -> Self {
        use_context().unwrap_or_else(|| Self {
            shown: RwSignal::default(),
            spoken: RwSignal::default(),
            next: StoredValue::new(0),
        })
    }

    /// Shows and says a message.
    pub fn say(self, message: impl Into<String>) {
        let message = message.into();
        let id = self.next.get_value();
        self.next.set_value(id + 1);
        self.spoken.set(message.clone());
        self.shown.change(|all| all.push((id, message)));
        set_timeout(move || self.shown.change(|all| all.retain(|(i, _)| *i != id)), Duration::from_secs(5));
    }

    /// Says a message to screen readers alone: what the eye sees anyway.
    pub fn speak(self, message: impl Into<String>) {
        self.spoken.set(message.into());
    }
}

#[component]
pub fn NoticesView() -> impl IntoView {
    let notices = Notices::get();
    view! {
        <div class="visually-hidden" role="status" aria-live="polite" id="live">
            {dynamic(move || notices.spoken.get())}
        </div>
        <div class="toasts" aria-hidden="true">
            {dynamic(move || notices.shown.get().into_iter().map(|(_, message)| view! {
                <div class="toast">{message}</div>
            }).collect_view())}
        </div>
    }
}
