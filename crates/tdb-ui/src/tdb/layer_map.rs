//! Where in the model: effects and writes by layer and token.

use leptos::{html, prelude::*};
use tdb_api::numbers::{LayerPart, LayerSums, largest_magnitude};
use tdb_api::routes::Batched;
use tdb_api::{
    AblationSpec, ActivationLocationType, AllOrOneIndex, BatchedRequest, BatchedResponse, DerivedScalarType,
    InferenceRequestSpec, InferenceSubRequest, LossFnConfig, LossFnName, MirroredActivationIndex, PassType,
    ProcessingRequestSpec,
};

use crate::answer::{Compared, Metric};
use crate::dom;
use crate::format;
use crate::remote::{Remote, follow};
use crate::requests;
use crate::server::Server;
use crate::session::Session;
use crate::signals::{Change, RwSignal, See, effect};
use crate::ui::{
    CollectView, DivergingLegend, ProblemCard, SaveFigure, Show, Tip, dynamic, entered, fill_style, follows, press,
    sign_class,
};

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
    fn parts(self) -> [(DerivedScalarType, LayerPart); 2] {
        use DerivedScalarType as Dst;
        let (attention, mlp) = match self {
            Self::Writes | Self::Listed => (Dst::AttnLayerWriteNorm, Dst::MlpLayerWriteNorm),
            Self::Direct => (Dst::AttnLayerWriteToFinalResidualGrad, Dst::MlpLayerWriteToFinalResidualGrad),
        };
        [(attention, LayerPart::Attention), (mlp, LayerPart::Mlp)]
    }
}

/// A row of the map: layer, part, a value for each token.
type MapRow = (i64, LayerPart, Vec<f64>);

fn label(part: LayerPart) -> &'static str {
    match part {
        LayerPart::Embedding => "embedding",
        LayerPart::Residual => "residual latents",
        LayerPart::Attention => "attention",
        LayerPart::Mlp => "MLP",
    }
}

/// The name of what is asked of a layer.
fn name(dst: DerivedScalarType, layer: i64) -> String {
    format!("{dst} {layer}")
}

#[component]
pub fn LayerMap() -> impl IntoView {
    let session = Session::get();
    let server = Server::get();
    let open = RwSignal::new(false);
    let mode = RwSignal::new(Mode::Listed);
    let layers = move || server.facts.see(|f| f.as_ref().map_or(0, |f| f.model.n_layers));
    let request = move || {
        let asks = open.get() && mode.get() != Mode::Listed;
        if asks { request(session, layers(), mode.get()) } else { None }
    };
    let (state, again) = follow::<Batched>(request);
    view! {
        <section class="card" aria-label="Layer by token map" id="layer-map">
            <div class="card-head">
                <button
                    type="button"
                    class="disclose"
                    aria-expanded=follows(move || open.get().to_string())
                    on:click=press(move |_| open.change(|o| *o = !*o))
                >
                    <span aria-hidden="true">{dynamic(move || if open.get() { "▾ " } else { "▸ " })}</span>
                    "Layer × token map"
                </button>
                <Tip about="the map">
                    "Where the effect arises: by layer, upwards, and token. Whole layers are measured without \
                        ablations. Press a cell to see its nodes in the table."
                </Tip>
                <span class="grow"></span>
                <Show when=move || open.get()>
                    <SaveFigure what="the map" of="#layer-map .map" file="layers-by-tokens" />
                </Show>
            </div>
            <Show when=move || open.get()>
                <div class="card-body">
                    <select class="field" aria-label="What the map shows" on:change=entered(move |e| {
                        if let Some((m, ..)) = Mode::ALL.iter().find(|(_, word, _)| *word == event_target_value(&e)) {
                            mode.set(*m);
                        }
                    })>
                        {Mode::ALL.iter().map(|(_, word, label)| view! {
                            <option value=*word>{*label}</option>
                        }).collect_view()}
                    </select>
                    {dynamic(move || match state.get() {
                        _ if mode.get() == Mode::Listed => listed(session),
                        Remote::Ready(response) => map(session, &response, layers(), mode.get()),
                        Remote::Failed(problem) => view! { <ProblemCard problem=problem retry=again /> }.into_any(),
                        Remote::Idle => view! {
                            <p class="quiet">"The map is of the logits; clear the trace to see it."</p>
                        }.into_any(),
                        Remote::Loading => view! { <div class="skeleton tall-skeleton"></div> }.into_any(),
                    })}
                </div>
            </Show>
        </section>
    }
}

