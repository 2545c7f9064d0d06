//! Switches of the question and of the page.

use leptos::prelude::*;
use tdb_api::{ComponentTypeForAttention, ComponentTypeForMlp};

use super::question::{Field, field_of};
use crate::dom;
use crate::server::Server;
use crate::session::Session;
use crate::signals::{Change, Memo, Peek, RwSignal, See};
use crate::ui::{CollectView, Dialog, Show, button, checkbox, choice, dynamic, entered, follows};
use crate::view::{COLUMNS, PANELS};

/// Why there is a cut.
const CUT: &str = "Dictionaries of several layers describe the same stream at different times, so that direct effects \
                   add up for one layer only. Nodes that write before the cut are left out: its latents and their \
                   error stand for them.";

#[component]
pub fn Options() -> impl IntoView {
    let session = Session::get();
    let server = Server::get();
    let open = RwSignal::new(false);
    let has = move |mlp: bool| {
        server
            .facts
            .get()
            .is_some_and(|f| if mlp { f.model.has_mlp_autoencoder } else { f.model.has_attention_autoencoder })
    };
    let mlp_on = move || session.page.see(|p| p.component_type_for_mlp == ComponentTypeForMlp::AutoencoderLatent);
    let attention_on =
        move || session.page.see(|p| p.component_type_for_attention == ComponentTypeForAttention::AutoencoderLatent);
    let set_mlp = move |on: bool| {
        session.step(move |p, _| {
            p.component_type_for_mlp =
                if on { ComponentTypeForMlp::AutoencoderLatent } else { ComponentTypeForMlp::Neuron }
        });
    };
    let set_attention = move |on: bool| {
        session.step(move |p, _| {
            p.component_type_for_attention =
                if on { ComponentTypeForAttention::AutoencoderLatent } else { ComponentTypeForAttention::AttentionHead }
        });
    };
    let layers = Memo::new(move |_| {
        let of = |f: &crate::server::Facts| Some(f.server.as_ref()?.residual_autoencoder.as_ref()?.layers.clone());
        server.facts.see(|f| f.as_ref().and_then(of)).unwrap_or_default()
    });
    let cut = move || session.page.see(|p| p.residual_cut_layer);
    let set_cut = move |text: String| session.step(move |p, _| p.residual_cut_layer = text.parse().ok());
    let wrong = RwSignal::new(None::<String>);
    let set_k = move |text: String| match text.trim().parse::<i64>() {
        Ok(k) if k >= 1 => {
            wrong.set(None);
            if session.page.peek(|p| p.top_and_bottom_k_for_node_table != k) {
                session.step(move |p, _| p.top_and_bottom_k_for_node_table = k);
            }
        }
        _ => wrong.set(Some("Enter a whole number, 1 or more.".to_owned())),
    };
    let problem =
        move || session.problem.get().filter(|p| field_of(p) == Some(Field::TopK)).map(|p| p.message).or(wrong.get());
    view! {
        // Autoencoders change what the rows are, so their switches are always shown.
        <Show when=move || has(true) || mlp_on()>
            {checkbox("mlp-autoencoders", "MLP autoencoders", mlp_on, set_mlp)}
        </Show>
        <Show when=move || has(false) || attention_on()>
            {checkbox("attention-autoencoders", "Attention autoencoders", attention_on, set_attention)}
        </Show>
        <Show when=move || !layers.get().is_empty() || cut().is_some()>
            <label class="check" title=CUT>
                "Residual latents, cut at layer"
                <select
                    class="field short"
                    id="residual-cut"
                    aria-describedby="residual-cut-reason"
                    on:change=entered(move |e| set_cut(event_target_value(&e)))
                >
                    {choice("", "none", move || cut().is_none())}
                    {dynamic(move || {
                        let layers = layers.get().into_iter();
                        layers.map(|layer| choice(layer.to_string(), layer.to_string(), move || cut() == Some(layer)))
                            .collect_view()
                    })}
                </select>
            </label>
            <Show when=move || cut().is_some()>
                <span class="quiet" id="residual-cut-reason">{CUT}</span>
            </Show>
        </Show>
        <label class="check" title="How many of the largest and of the smallest nodes, for each column of the table">
            "Rows per column (top k)"
            <input
                class="field short"
                id="top-k"
                inputmode="numeric"
                aria-invalid=follows(move || problem().is_some().to_string())
                prop:value=follows(move || session.page.see(|p| p.top_and_bottom_k_for_node_table.to_string()))
                on:change=entered(move |e| set_k(event_target_value(&e)))
            />
        </label>
        {dynamic(move || problem().map(|p| view! { <span class="field-error" role="alert">{p}</span> }))}
        {button("button small plain", "Display", move |_| open.set(true))}
        <Dialog open=open title="Display">
            <div class="stack">
                {PANELS.iter().map(|(key, label)| {
                    checkbox("", label, move || session.view.see(|v| v.shows(key)), move |on| {
                        session.view.change(|v| {
                            v.hidden.retain(|h| h != key);
                            if !on {
                                v.hidden.push((*key).to_owned());
                            }
                        });
                    })
                }).collect_view()}
                <h3>"Columns of the node table"</h3>
                {COLUMNS.iter().map(|(key, label, _)| {
                    let is_shown = move || session.view.see(|v| v.shows_column(key, dom::is_narrow()));
                    checkbox("", label, is_shown, move |_| {
                        session.view.change(|v| v.toggle_column(key, dom::is_narrow()));
                    })
                }).collect_view()}
                <h3>"Rows of the node table"</h3>
                {checkbox(
                    "",
                    "Hide earlier layers when ablating",
                    move || session.page.see(|p| p.hide_early_layers_when_ablating),
                    move |on| session.page.change(|p| p.hide_early_layers_when_ablating = on),
                )}
                <p class="quiet">
                    "An ablation changes nothing in the layers before it; their rows would be the same on both sides."
                </p>
            </div>
        </Dialog>
    }
}
