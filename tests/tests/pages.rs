//! The pages, most of them in a browser.

#![allow(clippy::unwrap_used)] // helpers of tests, too

mod accessibility;
mod debugger;
mod pages_open;
mod statements;
mod ui_compare;
mod ui_debugger;
mod ui_dictionaries;
mod ui_effects;
mod ui_explains;
mod ui_families;
mod ui_look;
mod ui_nodes;
mod ui_research;
mod ui_support;
mod ui_views;
mod ui_widgets;
