//! The shell around every page: routes, header, help, messages.

mod header;
mod help;
mod other_model;
mod palette;
mod term_tips;

use leptos::prelude::*;
use leptos_router::components::{Route, Router, Routes};
use leptos_router::path;

use crate::dom::set_title;
use crate::server::Server;
use crate::ui::press;
use crate::ui::{Notices, NoticesView};
pub use help::{Help, TermsLink};
pub use other_model::OnServedModel;

#[component]
pub fn App() -> impl IntoView {
    Notices::provide();
    Server::provide();
    crate::token_cache::TokenCache::provide();
    Help::provide();
    other_model::OtherModels::provide();
    palette::Palette::provide();
    view! {
        <Router>
            <a class="skip" href="#main" on:click=press(|e| { e.prevent_default(); crate::dom::focus("main") })>
                "Skip to the page"
            </a>
            <header::Header />
            <main id="main" tabindex="-1">
                <Routes fallback=NotFound>
                    <Route path=path!("/") view=crate::start::StartPage />
                    <Route path=path!("/:model/tdb_alpha") view=crate::tdb::DebuggerPage />
                    <Route path=path!("/:model/patch") view=crate::patch::PatchPage />
                    <Route path=path!("/:model/:node_type/:layer/:index") view=crate::node::NodePage />
                </Routes>
            </main>
            <NoticesView />
            <help::HelpDialogs />
            <palette::PaletteDialog />
            <term_tips::TermTips />
        </Router>
    }
}

#[component]
fn NotFound() -> impl IntoView {
    set_title("Page not found");
    view! {
        <div class="page narrow stack">
            <h1>"Page Not Found"</h1>
            <p>"There is no page at this address. The debugger and every node can be reached from the start page."</p>
            <p>
                <a class="button primary" href="/">
                    "Go back home"
                </a>
            </p>
        </div>
    }
}
