//! What can be done with a node: the menu of a table row, and the same in its details.

use leptos::{html, prelude::*};
use tdb_api::page::{NodePageQuery, PageState};
use tdb_api::{AttentionTraceType, NodeIndex, NodeType};
use wasm_bindgen::JsCast;

use super::Slug;
use super::means::{self, Over};
use crate::context::{expect_context, provide_context};
use crate::dom;
use crate::format;
use crate::names::{self, node_path};
use crate::server::Server;
use crate::session::Session;
use crate::signals::{Peek, RwSignal, See, effect};
use crate::ui::{CollectView, Notices, dynamic, keyed, menu_item, press};

/// A menu that floats over the table, so that no scrolling box cuts it off.
#[derive(Clone, Copy)]
pub struct RowMenu(RwSignal<Option<Open>>);

#[derive(Clone, PartialEq)]
struct Open {
    node: NodeIndex,
    x: f64,
    y: f64,
    traces_only: bool,
}

impl RowMenu {
    pub fn provide() {
        provide_context(Self(RwSignal::new(None)));
    }

    pub fn get() -> Self {
        expect_context()
    }

    /// Opens below `anchor`.
    pub fn open(self, node: NodeIndex, anchor: &web_sys::Element, traces_only: bool) {
        let rect = anchor.get_bounding_client_rect();
        let (width, height) = dom::window()
            .and_then(|w| Some((w.inner_width().ok()?.as_f64()?, w.inner_height().ok()?.as_f64()?)))
            .unwrap_or((1024.0, 768.0));
        let x = rect.left().min(width - 240.0).max(4.0);
        let y = if rect.bottom() + 300.0 > height { (rect.top() - 290.0).max(4.0) } else { rect.bottom() + 2.0 };
        self.0.set(Some(Open { node, x, y, traces_only }));
    }
}

/// The traces that a node allows, with the words of their menu entries.
pub fn traces(node_type: NodeType) -> Vec<(Option<AttentionTraceType>, &'static str)> {
    match node_type {
        NodeType::AttentionHead => vec![
            (Some(AttentionTraceType::Q), "Trace through query"),
            (Some(AttentionTraceType::K), "Trace through key"),
            (Some(AttentionTraceType::QK), "Trace through query and key"),
            (Some(AttentionTraceType::V), "Trace through value"),
        ],
        NodeType::Layer | NodeType::VocabToken => Vec::new(),
        other if names::is_remainder(other) => Vec::new(),
        _ => vec![(None, "Trace")],
    }
}

/// Why a node cannot be ablated, if it cannot.
pub fn cannot_ablate(node: &NodeIndex) -> Option<&'static str> {
    match node.node_type {
        NodeType::VocabToken => Some("A token of the vocabulary is not computed."),
        NodeType::MlpTranscoderSkip => Some("What goes beside a transcoder's latents cannot be ablated."),
        _ => None,
    }
}

/// The component's own page, with the prompts of the question.
pub fn node_href(node: &NodeIndex, session: Session, slug: &str) -> Option<String> {
    node_page(node, slug, &session.page.peek(page_query))
}

/// The component's own page; `query` is a [`page_query`].
pub fn node_page(node: &NodeIndex, slug: &str, query: &str) -> Option<String> {
    let layer = node.layer_index.filter(|_| !names::is_remainder(node.node_type))?;
    Some(format!("{}?{query}", node_path(slug, node.node_type, layer, names::unit(node))))
}

/// The prompts of the question, as links to the pages of nodes have them.
pub fn page_query(page: &PageState) -> String {
    let right = page.right.as_ref().map(|right| right.prompt.clone());
    let prompts_of_interest = std::iter::once(page.left.prompt.clone()).chain(right).collect();
    NodePageQuery { prompts_of_interest, explanation_datasets: Vec::new() }.encode()
}

