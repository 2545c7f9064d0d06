//! The bar on top of every page.

use leptos::prelude::*;

use super::{Help, palette::Palette};
use crate::client;
use crate::dom;
use crate::server::{Health, Server};
use crate::signals::RwSignal;
use crate::ui::{Dialog, Notices, button, dynamic, entered, follows, icon_button, press, sent};

const THEME_KEY: &str = "tdb.theme";
/// Said of a server that these pages may not ask.
const ELSEWHERE: &str = "These pages may ask servers of your own machine alone: forward the other server's port \
    (ssh -L 8001:localhost:8000 MACHINE) and give http://localhost:8001.";

#[component]
pub fn Header() -> impl IntoView {
    let server = Server::get();
    let help = Help::get();
    let palette = Palette::get();
    let debugger = move || server.facts.get().and_then(|f| f.slug()).map(|s| (s.model.clone(), s.debugger_path()));
    view! {
        <header class="site-header">
            <a class="brand" href="/">
                <svg viewBox="0 0 32 32" width="22" height="22" aria-hidden="true">
                    <rect width="32" height="32" rx="7" class="mark-ground" />
                    <path d="M6 22h20M6 16h20M6 10h20" class="mark-lines" />
                    <path d="M9 22 16 10 23 16" class="mark-path" />
                    <circle cx="9" cy="22" r="3" class="mark-neg" />
                    <circle cx="16" cy="10" r="3.4" class="mark-pos" />
                    <circle cx="23" cy="16" r="2.6" class="mark-pos" />
                </svg>
                <span class="brand-long">"Transformer Debugger"</span>
                <span class="brand-short">"TDB"</span>
            </a>
            {dynamic(move || debugger().map(|(name, path)| view! {
                <a class="where" href=path title="Open the debugger with this model">{name}</a>
            }))}
            <span class="grow" id="header-slot"></span>
            <nav aria-label="Tools">
                <button
                    type="button"
                    class="button small plain"
                    on:click=press(move |_| palette.open())
                    title="Find a node by name or explanation (Ctrl+K)"
                >
                    "Find "<span class="wide-only">"a node "<kbd>"Ctrl K"</kbd></span>
                </button>
                {button("button small plain", "Terms", move |_| help.terms.set(true))}
                {icon_button("Keyboard shortcuts", "?", "?", || false, move |_| help.shortcuts.set(true))}
                <ThemeButton />
                <ServerButton />
            </nav>
        </header>
    }
}

#[component]
fn ThemeButton() -> impl IntoView {
    let notices = Notices::get();
    let theme = RwSignal::new(dom::stored(THEME_KEY).filter(|t| t == "light" || t == "dark"));
    let label = move || match theme.get().as_deref() {
        Some("light") => "light",
        Some(_) => "dark",
        None => "system",
    };
    let next = move |_| {
        let to = match theme.get_untracked().as_deref() {
            None => Some("light"),
            Some("light") => Some("dark"),
            Some(_) => None,
        };
        if let Some(root) = dom::document().and_then(|d| d.document_element()) {
            let _ = match to {
                Some(to) => root.set_attribute("data-theme", to),
                None => root.remove_attribute("data-theme"),
            };
        }
        dom::store(THEME_KEY, to);
        theme.set(to.map(str::to_owned));
        notices.speak(format!("Theme: {}", to.unwrap_or("system")));
    };
    view! {
        <button
            type="button"
            class="button small plain icon"
            id="theme"
            aria-label=follows(move || format!("Theme: {}", label()))
            title=follows(move || format!("Theme: {} (press to change)", label()))
            on:click=press(next)
        >
            {dynamic(move || match theme.get().as_deref() {
                Some("light") => "☀",
                Some(_) => "☾",
                None => "◐",
            })}
        </button>
    }
}

/// Says whether the server is there, and lets one choose another.
#[component]
fn ServerButton() -> impl IntoView {
    let server = Server::get();
    let notices = Notices::get();
    let open = RwSignal::new(false);
    let address = RwSignal::new(client::server());
    let word = move || match server.health.get() {
        Health::Unknown => "connecting",
        Health::Present => "connected",
        Health::Absent(_) => "no server",
    };
    let choose = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        if !client::is_within_reach(&address.get_untracked()) {
            notices.say(ELSEWHERE);
            return;
        }
        client::set_server(&address.get_untracked());
        server.facts.set(None);
        server.health.set(Health::Unknown);
        server.look();
        open.set(false);
    };
    view! {
        <button
            type="button"
            class="button small plain"
            id="server"
            on:click=press(move |_| open.set(true))
            aria-label=follows(move || format!("Server: {}", word()))
            title="The server behind these pages"
        >
            <span
                class="dot"
                class:ok=follows(move || server.health.get() == Health::Present)
                class:bad=follows(move || matches!(server.health.get(), Health::Absent(_)))
                aria-hidden="true"
            ></span>
            <span class="wide-only">{word}</span>
        </button>
        <Dialog open=open title="Server">
            <form class="stack" on:submit=sent(choose)>
                {dynamic(move || match server.health.get() {
                    Health::Absent(problem) => view! {
                        <p class="problem"><span><strong>"No answer. "</strong>{problem.message}</span></p>
                    }.into_any(),
                    _ => ().into_any(),
                })}
                {dynamic(move || server.facts.get().and_then(|f| f.server).map(|s| view! {
                    <p class="quiet">
                        {format!(
                            "tdb {}, at most {} tokens a prompt, {} workers",
                            s.version,
                            s.limits.max_prompt_tokens,
                            s.limits.workers
                        )}
                    </p>
                }))}
                <label class="stack">
                    <span>
                        "Address of a server of your own machine (of this project or the reference's). Empty: the one \
                            that these pages came from."
                    </span>
                    <input
                        class="field"
                        type="url"
                        placeholder=dom::origin()
                        prop:value=follows(move || address.get())
                        on:input=entered(move |e| address.set(event_target_value(&e)))
                    />
                </label>
                <div class="row">
                    <button class="button primary" type="submit">"Use it"</button>
                </div>
            </form>
        </Dialog>
    }
}
