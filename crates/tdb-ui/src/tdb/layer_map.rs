//! Where in the model: effects and writes by layer and token.

use std::collections::BTreeMap;

use leptos::{html, prelude::*};
use serde_json::{Map, Value, json};
use tdb_api::NodeType;

use crate::answer::{Metric, View};
use crate::dom;
use crate::format;
use crate::remote::{Question, Remote, follow};
use crate::session::Session;
use crate::ui::{DivergingLegend, ProblemCard, SaveFigure, Tip, fill_style, sign_class};

/// What the map can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Sums over the nodes of the table.
    Listed,
    /// Of whole layers, which the server is asked for.
    Writes,
    Direct,
}

impl Mode {
    const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::Listed, "listed", "Total effect of the nodes listed"),
        (Self::Writes, "writes", "Write magnitude of whole layers"),
        (Self::Direct, "direct", "Direct effect of whole layers"),
    ];

    /// Scalars of attention and MLP layers.
    fn parts(self) -> [(&'static str, &'static str); 2] {
        match self {
            Self::Writes | Self::Listed => [("attn_layer_write_norm", "attention"), ("mlp_layer_write_norm", "MLP")],
            Self::Direct => [
                ("attn_layer_write_to_final_residual_grad", "attention"),
                ("mlp_layer_write_to_final_residual_grad", "MLP"),
            ],
        }
    }
}