#[component]
pub fn RowMenuView() -> impl IntoView {
    let menu = RowMenu::get();
    let session = Session::get();
    let slug = Slug::text();
    let notices = Notices::get();
    let server = Server::get();
    let is_gated = move || {
        let shape = server.facts.see(|facts| facts.as_ref()?.server.as_ref()?.shape.clone());
        shape.is_some_and(|shape| shape.mlp_is_gated)
    };
    let node_ref = NodeRef::<html::Div>::new();
    let items = move || -> Vec<web_sys::HtmlElement> {
        let Some(root) = node_ref.try_get_untracked().flatten() else { return Vec::new() };
        let Ok(list) = root.query_selector_all("[role=menuitem]:not(:disabled)") else { return Vec::new() };
        (0..list.length()).filter_map(|i| list.item(i)?.dyn_into().ok()).collect()
    };
    effect(move || {
        if menu.0.see(Option::is_some) {
            request_animation_frame(move || {
                if let Some(first) = items().first() {
                    let _ = first.focus();
                }
            });
        }
    });
    let close = move || {
        menu.0.set(None);
        dom::focus("node-table");
    };
    let on_key = move |event: web_sys::KeyboardEvent| {
        let items = items();
        let n = items.len().max(1);
        let active = document().active_element();
        let at = items.iter().position(|i| active.as_ref().is_some_and(|a| i.is_same_node(Some(a)))).unwrap_or(0);
        let to = match event.key().as_str() {
            "Escape" | "Tab" => {
                event.prevent_default();
                event.stop_propagation();
                return close();
            }
            "ArrowDown" => (at + 1) % n,
            "ArrowUp" => (at + n - 1) % n,
            _ => return,
        };
        event.prevent_default();
        event.stop_propagation();
        if let Some(item) = items.get(to) {
            let _ = item.focus();
        }
    };
    let on_leave = move |event: web_sys::FocusEvent| {
        let to = event.related_target().and_then(|t| t.dyn_into::<web_sys::Node>().ok());
        let stays = to.zip(node_ref.get_untracked()).is_some_and(|(to, root)| root.contains(Some(&to)));
        if !stays {
            menu.0.set(None);
        }
    };
    view! {
        {dynamic(move || menu.0.get().map(|open| {
            let node = open.node.clone();
            let href = node_href(&node, session, &slug);
            let reason = cannot_ablate(&node);
            let ablate = {
                let node = node.clone();
                move |_| {
                    close();
                    session.ablate(node.clone(), 0.0);
                }
            };
            let everywhere = {
                let mut node = node.clone();
                let last = node.tensor_indices.len().saturating_sub(1);
                node.tensor_indices[..last].fill(None);
                move |_| {
                    close();
                    session.ablate(node.clone(), 0.0);
                }
            };
            view! {
                <div
                    class="menu floating"
                    role="menu"
                    aria-label=names::node_name(&node)
                    node_ref=node_ref
                    style=format!("left:{}px;top:{}px", open.x, open.y)
                    on:keydown=keyed(on_key)
                    on:focusout=on_leave
                >
                    {(!open.traces_only).then(|| view! {
                        <button
                            type="button"
                            role="menuitem"
                            disabled=reason.is_some()
                            title=reason
                            on:click=press(ablate)
                        >
                            "Ablate"
                            <span class="hint">"a"</span>
                        </button>
                        <button type="button" role="menuitem" disabled=reason.is_some() on:click=press(everywhere)>
                            "Ablate at every token"
                        </button>
                        {Over::all(node.node_type).iter().map(|over| {
                            let (node, slug) = (node.clone(), slug.clone());
                            let words = over.words(node.node_type);
                            let to_mean = move |_| {
                                close();
                                let held = node.clone();
                                means::find(session, notices, slug.clone(), node.clone(), *over, move |mean| {
                                    let (value, source) = &mean;
                                    let (name, value) = (names::node_name(&held), format::number(*value));
                                    notices.say(format!("{name} is held at {value}: {source}."));
                                    session.remember_source(&held, &mean);
                                    session.ablate(held, mean.0);
                                });
                            };
                            menu_item(format!("Ablate to the {words}"), to_mean)
                        }).collect_view()}
                    })}
                    {(!open.traces_only).then(|| {
                        let pinned = node.clone();
                        let is_pinned = session.view.see(|v| v.pinned().contains(&pinned));
                        let words = if is_pinned { "Unpin from the circuit" } else { "Pin to the circuit" };
                        menu_item(view! { {words}<span class="hint">"p"</span> }, move |_| {
                            close();
                            session.toggle_pin(pinned.clone());
                        })
                    })}
                    {traces(node.node_type).into_iter().map(|(through, label)| {
                        let node = node.clone();
                        menu_item(label, move |_| {
                            close();
                            session.trace(node.clone(), through);
                        })
                    }).collect_view()}
                    {(is_gated() && node.node_type == NodeType::MlpNeuron).then(|| {
                        let node = node.clone();
                        menu_item("Trace what its gate is multiplied with", move |_| {
                            close();
                            session.trace_up(node.clone());
                        })
                    })}
                    {(!open.traces_only).then(|| href.map(|href| view! {
                        <a role="menuitem" tabindex="0" href=href target="_blank" rel="noopener">
                            "Open page"
                            <span class="hint">"o"</span>
                        </a>
                    }))}
                </div>
            }
        }))}
    }
}
