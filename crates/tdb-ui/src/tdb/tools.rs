//! Larger views of the present question, each in a dialog: logit lens, attention patterns, continuations, the log.

use leptos::prelude::*;

use super::{circuit::CircuitView, logit_lens::LogitLens, notebook::LogView, patterns::Patterns, sampling::Sampling};
use crate::context::{expect_context, provide_context};
use crate::signals::{RwSignal, Signal};
use crate::ui::{CollectView, Dialog, dynamic, press};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Lens,
    Patterns,
    Circuit,
    Sampling,
    Log,
}

impl Tool {
    const ALL: [(Self, &'static str, &'static str); 5] = [
        (Self::Lens, "Logit lens", "tool-lens"),
        (Self::Patterns, "Attention", "tool-patterns"),
        (Self::Circuit, "Circuit", "tool-circuit"),
        (Self::Sampling, "Continue", "tool-sampling"),
        (Self::Log, "Log", "tool-log"),
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Lens => "Logit lens: layer × token",
            Self::Patterns => "Attention patterns of all heads",
            Self::Circuit => "Circuit: nodes and how they act on each other",
            Self::Sampling => "Continue the prompt",
            Self::Log => "Log of this visit",
        }
    }
}

/// Which view is open, and the head that the patterns begin with.
#[derive(Clone, Copy)]
pub struct Tools {
    open: RwSignal<bool>,
    tool: RwSignal<Tool>,
    pub head: RwSignal<Option<(i64, i64)>>,
}

impl Tools {
    pub fn provide() {
        let all = Self { open: RwSignal::new(false), tool: RwSignal::new(Tool::Lens), head: RwSignal::new(None) };
        provide_context(all);
    }

    pub fn show_circuit(self) {
        self.tool.set(Tool::Circuit);
        self.open.set(true);
    }

    /// Shows the pattern of a head enlarged.
    pub fn show_head(self, layer: i64, head: i64) {
        self.head.set(Some((layer, head)));
        self.tool.set(Tool::Patterns);
        self.open.set(true);
    }
}

#[component]
pub fn ToolButtons() -> impl IntoView {
    let tools = expect_context::<Tools>();
    view! {
        {Tool::ALL.map(|(tool, label, id)| view! {
            <button type="button" class="button small plain" id=id on:click=press(move |_| {
                tools.tool.set(tool);
                tools.open.set(true);
            })>{label}</button>
        }).collect_view()}
    }
}

#[component]
pub fn ToolDialog() -> impl IntoView {
    let tools = expect_context::<Tools>();
    view! {
        <Dialog open=tools.open title=Signal::derive(move || tools.tool.get().title().to_owned()) wide=true>
            {dynamic(move || match tools.tool.get() {
                Tool::Lens => view! { <LogitLens /> }.into_any(),
                Tool::Patterns => view! { <Patterns /> }.into_any(),
                Tool::Circuit => view! { <CircuitView /> }.into_any(),
                Tool::Sampling => view! { <Sampling /> }.into_any(),
                Tool::Log => view! { <LogView /> }.into_any(),
            })}
        </Dialog>
    }
}
