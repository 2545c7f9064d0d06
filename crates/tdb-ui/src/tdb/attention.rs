//! The attention pattern of one head on the present prompt.

use leptos::prelude::*;
use tdb_api::routes::DerivedScalars;
use tdb_api::{DerivedScalarType, DerivedScalarsRequest, DerivedScalarsResponse, NodeIndex};

use super::question::side;
use super::tools::Tools;
use crate::context::expect_context;
use crate::names;
use crate::remote::{Remote, follow};
use crate::requests;
use crate::session::Session;
use crate::signals::See;
use crate::ui::{ProblemCard, SaveFigure, Triangle, button, dynamic};

#[component]
pub fn AttentionPattern(
    node: NodeIndex,
    /// Whether it is named by the right prompt's tokens.
    right: bool,
) -> impl IntoView {
    let session = Session::get();
    let (from, to) = (names::token_from(&node), names::token_to(&node));
    let (layer, head) = (node.layer_index.unwrap_or_default(), names::unit(&node));
    let tools = expect_context::<Tools>();
    let places = node.tensor_indices.iter().map(|i| i.map_or("all".to_owned(), |i| i.to_string()));
    let id = format!("pattern-{}-{}", node.layer_index.unwrap_or_default(), places.collect::<Vec<_>>().join("-"));
    let (state, again) = follow::<DerivedScalars>(move || {
        let prompt = session.asked.see(|a| a.as_ref().and_then(|a| side(a, right)).map(|s| s.prompt.clone()))?;
        let dst = DerivedScalarType::FlattenedAttnPostSoftmax;
        Some(DerivedScalarsRequest {
            inference_request_spec: requests::run(prompt),
            derived_scalars_request_spec: requests::scalars(dst, node.layer_index, names::unit(&node)),
        })
    });
    view! {
        <div class="pattern" id=id.clone()>
            <div class="row">
                <span class="label">"Attention pattern, baseline (rows: query, columns: key)"</span>
                {button("button small plain", "Enlarge", move |_| tools.show_head(layer, head))}
                <SaveFigure what="the attention pattern" of=format!("#{id} .matrix") file="attention" />
            </div>
            {dynamic(move || match state.get() {
                Remote::Ready(response) => matrix(&response, from, to),
                Remote::Failed(problem) => view! { <ProblemCard problem=problem retry=again /> }.into_any(),
                _ => view! { <span class="skeleton wide-skeleton"></span> }.into_any(),
            })}
        </div>
    }
}

fn matrix(response: &DerivedScalarsResponse, from: Option<usize>, to: Option<usize>) -> AnyView {
    let tokens = &response.inference_and_token_data.tokens_as_strings;
    let triangle = Triangle { tokens, values: &response.derived_scalars_response_data.activations };
    if !triangle.is_whole() {
        return view! { <p class="quiet">"The server gives no pattern for this head."</p> }.into_any();
    }
    view! { <div inner_html=triangle.table(from.zip(to), false)></div> }.into_any()
}