/// A row of the map: layer, part, a value for each token.
type MapRow = (i64, &'static str, Vec<f64>);

#[component]
pub fn LayerMap() -> impl IntoView {
    let session = Session::get();
    let server = crate::app::Server::get();
    let open = RwSignal::new(false);
    let mode = RwSignal::new(Mode::Listed);
    let layers = move || server.facts.with(|f| f.as_ref().map_or(0, |f| f.model.n_layers));
    let (state, again) =
        follow(
            move || {
                if open.get() && mode.get() != Mode::Listed { question(session, layers(), mode.get()) } else { None }
            },
        );
    view! {
        <section class="card" aria-label="Layer by token map" id="layer-map">
            <div class="card-head">
                <button type="button" class="disclose" aria-expanded=move || open.get().to_string() on:click=move |_| open.update(|o| *o = !*o)>
                    <span aria-hidden="true">{move || if open.get() { "▾ " } else { "▸ " }}</span>
                    "Layer × token map"
                </button>
                <Tip about="the map">"Where the effect arises: by layer, upwards, and token. Whole layers are measured without ablations. Press a cell to see its nodes in the table."</Tip>
                <span class="grow"></span>
                <Show when=move || open.get()>
                    <SaveFigure what="the map" of="#layer-map .map" file="layers-by-tokens" />
                </Show>
            </div>
            <Show when=move || open.get()>
                <div class="card-body">
                    <select class="field" aria-label="What the map shows" on:change=move |e| {
                        if let Some((m, ..)) = Mode::ALL.iter().find(|(_, word, _)| *word == event_target_value(&e)) {
                            mode.set(*m);
                        }
                    }>
                        {Mode::ALL.iter().map(|(_, word, label)| view! { <option value=*word>{*label}</option> }).collect_view()}
                    </select>
                    {move || match state.get() {
                        _ if mode.get() == Mode::Listed => listed(session),
                        Remote::Ready(value) => map(session, &value, layers(), mode.get()),
                        Remote::Failed(problem) => view! { <ProblemCard problem=problem retry=again /> }.into_any(),
                        Remote::Idle => view! { <p class="quiet">"The map is of the logits; clear the trace to see it."</p> }.into_any(),
                        Remote::Loading => view! { <div class="skeleton tall-skeleton"></div> }.into_any(),
                    }}
                </div>
            </Show>
        </section>
    }
}

/// All layers in one run, with the final layer norm's scale held constant as in the table.
fn question(session: Session, layers: i64, mode: Mode) -> Question {
    let asked = session.asked.get()?;
    if layers == 0 || asked.left.upstream_node_to_trace.is_some() {
        return None;
    }
    let mut specs = Map::new();
    for layer in 0..layers {
        for (dst, _) in mode.parts() {
            specs.insert(format!("{dst} {layer}"), json!({ "dst": dst, "layerIndex": layer, "activationIndex": 0 }));
        }
    }
    let scale = json!({
        "index": { "activationLocationType": "resid.ln_f.scale", "tensorIndices": ["All", "All"], "layerIndex": null, "passType": "backward" },
        "value": 0,
    });
    let run = json!({
        "prompt": asked.left.prompt,
        "ablationSpecs": [scale],
        "lossFnConfig": { "name": "logit_diff", "targetTokens": asked.left.target_tokens, "distractorTokens": asked.left.distractor_tokens },
    });
    Some((
        "/batched",
        json!({ "inferenceSubRequests": [{ "inferenceRequestSpec": run, "processingRequestSpecByName": specs }] }),
    ))
}

fn map(session: Session, value: &Value, layers: i64, mode: Mode) -> AnyView {
    let sub = &value["inferenceSubResponses"][0];
    let parts = &sub["processingResponseDataByName"];
    let tokens = sub["inferenceResponse"]["inferenceAndTokenData"]["tokensAsStrings"].as_array().into_iter().flatten();
    let tokens: Vec<String> = tokens.filter_map(|t| t.as_str().map(str::to_owned)).collect();
    let values = |dst: &str, layer: i64| -> Vec<f64> {
        parts[format!("{dst} {layer}")]["activations"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_f64)
            .collect()
    };
    let mut rows: Vec<MapRow> = Vec::new();
    for layer in 0..layers {
        rows.extend(mode.parts().map(|(dst, word)| (layer, word, values(dst, layer))));
    }
    draw(session, &tokens, rows)
}

/// Sums of the table's rows: of its nodes alone, which are the strongest.
fn listed(session: Session) -> AnyView {
    let answer = session.answer.get();
    let tokens = answer.tokens().to_vec();
    let mut rows: BTreeMap<(i64, u8), Vec<f64>> = BTreeMap::new();
    for row in &answer.rows {
        let kind = match row.node.node_type {
            NodeType::Layer => 0,
            NodeType::AttentionHead | NodeType::AttentionAutoencoderLatent => 1,
            _ => 2,
        };
        let values = rows.entry((row.node.layer_index.unwrap_or(-1), kind)).or_insert_with(|| vec![0.0; tokens.len()]);
        if let Some(value) = row.from.and_then(|i| values.get_mut(i)) {
            *value += row.value(View::Left, Metric::TotalEffect);
        }
    }
    let rows = rows
        .into_iter()
        .map(|((layer, kind), values)| (layer, ["embedding", "attention", "MLP"][usize::from(kind)], values));
    draw(session, &tokens, rows.collect())
}

/// Rows are given from the bottom of the model up.
fn draw(session: Session, tokens: &[String], rows: Vec<MapRow>) -> AnyView {
    let most = rows.iter().flat_map(|(_, _, v)| v).fold(0.0f64, |m, v| m.max(v.abs()));
    let body = rows
        .into_iter()
        .rev()
        .map(|(layer, word, values)| {
            let name = if layer < 0 { word.to_owned() } else { format!("L{layer} {word}") };
            let cells = values
                .into_iter()
                .enumerate()
                .map(|(i, v)| {
                    let sign = if v > 0.0 { "+" } else if v < 0.0 { "−" } else { "" };
                    let label = format!("{sign} {name} at {} ({i}): {}", tokens.get(i).map(|t: &String| format::quoted(t)).unwrap_or_default(), format::full(v));
                    view! {
                        <td class=format!("fill {}", sign_class(v)) style=fill_style(v, most)>
                            <button type="button" class="map-cell" title=label.clone() aria-label=label on:click=move |_| session.view.update(|view| {
                                view.layers = if layer < 0 { Vec::new() } else { vec![layer] };
                                view.tokens = vec![i];
                            })>{sign}</button>
                        </td>
                    }
                })
                .collect_view();
            view! { <tr><th scope="row">{name}</th>{cells}</tr> }
        })
        .collect_view();
    let heads = tokens.iter().map(|t| view! { <td><span class="map-token">{t.clone()}</span></td> }).collect_view();
    // The question is asked at the end, so that is what a long prompt shows first.
    let scroll = NodeRef::<html::Div>::new();
    Effect::new(move |_| dom::scroll_to_end(scroll.get()));
    view! {
        <div class="heat-scroll" tabindex="0" role="group" aria-label="Layer by token map" node_ref=scroll>
            <table class="map"><tbody>{body}</tbody><tfoot><tr><td></td>{heads}</tr></tfoot></table>
        </div>
        <DivergingLegend most=most />
    }
    .into_any()
}