/// All layers in one run, with the final layer norm's scale held constant as in the table.
fn request(session: Session, layers: i64, mode: Mode) -> Option<BatchedRequest> {
    let asked = session.asked.get()?;
    if layers == 0 || asked.left.upstream_node_to_trace.is_some() {
        return None;
    }
    let of_layer = |layer: i64| {
        mode.parts().map(|(dst, _)| {
            let spec = requests::scalars(dst, Some(layer), 0);
            (name(dst, layer), ProcessingRequestSpec::DerivedScalars(spec))
        })
    };
    let scale = AblationSpec {
        index: MirroredActivationIndex {
            activation_location_type: ActivationLocationType::ResidFinalLayerNormScale,
            tensor_indices: vec![AllOrOneIndex::All; 2],
            layer_index: None,
            pass_type: PassType::Backward,
        },
        value: 0.0,
    };
    let inference_request_spec = InferenceRequestSpec {
        ablation_specs: Some(vec![scale]),
        loss_fn_config: Some(LossFnConfig {
            name: LossFnName::LogitDiff,
            target_tokens: Some(asked.left.target_tokens),
            distractor_tokens: Some(asked.left.distractor_tokens),
        }),
        ..requests::run(asked.left.prompt)
    };
    let processing_request_spec_by_name = (0..layers).flat_map(of_layer).collect();
    Some(BatchedRequest {
        inference_sub_requests: vec![InferenceSubRequest { inference_request_spec, processing_request_spec_by_name }],
    })
}

fn map(session: Session, response: &BatchedResponse, layers: i64, mode: Mode) -> AnyView {
    let Some(run) = response.inference_sub_responses.first() else { return ().into_any() };
    let values = |dst, layer| run.scalars(&name(dst, layer)).map(|data| data.activations.clone()).unwrap_or_default();
    let of_layer = |layer: i64| mode.parts().map(|(dst, part)| (layer, part, values(dst, layer)));
    let tokens = &run.inference_response.inference_and_token_data.tokens_as_strings;
    draw(session, tokens, (0..layers).flat_map(of_layer).collect())
}

/// Sums of the table's rows: of its nodes alone, which are the strongest.
fn listed(session: Session) -> AnyView {
    let answer = session.answer.get();
    let mut sums = LayerSums::new(answer.tokens().len());
    for row in &answer.rows {
        if let Some(value) = row.value(Compared::Left, Metric::TotalEffect) {
            sums.add(row.node.node_type, row.node.layer_index, row.from[0], value);
        }
    }
    draw(session, answer.tokens(), sums.rows().collect())
}

/// Rows are given from the bottom of the model up.
fn draw(session: Session, tokens: &[String], rows: Vec<MapRow>) -> AnyView {
    let most = largest_magnitude(rows.iter().flat_map(|(_, _, values)| values).copied());
    let body = rows
        .into_iter()
        .rev()
        .map(|(layer, part, values)| {
            let name = if layer < 0 { label(part).to_owned() } else { format!("L{layer} {}", label(part)) };
            let cells = values
                .into_iter()
                .enumerate()
                .map(|(i, v)| {
                    let sign = if v > 0.0 {
                        "+"
                    } else if v < 0.0 {
                        "−"
                    } else {
                        ""
                    };
                    let label = format!(
                        "{sign} {name} at {} ({i}): {}",
                        tokens.get(i).map(|t: &String| format::quoted(t)).unwrap_or_default(),
                        format::full(v)
                    );
                    view! {
                        <td class=format!("fill {}", sign_class(v)) style=fill_style(v, most)>
                            <button
                                type="button"
                                class="map-cell"
                                title=label.clone()
                                aria-label=label
                                on:click=press(move |_| session.view.change(|view| {
                                    view.layers = if layer < 0 { Vec::new() } else { vec![layer] };
                                    view.tokens = vec![i];
                                }))
                            >
                                {sign}
                            </button>
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
    effect(move || dom::scroll_to_end(scroll.get()));
    view! {
        <div class="heat-scroll" tabindex="0" role="group" aria-label="Layer by token map" node_ref=scroll>
            <table class="map"><tbody>{body}</tbody><tfoot><tr><td></td>{heads}</tr></tfoot></table>
        </div>
        <DivergingLegend most=most />
    }
    .into_any()
}
