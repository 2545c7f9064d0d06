//! Jump to any node by its name or by words of its explanation.

use leptos::ev;
use leptos::prelude::*;
use tdb_api::page::NodePageKind;
use tdb_api::routes::ExplanationSearch;
use tdb_api::{ExplanationSearchRequest, ExplanationSearchResponse, NodeType};

use crate::address::Address;
use crate::context::{expect_context, provide_context};
use crate::dom;
use crate::names::{component_name, node_path, parse_jump, type_class, type_label};
use crate::remote::{Remote, follow};
use crate::server::Server;
use crate::signals::{Memo, Peek, RwSignal, See};
use crate::ui::{CollectView, Dialog, dynamic, entered, follows, press, sent};

#[derive(Clone, Copy)]
pub struct Palette(RwSignal<bool>);

impl Palette {
    pub fn provide() {
        let palette = Self(RwSignal::new(false));
        provide_context(palette);
        let _ = window_event_listener(ev::keydown, move |event| {
            if (event.ctrl_key() || event.meta_key()) && event.key().eq_ignore_ascii_case("k") {
                event.prevent_default();
                palette.open();
            }
        });
    }

    pub fn get() -> Self {
        expect_context()
    }

    pub fn open(self) {
        self.0.set(true);
        set_timeout(|| dom::focus("jump"), std::time::Duration::from_millis(20));
    }
}

#[component]
pub fn PaletteDialog() -> impl IntoView {
    let palette = Palette::get();
    let server = Server::get();
    let text = RwSignal::new(String::new());
    let here = Address::get();
    let words = move || Some(text.get()).filter(|t| t.trim().len() > 2 && palette.0.get());
    let (explained, _) = follow::<ExplanationSearch>(move || {
        words().filter(|t| parse_jump(t, NodeType::MlpNeuron).is_none()).map(|text| ExplanationSearchRequest { text })
    });
    let found = Memo::new(move |_| parse_jump(&text.get(), NodeType::MlpNeuron));
    // What is wrong with a name that reads well: a layer or index that the model does not have.
    let out_of_range = move || {
        let (node_type, layer, unit) = found.get()?;
        let facts = server.facts.get()?;
        let (layers, units) = facts.extent(node_type);
        match (layers, units) {
            (Some(n), _) if layer >= n => Some(format!("The model has layers 0 to {}.", n - 1)),
            (_, Some(n)) if unit >= n => Some(format!("A layer has indices 0 to {}.", n - 1)),
            _ => None,
        }
    };
    let go = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let (Some((node_type, layer, unit)), None) = (found.get_untracked(), untrack(out_of_range)) else { return };
        let slug = server.facts.peek(|f| f.as_ref().and_then(|f| f.slug()));
        let slug = slug.map_or_else(|| "model".to_owned(), |s| s.to_string());
        palette.0.set(false);
        text.set(String::new());
        here.go(&node_path(&slug, node_type, layer, unit));
    };
    view! {
        <Dialog open=palette.0 title="Find a node">
            <form class="stack" on:submit=sent(go)>
                <label class="stack">
                    <span>
                        "Its name: "
                        <code>"L5.H1"</code>
                        ", "
                        <code>"attn_L5_1"</code>
                        ", "
                        <code>"mlp 3 2011"</code>
                        ", "
                        <code>"mlp_ae_L2_9"</code>
                        "; or words of its explanation"
                    </span>
                    <input
                        id="jump"
                        class="field"
                        autocomplete="off"
                        spellcheck="false"
                        prop:value=follows(move || text.get())
                        on:input=entered(move |e| text.set(event_target_value(&e)))
                    />
                </label>
                <div class="row" aria-live="polite">
                    {dynamic(move || match (found.get(), out_of_range()) {
                        (Some(_), Some(wrong)) => view! { <span class="field-error">{wrong}</span> }.into_any(),
                        (Some((t, l, u)), None) => view! {
                            <span><strong>{component_name(t, l, u)}</strong>", "{type_label(t)}</span>
                            <span class="grow"></span>
                            <button class="button primary" type="submit">"Go"</button>
                        }.into_any(),
                        (None, _) if text.see(|t| t.is_empty()) => ().into_any(),
                        (None, _) => ().into_any(),
                    })}
                </div>
                {dynamic(move || match explained.get() {
                    Remote::Ready(answer) => results(&answer, palette),
                    _ => ().into_any(),
                })}
            </form>
        </Dialog>
    }
}

/// Components whose explanations hold the words.
fn results(answer: &ExplanationSearchResponse, palette: Palette) -> AnyView {
    let note = match (answer.searchable, answer.found.is_empty(), answer.more) {
        (false, ..) => "The explanations of this server cannot be searched: each is a file of its own.",
        (_, true, _) => "No name of a node, and no explanation has all of these words.",
        (.., true) => "There are more; give more words.",
        _ => "",
    };
    let rows = answer.found.iter().filter_map(|c| {
        let kind = NodePageKind::of_records(c.dst.as_str())?;
        let (layer, unit) = (c.layer_index, c.activation_index);
        let href = node_path(&c.dataset, kind.node_type, layer, unit);
        let name = component_name(kind.node_type, layer, unit);
        Some(view! {
            <li>
                <a href=href on:click=press(move |_| palette.0.set(false))>
                    <span class=format!("node-name {}", type_class(kind.node_type))>{name}</span>
                    <span>{c.explanation.clone()}</span>
                </a>
            </li>
        })
    });
    view! {
        <ul class="found" id="found">{rows.collect_view()}</ul>
        <p class="quiet small-text">{note}</p>
    }
    .into_any()
}
