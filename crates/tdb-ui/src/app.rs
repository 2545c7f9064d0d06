//! The shell around every page: routes, header, help, messages.

mod header;
mod help;
mod other_model;
mod palette;
mod term_tips;

use leptos::prelude::*;

use crate::address::{Address, Page};
use crate::dom::set_title;
use crate::server::Server;
use crate::ui::{Notices, NoticesView, dynamic, press};
pub use help::{Help, TermsLink};
pub use other_model::OnServedModel;

#[component]
pub fn App() -> impl IntoView {
    Notices::provide();
    let page = Address::provide().page();
    Server::provide();
    crate::token_cache::TokenCache::provide();
    Help::provide();
    other_model::OtherModels::provide();
    palette::Palette::provide();
    view! {
            <a class="skip" href="#main" on:click=press(|e| { e.prevent_default(); crate::dom::focus("main") })>
                "Skip to the page"
            </a>
            <header::Header />
            <main id="main" tabindex="-1">
                {dynamic(move || match page.get() {
                    Page::Start => view! { <crate::start::StartPage /> }.into_any(),
                    Page::Debugger { model } => view! { <crate::tdb::DebuggerPage slug=model /> }.into_any(),
                    Page::Patch { model } => view! { <crate::patch::PatchPage slug=model /> }.into_any(),
                    Page::Node => view! { <crate::node::NodePage /> }.into_any(),
                    Page::Unknown => view! { <NotFound /> }.into_any(),
                })}
            </main>
            <NoticesView />
            <help::HelpDialogs />
            <palette::PaletteDialog />
            <term_tips::TermTips />
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
