//! Ways to hand the question on: link, commands, data.

use leptos::prelude::*;

use super::exact::ExactEffects;
use super::export;
use crate::client;
use crate::dom;
use crate::json::Json;
use crate::session::Session;
use crate::tasks::spawn;
use crate::ui::{Menu, Notices, menu_item};

#[component]
pub fn ShareMenu() -> impl IntoView {
    let session = Session::get();
    let notices = Notices::get();
    let exact = ExactEffects::get();
    let copy = move |what: &'static str, text: String| {
        spawn(async move {
            let done = dom::copy(&text).await;
            notices.say(if done { format!("{what} copied.") } else { "The browser did not allow copying.".to_owned() });
        });
    };
    let link = move || {
        format!("{}{}", dom::origin(), session.url(&session.page.get_untracked(), &session.view.get_untracked()))
    };
    let body = move || Json::of(&session.request_for(&session.page.get_untracked())).text();
    let server = client::absolute_server;
    view! {
        <Menu label="Share" class="button small plain">
            {menu_item("Copy link", move |_| copy("Link", link() + &export::as_fragment(&exact.checks())))}
            {menu_item("Copy short link", move |_| spawn(async move {
                let link = session.short_link().await.unwrap_or_else(link) + &export::as_fragment(&exact.checks());
                copy("Short link", link);
            }))}
            {menu_item("Copy as curl", move |_| copy("Command", export::curl(&server(), &body())))}
            {menu_item("Copy as Python", move |_| copy("Python", export::python(&server(), &body())))}
            {menu_item("Save node table as CSV", move |_| {
                dom::download("tdb-nodes.csv", "text/csv", &export::csv(session, &exact.checks(), &link()));
            })}
            {menu_item("Save everything as JSON", move |_| {
                dom::download("tdb-answer.json", "application/json", &export::json(session, &exact.checks(), &link()));
            })}
        </Menu>
    }
}
