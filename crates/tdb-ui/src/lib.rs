//! The debugger's pages.
//!
//! One page state is the source of truth, mirrored in the URL. [`client`] alone talks to the server, by the routes and
//! types of
//! `tdb-api`; [`remote`] asks what follows from signals. A number on the screen is one of the answer's, or computed
//! from them by `tdb_api::numbers`.

// Views are deeply nested types; the compiler needs room for them.
#![recursion_limit = "512"]

mod address;
mod answer;
mod app;
mod client;
mod context;
mod dom;
mod format;
mod json;
mod names;
mod node;
mod panic;
mod patch;
mod records;
mod remote;
mod requests;
mod server;
mod session;
mod signals;
mod sorting;
mod start;
mod tasks;
mod tdb;
mod terms;
mod token_cache;
mod ui;
mod view;

use wasm_bindgen::prelude::wasm_bindgen;

/// Starts the pages in the document's body.
#[wasm_bindgen(start)]
pub fn start() {
    panic::install();
    if let Some(boot) = dom::document().and_then(|d| d.get_element_by_id("boot")) {
        boot.remove();
    }
    leptos::mount::mount_to_body(app::App);
}
