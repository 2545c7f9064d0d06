//! Shortcuts and terminology, one key away on every page.

use leptos::ev;
use leptos::prelude::*;

use crate::context::{expect_context, provide_context};
use crate::dom;
use crate::signals::RwSignal;
use crate::terms::TERMS;
use crate::ui::{CollectView, Dialog, button};

#[derive(Clone, Copy)]
pub struct Help {
    pub shortcuts: RwSignal<bool>,
    pub terms: RwSignal<bool>,
}

impl Help {
    pub fn provide() {
        let help = Self { shortcuts: RwSignal::new(false), terms: RwSignal::new(false) };
        provide_context(help);
        let _ = window_event_listener(ev::keydown, move |event| {
            if event.key() == "?" && !dom::is_typing() && !event.ctrl_key() && !event.meta_key() {
                event.prevent_default();
                help.shortcuts.set(true);
            }
        });
    }

    pub fn get() -> Self {
        expect_context()
    }
}

const SHORTCUTS: &[(&str, &[(&str, &str)])] = &[
    (
        "Everywhere",
        &[
            ("?", "this list"),
            ("Ctrl K", "find a node by name, for instance L5.H1, or by words of its explanation"),
            ("Esc", "close what is open"),
        ],
    ),
    (
        "Debugger",
        &[
            ("Ctrl Enter", "submit, from any field"),
            ("Enter", "submit, from a token box"),
            ("Ctrl Z", "undo the last change of the question (outside text fields)"),
            ("Ctrl Shift Z", "redo"),
            ("/", "go to the table's filter"),
        ],
    ),
    (
        "Node table",
        &[
            ("↑ ↓", "previous, next row (also k, j)"),
            ("PgUp PgDn Home End", "further"),
            ("Enter", "open or close the row's details"),
            ("a", "ablate the row's node"),
            ("t", "trace the row's node"),
            ("o", "open the node's own page"),
        ],
    ),
    (
        "Node page",
        &[
            ("← →", "previous, next node of the layer"),
            ("Shift ↑ ↓", "next, previous layer (plain arrows scroll)"),
            ("Ctrl Enter", "run the prompt"),
        ],
    ),
];

#[component]
pub fn HelpDialogs() -> impl IntoView {
    let help = Help::get();
    view! {
        <Dialog open=help.shortcuts title="Keyboard shortcuts">
            <div class="shortcuts">
                {SHORTCUTS.iter().map(|(part, keys)| view! {
                    <section class="stack">
                        <h3>{*part}</h3>
                        <dl class="keys">
                            {keys.iter().map(|(key, what)| view! {
                                <dt><kbd>{*key}</kbd></dt>
                                <dd>{*what}</dd>
                            }).collect_view()}
                        </dl>
                    </section>
                }).collect_view()}
            </div>
            <p class="quiet">"On a Mac, ⌘ serves as Ctrl."</p>
        </Dialog>
        <Dialog open=help.terms title="Terms" drawer=true>
            <dl class="terms">
                {TERMS.iter().map(|(term, meaning)| view! {
                    <dt>{*term}</dt>
                    <dd>{*meaning}</dd>
                }).collect_view()}
            </dl>
        </Dialog>
    }
}

/// Opens the terminology.
#[component]
pub fn TermsLink() -> impl IntoView {
    let help = Help::get();
    button("button plain small", "Terms used here", move |_| help.terms.set(true))
}
