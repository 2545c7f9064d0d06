//! What the node says in tokens: inputs that would excite it, outputs that its write favours.

use leptos::prelude::*;
use tdb_api::routes::Batched;
use tdb_api::{
    AblationSpec, ActivationLocationType, AllOrOneIndex, BatchedRequest, BatchedResponse, DerivedScalarType,
    DerivedScalarsRequestSpec, IndexMap, InferenceRequestSpec, InferenceSubRequest, LossFnConfig, LossFnName,
    MirroredActivationIndex, NodeType, PassType, ProcessingRequestSpec, TokenAndScalar, TopTokens,
};

use super::Node;
use crate::format;
use crate::remote::{Remote, follow};
use crate::requests;
use crate::server::Server;
use crate::signals::{Change, Memo, RwSignal, See};
use crate::ui::{CardHead, CollectView, ProblemCard, Show, button, dynamic, token_text};

const FEW: usize = 20;
/// Tokens asked for at either end, where there are so many.
const ASKED: i64 = 100;
const NAME: &str = "singleton";

/// The tensor that holds the node's activations in a run.
fn location(node_type: NodeType) -> Option<ActivationLocationType> {
    match node_type {
        NodeType::MlpNeuron => Some(ActivationLocationType::MlpPostAct),
        NodeType::AutoencoderLatent => Some(ActivationLocationType::OnlineAutoencoderLatent),
        NodeType::MlpAutoencoderLatent => Some(ActivationLocationType::OnlineMlpAutoencoderLatent),
        NodeType::AttentionAutoencoderLatent | NodeType::AutoencoderLatentByTokenPair => {
            Some(ActivationLocationType::OnlineAttentionAutoencoderLatent)
        }
        NodeType::ResidualAutoencoderLatent => Some(ActivationLocationType::OnlineResidualAutoencoderLatent),
        _ => None,
    }
}

/// A run in which the node alone is set to 1: its gradient for the input side, its activation for the output side.
fn request(node: Node, input: bool, tokens: i64) -> Option<BatchedRequest> {
    let a = node.address.get()?;
    if !(if input { a.kind.input_side } else { a.kind.output_side }) {
        return None;
    }
    let set = AblationSpec {
        index: MirroredActivationIndex {
            activation_location_type: location(a.kind.node_type)?,
            tensor_indices: vec![AllOrOneIndex::One(0), AllOrOneIndex::One(a.node_index)],
            layer_index: Some(a.layer_index),
            pass_type: if input { PassType::Backward } else { PassType::Forward },
        },
        value: 1.0,
    };
    let zero = LossFnConfig { name: LossFnName::Zero, target_tokens: None, distractor_tokens: None };
    let (dst, layer_index, activation_index) = match (input, a.kind.node_type) {
        (true, _) => (DerivedScalarType::VocabTokenWriteToInputDirection, None, 0),
        (false, NodeType::AutoencoderLatentByTokenPair) => {
            (DerivedScalarType::OnlineAttentionAutoencoderLatent, Some(a.layer_index), a.node_index)
        }
        (false, _) => (a.kind.live, Some(a.layer_index), a.node_index),
    };
    let spec = DerivedScalarsRequestSpec {
        num_top_tokens: Some(tokens),
        ..requests::scalars(dst, layer_index, activation_index)
    };
    let run = InferenceRequestSpec {
        ablation_specs: Some(vec![set]),
        loss_fn_config: input.then_some(zero),
        ..requests::run("a")
    };
    let spec = ProcessingRequestSpec::DerivedScalars(spec);
    let processing_request_spec_by_name = IndexMap::from([(NAME.to_owned(), spec)]);
    let only = InferenceSubRequest { inference_request_spec: run, processing_request_spec_by_name };
    Some(BatchedRequest { inference_sub_requests: vec![only] })
}

fn found(response: &BatchedResponse) -> Option<&TopTokens> {
    response.inference_sub_responses.first()?.scalars(NAME)?.top_tokens.as_ref()
}

#[component]
pub fn Lens() -> impl IntoView {
    let node = Node::get();
    let sides = move || node.address.get().map(|a| (a.kind.input_side, a.kind.output_side)).unwrap_or_default();
    view! {
        <section class="card" aria-label="Logit lens" id="lens">
            <CardHead
                title="Logit lens"
                about="the logit lens"
                tip="Which tokens the node would react to and which it would favour, if it were connected to the \
                    vocabulary directly."
            />
            <div class="card-body lens">
                <Show when=move || sides().0>
                    <LensSide input=true />
                </Show>
                <Show when=move || sides().1>
                    <LensSide input=false />
                </Show>
            </div>
        </section>
    }
}

#[component]
fn LensSide(input: bool) -> impl IntoView {
    let node = Node::get();
    let server = Server::get();
    // A small model has fewer tokens than are asked for.
    let n_tokens = Memo::new(move |_| {
        let shape = server.facts.see(|facts| facts.as_ref()?.server.as_ref()?.shape.clone());
        shape.map_or(ASKED, |shape| shape.vocab_size.min(ASKED))
    });
    let (state, again) = follow::<Batched>(move || request(node, input, n_tokens.get()));
    let all = RwSignal::new(false);
    let (up, down) =
        if input { ("Excited by input tokens", "Inhibited by") } else { ("Promotes output tokens", "Suppresses") };
    let list = move |tokens: &[TokenAndScalar]| {
        let n = if all.get() { tokens.len() } else { FEW };
        tokens.iter().take(n).map(token).collect_view()
    };
    view! {
        <div class="stack">
            {dynamic(move || match state.get() {
                Remote::Ready(response) => match found(&response) {
                    Some(tokens) => view! {
                        <h3>{up}</h3>
                        <div class="list">{list(&tokens.top)}</div>
                        <h3>{down}</h3>
                        <div class="list">{list(&tokens.bottom)}</div>
                        <div>
                            {button(
                                "button small",
                                dynamic(move || if all.get() { "Show fewer" } else { "Show all" }),
                                move |_| all.change(|a| *a = !*a),
                            )}
                        </div>
                    }
                    .into_any(),
                    None => view! { <p class="quiet">"Nothing: the component writes nothing here."</p> }.into_any(),
                },
                Remote::Failed(problem) => view! { <ProblemCard problem=problem retry=again /> }.into_any(),
                _ => view! { <div class="skeleton tall-skeleton"></div> }.into_any(),
            })}
        </div>
    }
}

fn token(t: &TokenAndScalar) -> impl IntoView + use<> {
    let share = format::number(t.normalized_scalar);
    let title = format!("{} (of the largest: {share})", format::full(t.scalar));
    view! {
        <span class="token" title=title>{token_text(&t.token)}</span>
        <span class="token-index">{format::signed(t.scalar)}</span>
        " "
    }
}
