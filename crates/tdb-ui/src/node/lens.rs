//! What the node says in tokens: inputs that would excite it, outputs that its write favours.

use leptos::prelude::*;
use serde_json::{Value, json};
use tdb_api::{NodeType, TopTokens};

use super::Node;
use crate::format;
use crate::remote::{Question, Remote, follow};
use crate::ui::{CardHead, ProblemCard, token_text};

const FEW: usize = 20;

/// The tensor that holds the node's activations in a run.
fn location(node_type: NodeType) -> Option<&'static str> {
    match node_type {
        NodeType::MlpNeuron => Some("mlp.post_act"),
        NodeType::AutoencoderLatent => Some("online_autoencoder_latent"),
        NodeType::MlpAutoencoderLatent => Some("online_mlp_autoencoder_latent"),
        NodeType::AttentionAutoencoderLatent | NodeType::AutoencoderLatentByTokenPair => {
            Some("online_attention_autoencoder_latent")
        }
        NodeType::ResidualStreamChannel => Some("resid.post_mlp"),
        _ => None,
    }
}

fn question(node: Node, input: bool) -> Question {
    let a = node.address.get()?;
    if !(if input { a.kind.input_side } else { a.kind.output_side }) {
        return None;
    }
    let set = |pass: &str| {
        json!({
            "index": { "activationLocationType": location(a.kind.node_type), "tensorIndices": [0, a.node_index], "layerIndex": a.layer_index, "passType": pass },
            "value": 1,
        })
    };
    let (run, spec) = if input {
        (
            json!({ "prompt": "a", "ablationSpecs": [set("backward")], "lossFnConfig": { "name": "zero" } }),
            json!({ "dst": "vocab_token_write_to_input_direction", "activationIndex": 0, "numTopTokens": 100 }),
        )
    } else {
        let dst = if a.kind.node_type == NodeType::AutoencoderLatentByTokenPair {
            json!("online_attention_autoencoder_latent")
        } else {
            json!(a.kind.live)
        };
        (
            json!({ "prompt": "a", "ablationSpecs": [set("forward")] }),
            json!({ "dst": dst, "layerIndex": a.layer_index, "activationIndex": a.node_index, "numTopTokens": 100 }),
        )
    };
    Some((
        "/batched",
        json!({ "inferenceSubRequests": [{ "inferenceRequestSpec": run, "processingRequestSpecByName": { "singleton": spec } }] }),
    ))
}

#[component]
pub fn Lens() -> impl IntoView {
    let node = Node::get();
    let sides = move || node.address.get().map(|a| (a.kind.input_side, a.kind.output_side)).unwrap_or_default();
    view! {
        <section class="card" aria-label="Logit lens" id="lens">
            <CardHead
                title="In tokens"
                about="the logit lens"
                tip="What the node would read and write if nothing else stood between it and the vocabulary."
            />
            <div class="card-body lens">
                <Show when=move || sides().0><LensSide input=true /></Show>
                <Show when=move || sides().1><LensSide input=false /></Show>
            </div>
        </section>
    }
}

#[component]
fn LensSide(input: bool) -> impl IntoView {
    let node = Node::get();
    let (state, again) = follow(move || question(node, input));
    let all = RwSignal::new(false);
    let (up, down) = if input {
        ("Input tokens that upvote this component", "… that downvote it")
    } else {
        ("Output tokens upvoted by this component", "… downvoted by it")
    };
    let list = move |tokens: &[tdb_api::TokenAndScalar]| {
        let n = if all.get() { tokens.len() } else { FEW };
        tokens
            .iter()
            .take(n)
            .map(|t| view! { <span class="token" title=format!("{} (of the largest: {})", format::full(t.scalar), format::number(t.normalized_scalar))>{token_text(&t.token)}</span>" " })
            .collect_view()
    };
    view! {
        <div class="stack">
            {move || match state.get() {
                Remote::Ready(value) => {
                    let top: Option<TopTokens> = serde_json::from_value(find(&value)).ok();
                    match top {
                        Some(top) => view! {
                            <h3>{up}</h3>
                            <div class="list">{list(&top.top)}</div>
                            <h3>{down}</h3>
                            <div class="list">{list(&top.bottom)}</div>
                            <div><button type="button" class="button small" on:click=move |_| all.update(|a| *a = !*a)>{move || if all.get() { "Show fewer" } else { "Show all" }}</button></div>
                        }.into_any(),
                        None => view! { <p class="quiet">"Nothing: the component writes nothing here."</p> }.into_any(),
                    }
                }
                Remote::Failed(problem) => view! { <ProblemCard problem=problem retry=again /> }.into_any(),
                _ => view! { <div class="skeleton tall-skeleton"></div> }.into_any(),
            }}
        </div>
    }
}

fn find(value: &Value) -> Value {
    value["inferenceSubResponses"][0]["processingResponseDataByName"]["singleton"]["topTokens"].clone()
}
