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
mod means;
mod options;
mod prompt;
mod question;
mod request_queue;
mod runs;
mod selected_node;
mod share;
mod snapshots;
mod summary;
mod table;
mod token_box;

use leptos::ev;
use leptos::prelude::*;
use leptos_router::hooks::{use_location, use_params_map};

use crate::dom::{self, set_title};
use crate::session::Session;
use crate::ui::ProblemCard;

#[component]
pub fn DebuggerPage() -> impl IntoView {
    let params = use_params_map();
    let slug = params.read_untracked().get("model").unwrap_or_default();
    set_title(&format!("{slug}: debugger"));
    let location = use_location();
    let session = Session::new(location.pathname.get_untracked(), &location.search.get_untracked());
    provide_context(session);
    provide_context(Slug(StoredValue::new(slug)));
    explain::Explanations::provide();
    actions::RowMenu::provide();
    selected_node::SelectedNode::provide();
    exact::ExactEffects::provide();
    session.begin();
    shortcuts(session);
    let shows = move |panel: &'static str| session.view.with(|v| v.shows(panel));
    view! {
        <div class="debugger">
            <h1 class="visually-hidden">"Transformer Debugger"</h1>
            <ask_bar::AskBar />
            <div class="work">
                <div class="side" role="region" aria-label="Answer" tabindex="0">
                    {move || general_problem(session).map(|problem| {
                        let retry = Callback::new(move |()| session.submit());
                        view! { <ProblemCard problem=problem retry=retry /> }
                    })}
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
                        <circuit::Circuit />
                        <runs::Runs />
                    </Show>
                </div>
                <div class="main">
                    <summary::Summary />
                    <Show when=move || shows("tokens")>
                        <effects::TokenEffectsCard />
                    </Show>
                    <Show when=move || shows("table")>
                        <table::NodeTable />
                    </Show>
                </div>
            </div>
            <actions::RowMenuView />
        </div>
    }
}

/// The model's part of the path.
#[derive(Clone, Copy)]
pub struct Slug(StoredValue<String>);

impl Slug {
    pub fn text() -> String {
        use_context::<Self>().map(|s| s.0.get_value()).unwrap_or_default()
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
