//! The debugger's page.

mod actions;
mod ask_bar;
mod attention;
mod candidates;
mod circuit;
mod effects;
mod exact;
mod explain;
mod export;
mod fidelity;
mod interventions;
mod layer_map;
mod log_export;
pub mod logit_lens;
mod means;
mod notebook;
mod options;
pub mod patterns;
mod prompt;
mod question;
mod request_queue;
mod runs;
mod sampling;
mod selected_node;
mod share;
mod snapshots;
mod summary;
mod table;
mod token_box;
pub mod tools;
mod tour;
mod waterfall;

use leptos::ev;
use leptos::prelude::*;
use tdb_api::page::PageState;

use crate::app::OnServedModel;
use crate::context::{expect_context, provide_context};
use crate::dom::{self, set_title};
use crate::server::Server;
use crate::session::Session;
use crate::signals::{See, Signal, effect};
use crate::ui::{KeepFigure, ProblemCard, Show, dynamic, follows};

#[component]
pub fn DebuggerPage(slug: String) -> impl IntoView {
    set_title(&format!("{slug}: debugger"));
    let (path, query) = dom::location();
    let session = Session::new(path, &query);
    provide_context(session);
    Slug::provide(slug);
    explain::Explanations::provide();
    actions::RowMenu::provide();
    selected_node::SelectedNode::provide();
    exact::ExactEffects::provide();
    notebook::Log::provide(session);
    tools::Tools::provide();
    circuit::Circuit::provide(session);
    let log = notebook::Log::get();
    provide_context(KeepFigure(Callback::new(move |(name, svg)| log.drew(name, svg))));
    session.begin();
    shortcuts(session);
    let shows = move |panel: &'static str| session.view.see(|v| v.shows(panel));
    let has_two_sides =
        move || session.page.see(PageState::compares_prompts) || session.answer.see(|a| a.is_two_sided());
    view! {
        <div class="debugger">
            <h1 class="visually-hidden">"Transformer Debugger"</h1>
            <OnServedModel slug=Signal::stored(Slug::text())>
            <ask_bar::AskBar />
            <div class="work">
                <div class="side" role="region" aria-label="Answer" tabindex="0">
                    {dynamic(move || general_problem(session).map(|problem| {
                        let retry = Callback::new(move |()| session.submit());
                        view! { <ProblemCard problem=problem retry=retry /> }
                    }))}
                    <interventions::Interventions />
                    <Show when=move || shows("logits")>
                        <candidates::Candidates />
                    </Show>
                    <Show when=move || shows("node")>
                        <selected_node::SelectedNodeCard />
                    </Show>
                    <Show when=move || shows("map")>
                        <layer_map::LayerMap />
                    </Show>
                    <Show when=move || shows("circuit")>
                        <circuit::CircuitCard />
                        <runs::Runs />
                    </Show>
                </div>
                <div class="main" class:two=follows(has_two_sides)>
                    <tour::Tour />
                    <summary::Summary />
                    <fidelity::Fidelity />
                    <div class="overview">
                        <Show when=move || shows("sum")>
                            <waterfall::Waterfall />
                        </Show>
                        <Show when=move || shows("tokens")>
                            <effects::TokenEffectsCard />
                        </Show>
                    </div>
                    <Show when=move || shows("table")>
                        <table::NodeTable />
                    </Show>
                </div>
            </div>
            <actions::RowMenuView />
            <tools::ToolDialog />
            </OnServedModel>
        </div>
    }
}

/// The model's part of the path.
#[derive(Clone, Copy)]
pub struct Slug(StoredValue<String>);

impl Slug {
    /// A link that names the model alone is about its latents, too.
    fn provide(slug: String) {
        let here = Self(StoredValue::new(slug));
        provide_context(here);
        let server = Server::get();
        effect(move || {
            let served = server.facts.see(|f| f.as_ref().and_then(|f| f.slug()));
            if let Some(served) = served.filter(|s| here.0.with_value(|slug| *slug == s.model)) {
                here.0.set_value(served.to_string());
            }
        });
    }

    pub fn get() -> Self {
        expect_context()
    }

    pub fn now(self) -> String {
        self.0.get_value()
    }

    pub fn text() -> String {
        Self::get().now()
    }
}

/// The last error, unless it is shown at a field.
fn general_problem(session: Session) -> Option<crate::client::Problem> {
    session.problem.get().filter(|p| question::field_of(p).is_none())
}

fn shortcuts(session: Session) {
    let listener = window_event_listener(ev::keydown, move |event| {
        let control = event.ctrl_key() || event.meta_key();
        match event.key().as_str() {
            "Enter" if control => {
                event.prevent_default();
                session.submit();
            }
            "z" | "Z" if control && !dom::is_typing() => {
                event.prevent_default();
                if event.shift_key() { session.redo() } else { session.undo() }
            }
            "/" if !control && !dom::is_typing() => {
                event.prevent_default();
                dom::focus("filter");
            }
            _ => {}
        }
    });
    on_cleanup(move || listener.remove());
}
