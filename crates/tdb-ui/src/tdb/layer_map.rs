//! Where in the model: the direct effect of every layer at every token.

use leptos::prelude::*;
use serde_json::{Map, Value, json};

use crate::format;
use crate::remote::{Question, Remote, follow};
use crate::session::Session;
use crate::ui::{DivergingLegend, ProblemCard, Tip, fill_style, sign_class};

const PARTS: [(&str, &str); 2] =
    [("attn_layer_write_to_final_residual_grad", "attention"), ("mlp_layer_write_to_final_residual_grad", "MLP")];

#[component]
pub fn LayerMap() -> impl IntoView {
    let session = Session::get();
    let server = crate::app::Server::get();
    let open = RwSignal::new(false);
    let layers = move || server.facts.with(|f| f.as_ref().map_or(0, |f| f.model.n_layers));
    let (state, again) = follow(move || if open.get() { question(session, layers()) } else { None });
    view! {
        <section class="card" aria-label="Layer by token map" id="layer-map">
            <div class="card-head">
                <button type="button" class="disclose" aria-expanded=move || open.get().to_string() on:click=move |_| open.update(|o| *o = !*o)>
                    <span aria-hidden="true">{move || if open.get() { "▾ " } else { "▸ " }}</span>
                    "Layer × token map"
                </button>
                <Tip about="the map">"The direct effect on the logit difference of all that a layer writes at a token, unablated. Press a cell to filter the table."</Tip>
            </div>
            <Show when=move || open.get()>
                <div class="card-body">
                    {move || match state.get() {
                        Remote::Ready(value) => map(session, &value, layers()),
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
fn question(session: Session, layers: i64) -> Question {
    let asked = session.asked.get()?;
    if layers == 0 || asked.left.upstream_node_to_trace.is_some() {
        return None;
    }
    let mut specs = Map::new();
    for layer in 0..layers {
        for (dst, _) in PARTS {
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

fn map(session: Session, value: &Value, layers: i64) -> AnyView {
    let parts = &value["inferenceSubResponses"][0]["processingResponseDataByName"];
    let tokens: Vec<String> =
        value["inferenceSubResponses"][0]["inferenceResponse"]["inferenceAndTokenData"]["tokensAsStrings"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|t| t.as_str().map(str::to_owned))
            .collect();
    let values = |dst: &str, layer: i64| -> Vec<f64> {
        parts[format!("{dst} {layer}")]["activations"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_f64)
            .collect()
    };
    let rows: Vec<(i64, &str, Vec<f64>)> = (0..layers)
        .rev()
        .flat_map(|layer| PARTS.iter().rev().map(move |(dst, word)| (layer, *word, *dst)))
        .map(|(l, w, dst)| (l, w, values(dst, l)))
        .collect();
    let most = rows.iter().flat_map(|(_, _, v)| v).fold(0.0f64, |m, v| m.max(v.abs()));
    let body = rows
        .into_iter()
        .map(|(layer, word, values)| {
            let cells = values
                .into_iter()
                .enumerate()
                .map(|(i, v)| {
                    let label = format!("Layer {layer} {word} at {} ({i}): {}", tokens.get(i).map(|t| format::quoted(t)).unwrap_or_default(), format::full(v));
                    view! {
                        <td class=format!("fill {}", sign_class(v)) style=fill_style(v, most)>
                            <button type="button" class="map-cell" title=label.clone() aria-label=label on:click=move |_| session.view.update(|view| {
                                view.layers = vec![layer];
                                view.tokens = vec![i];
                            })>
                                {if v > 0.0 { "+" } else if v < 0.0 { "−" } else { "" }}
                            </button>
                        </td>
                    }
                })
                .collect_view();
            view! { <tr><th scope="row">"L"{layer}" "{word}</th>{cells}</tr> }
        })
        .collect_view();
    let heads =
        tokens.iter().map(|t| view! { <th scope="col"><span class="map-token">{t.clone()}</span></th> }).collect_view();
    view! {
        <div class="heat-scroll" tabindex="0" role="group" aria-label="Layer by token map">
            <table class="map"><tbody>{body}</tbody><tfoot><tr><td></td>{heads}</tr></tfoot></table>
        </div>
        <DivergingLegend most=most />
    }
    .into_any()
}
