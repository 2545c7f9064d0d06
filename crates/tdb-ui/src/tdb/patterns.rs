//! Attention patterns of all heads on the prompt, as small pictures of which one is enlarged.

use std::fmt::Write as _;

use leptos::prelude::*;
use tdb_api::routes::Batched;
use tdb_api::{BatchedRequest, BatchedResponse, DerivedScalarType, InferenceSubRequest, ProcessingRequestSpec};

use super::tools::Tools;
use crate::context::expect_context;
use crate::dom;
use crate::remote::{Remote, follow};
use crate::requests;
use crate::server::Server;
use crate::session::Session;
use crate::signals::{Memo, RwSignal, See, Signal};
use crate::ui::{ProblemCard, SaveFigure, Triangle, dynamic, press};

/// Heads that one run is asked about, and heads in all: the server's own limits.
const PER_RUN: usize = 64;
const MOST: usize = 256;
/// Tokens up to which values are written into the cells.
const WRITTEN: usize = 24;

fn name(layer: i64, head: i64) -> String {
    format!("{layer}.{head}")
}

/// Every head of the model on the prompt, as it is without interventions.
fn request(prompt: &str, layers: i64, heads: i64) -> BatchedRequest {
    let all: Vec<(i64, i64)> = (0..layers).flat_map(|l| (0..heads).map(move |h| (l, h))).take(MOST).collect();
    let run = |heads: &[(i64, i64)]| {
        let dst = DerivedScalarType::FlattenedAttnPostSoftmax;
        let spec = |&(layer, head): &(i64, i64)| {
            (name(layer, head), ProcessingRequestSpec::DerivedScalars(requests::scalars(dst, Some(layer), head)))
        };
        InferenceSubRequest {
            inference_request_spec: requests::run(prompt),
            processing_request_spec_by_name: heads.iter().map(spec).collect(),
        }
    };
    BatchedRequest { inference_sub_requests: all.chunks(PER_RUN).map(run).collect() }
}

fn values<'a>(response: &'a BatchedResponse, name: &str) -> Option<Triangle<'a>> {
    response.inference_sub_responses.iter().find_map(|run| {
        let values = &run.scalars(name)?.activations;
        let tokens = &run.inference_response.inference_and_token_data.tokens_as_strings;
        Some(Triangle { tokens, values }).filter(Triangle::is_whole)
    })
}

/// Of the debugger's question.
#[component]
pub fn Patterns() -> impl IntoView {
    let session = Session::get();
    let prompt = Memo::new(move |_| session.asked.see(|a| a.as_ref().map(|a| a.left.prompt.clone())));
    let chosen = expect_context::<Tools>().head;
    view! { <PatternsOn prompt=prompt chosen=chosen /> }
}

/// Of a prompt; `chosen` is the head that is enlarged.
#[component]
pub fn PatternsOn(#[prop(into)] prompt: Signal<Option<String>>, chosen: RwSignal<Option<(i64, i64)>>) -> impl IntoView {
    let server = Server::get();
    let size = move || {
        server.facts.see(|f| {
            let f = f.as_ref()?;
            Some((f.model.n_layers, f.server.as_ref()?.shape.as_ref()?.n_heads))
        })
    };
    let (state, again) = follow::<Batched>(move || {
        let (layers, heads) = size()?;
        Some(request(&prompt.get()?, layers, heads))
    });
    let choose = move |event: web_sys::MouseEvent| {
        let picked = dom::closest(&event, "[data-head]").and_then(|e| e.get_attribute("data-head"));
        let head = picked.and_then(|name| {
            let (layer, head) = name.split_once('.')?;
            Some((layer.parse().ok()?, head.parse().ok()?))
        });
        if head.is_some() {
            chosen.set(head);
        }
    };
    view! {
        <div class="stack" id="patterns">
            <p class="quiet small-text">
                "Rows: the token that reads (query). Columns: the token that is read (key). Without ablations. Each \
                    picture is as bright as its largest value; press one to enlarge it."
            </p>
            {dynamic(move || match state.get() {
                Remote::Ready(response) => view! {
                    <div
                        class="patterns"
                        on:click=press(choose)
                        inner_html=small(&response, size().unwrap_or_default(), chosen.get())
                    ></div>
                    {chosen.get().and_then(|(layer, head)| {
                        let triangle = values(&response, &name(layer, head))?;
                        let numbers = triangle.tokens.len() <= WRITTEN;
                        Some(view! {
                            <div class="row">
                                <h3>{format!("attn_L{layer}_{head}")}</h3>
                                <span class="grow"></span>
                                <SaveFigure what="the pattern" of="#patterns .matrix" file="attention" />
                            </div>
                            <div
                                class="heat-scroll"
                                tabindex="0"
                                role="group"
                                aria-label="Attention pattern"
                                inner_html=triangle.table(None, numbers)
                            ></div>
                        })
                    })}
                }.into_any(),
                Remote::Failed(problem) => view! { <ProblemCard problem=problem retry=again /> }.into_any(),
                Remote::Idle => view! {
                    <p class="quiet">"The server does not tell how many heads there are."</p>
                }.into_any(),
                Remote::Loading => view! { <div class="skeleton tall-skeleton"></div> }.into_any(),
            })}
        </div>
    }
}

/// A row of small pictures for each layer.
fn small(response: &BatchedResponse, (layers, heads): (i64, i64), chosen: Option<(i64, i64)>) -> String {
    let mut out = String::new();
    for layer in 0..layers {
        let _ = write!(out, "<div class=\"pattern-row\"><span class=\"label\">L{layer}</span>");
        for head in 0..heads {
            let Some(triangle) = values(response, &name(layer, head)) else { continue };
            let _ = write!(
                out,
                "<button type=\"button\" data-head=\"{}\" aria-pressed=\"{}\" title=\"attn_L{layer}_{head}\" \
                 aria-label=\"attn_L{layer}_{head}\"><span style=\"mask-image:url({})\"></span></button>",
                name(layer, head),
                chosen == Some((layer, head)),
                triangle.mask()
            );
        }
        out.push_str("</div>");
    }
    out
}
