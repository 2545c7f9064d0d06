//! Which node this is, and the ways to others and to the debugger.

use leptos::ev;
use leptos::prelude::*;
use tdb_api::NodeType;

use super::Node;
use crate::address::Address;
use crate::dom;
use crate::names::{component_name, node_path, parse_jump, type_label};
use crate::server::Server;
use crate::signals::{RwSignal, See};
use crate::ui::{dynamic, entered, follows, sent};

#[component]
pub fn Head() -> impl IntoView {
    let node = Node::get();
    let server = Server::get();
    // Limits hold for the model that the server has; other models' nodes may go on.
    let limits = move || {
        let a = node.address.get()?;
        let facts = server.facts.get()?;
        (facts.slug()?.model == a.slug.model).then(|| facts.extent(a.kind.node_type))
    };
    let step = move |layers: i64, units: i64| {
        let mut a = node.address.get()?;
        let (max_layer, max_unit) = limits().unwrap_or((None, None));
        a.layer_index += layers;
        a.node_index += units;
        let inside = |n: i64, max: Option<i64>| n >= 0 && max.is_none_or(|m| n < m);
        (inside(a.layer_index, max_layer) && inside(a.node_index, max_unit))
            .then(|| format!("{}{}", a.path(), node.suffix()))
    };
    let here = Address::get();
    let listener = window_event_listener(ev::keydown, move |event| {
        if dom::is_typing() || event.ctrl_key() || event.meta_key() || event.alt_key() {
            return;
        }
        // Arrows up and down scroll, as everywhere; with Shift they change the layer.
        let to = match (event.key().as_str(), event.shift_key()) {
            ("ArrowLeft", false) => untrack(|| step(0, -1)),
            ("ArrowRight", false) => untrack(|| step(0, 1)),
            ("ArrowUp", true) => untrack(|| step(1, 0)),
            ("ArrowDown", true) => untrack(|| step(-1, 0)),
            _ => return,
        };
        // A box that scrolls sideways keeps its arrows.
        let in_box = document()
            .active_element()
            .is_some_and(|e| e.scroll_width() > e.client_width() && e.tag_name() != "BODY" && e.id() != "main");
        if let (Some(to), false) = (to, in_box) {
            event.prevent_default();
            here.go(&to);
        }
    });
    on_cleanup(move || listener.remove());
    let link = move |label: &'static str, name: &'static str, keys: &'static str, layers: i64, units: i64| {
        view! {
            {dynamic(move || match step(layers, units) {
                Some(href) => view! {
                    <a class="button small" href=href aria-label=name title=format!("{name} ({keys})")>{label}</a>
                }.into_any(),
                None => view! {
                    <span class="button small" aria-disabled="true" style="opacity:.45">{label}</span>
                }.into_any(),
            })}
        }
    };
    let debugger =
        move |ablated: bool| node.debugger(node.query.see(|q| q.prompts_of_interest.first().cloned()), ablated);
    let can_ablate = move || node.address.get().is_some_and(|a| a.kind.node_type != NodeType::ResidualStreamChannel);
    let quick = RwSignal::new(String::new());
    let jump = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let Some(a) = node.address.get_untracked() else { return };
        let text = quick.get_untracked();
        if let Some((node_type, layer, unit)) = parse_jump(&text, a.kind.node_type) {
            quick.set(String::new());
            let path = node_path(&a.slug.to_string(), node_type, layer, unit);
            here.go(&format!("{path}{}", untrack(|| node.suffix())));
        }
    };
    view! {
        <div class="node-head">
            <h1 id="node-name">
                {dynamic(move || {
                    node.address.get().map(|a| component_name(a.kind.node_type, a.layer_index, a.node_index))
                })}
            </h1>
            <span class="quiet">
                {dynamic(move || node.address.get().map(|a| {
                    let (what, model) = (type_label(a.kind.node_type), &a.slug.model);
                    format!("{what}, layer {}, index {}, of {model}", a.layer_index, a.node_index)
                }))}
            </span>
            <span class="grow"></span>
            <nav class="row" aria-label="Neighbours">
                {link("←", "Previous node", "←", 0, -1)}
                {link("→", "Next node", "→", 0, 1)}
                {link("↑", "Next layer", "Shift ↑", 1, 0)}
                {link("↓", "Previous layer", "Shift ↓", -1, 0)}
            </nav>
            <form class="row" on:submit=sent(jump)>
                <input
                    class="field short"
                    style="width:9em"
                    placeholder="layer:index"
                    aria-label="Jump to layer:index or a name"
                    prop:value=follows(move || quick.get())
                    on:input=entered(move |e| quick.set(event_target_value(&e)))
                />
            </form>
            {dynamic(move || debugger(false).map(|href| view! {
                <a class="button small primary" id="in-debugger" href=href>"Open in the debugger"</a>
            }))}
            {dynamic(move || can_ablate().then(|| debugger(true)).flatten().map(|href| view! {
                <a
                    class="button small"
                    id="ablated-in-debugger"
                    href=href
                    title="The debugger with this node held at 0 at every token, beside the baseline"
                >
                    "Open with this node ablated"
                </a>
            }))}
        </div>
    }
}
