//! Which page the address bar asks for, and going to another page without loading anew.
//!
//! A library's router was a thirtieth of what a browser has to load; five paths need no more than this.

use leptos::ev;
use leptos::prelude::*;
use wasm_bindgen::JsCast;

use crate::context::{expect_context, provide_context};
use crate::dom;
use crate::signals::{Memo, RwSignal, See};

/// The pages. One that keeps state of its own is made anew for another model.
#[derive(Clone, Debug, PartialEq)]
pub enum Page {
    Start,
    Debugger { model: String },
    Patch { model: String },
    Node,
    Unknown,
}

impl Page {
    fn of(path: &str) -> Self {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            [""] => Self::Start,
            [model, "tdb_alpha"] => Self::Debugger { model: decoded(model) },
            [model, "patch"] => Self::Patch { model: decoded(model) },
            [_, _, _, _] => Self::Node,
            _ => Self::Unknown,
        }
    }
}

/// Path and query of the address bar, as signals.
#[derive(Clone, Copy)]
pub struct Address {
    pub path: RwSignal<String>,
    /// With its question mark, or empty.
    pub query: RwSignal<String>,
}

impl Address {
    /// Follows the address bar from now on, and links between the pages.
    pub fn provide() -> Self {
        let (path, query) = dom::location();
        let here = Self { path: RwSignal::new(path), query: RwSignal::new(query) };
        provide_context(here);
        window_event_listener(ev::popstate, move |_| {
            let (path, query) = dom::location();
            here.query.set(query);
            here.path.set(path);
        });
        window_event_listener(ev::click, move |event| {
            if let Some(url) = followed(&event) {
                event.prevent_default();
                here.go(&url);
            }
        });
        here
    }

    pub fn get() -> Self {
        expect_context()
    }

    pub fn page(self) -> Memo<Page> {
        Memo::new(move |_| self.path.see(|path| Page::of(path)))
    }

    /// A part of the path, counted from 0; empty if there are fewer.
    pub fn part(self, at: usize) -> String {
        self.path.see(|path| path.trim_matches('/').split('/').nth(at).map(decoded).unwrap_or_default())
    }

    /// Goes to another address, and to the top of its page.
    pub fn go(self, url: &str) {
        self.change(url);
        if let Some(window) = dom::window() {
            window.scroll_to_with_x_and_y(0.0, 0.0);
        }
    }

    /// Goes to another address of the same page, which stays where it is scrolled to.
    pub fn change(self, url: &str) {
        let (path, query) = dom::location();
        if format!("{path}{query}") != url {
            dom::set_url(url, true);
        }
        // Pages that read the address themselves do so as after the browser's Back.
        if let (Some(window), Ok(event)) = (dom::window(), web_sys::Event::new("popstate")) {
            let _ = window.dispatch_event(&event);
        }
    }
}

/// The address of the page that a press follows a link to; `None` where the browser does what is to be done.
fn followed(event: &web_sys::MouseEvent) -> Option<String> {
    let is_plain = event.button() == 0
        && !(event.ctrl_key() || event.meta_key() || event.shift_key() || event.alt_key())
        && !event.default_prevented();
    let link = dom::closest(event, "a[href]")?.dyn_into::<web_sys::HtmlAnchorElement>().ok()?;
    let leaves = link.has_attribute("target") || link.has_attribute("download") || link.origin() != dom::origin();
    let (path, query) = (link.pathname(), link.search());
    let within = !link.hash().is_empty() && dom::location() == (path.clone(), query.clone());
    (is_plain && !leaves && !within && Page::of(&path) != Page::Unknown).then(|| path + &query)
}

#[cfg(target_arch = "wasm32")]
fn decoded(part: &str) -> String {
    js_sys::decode_uri_component(part).map_or_else(|_| part.to_owned(), String::from)
}

/// Tests run without a browser, on paths that need no decoding.
#[cfg(not(target_arch = "wasm32"))]
fn decoded(part: &str) -> String {
    part.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_pages() {
        assert_eq!((Page::of(""), Page::of("/")), (Page::Start, Page::Start));
        assert_eq!(Page::of("/m/tdb_alpha"), Page::Debugger { model: "m".into() });
        assert_eq!(Page::of("/m/patch/"), Page::Patch { model: "m".into() });
        assert_eq!(Page::of("/m/mlp_neuron/3/44"), Page::Node);
        for path in ["/docs", "/m", "/m/other", "/m/mlp_neuron/3", "/a/b/c/d/e"] {
            assert_eq!(Page::of(path), Page::Unknown, "{path}");
        }
    }
}
