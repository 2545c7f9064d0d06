//! The attention pattern of one head on the present prompt.

use leptos::prelude::*;
use tdb_api::routes::DerivedScalars;
use tdb_api::{DerivedScalarType, DerivedScalarsRequest, DerivedScalarsResponse, NodeIndex};

use crate::format;
use crate::names;
use crate::remote::{Remote, follow};
use crate::requests;
use crate::session::Session;
use crate::ui::{ProblemCard, SaveFigure, fill_style};

#[component]
pub fn AttentionPattern(node: NodeIndex) -> impl IntoView {
    let session = Session::get();
    let (from, to) = (names::token_from(&node), names::token_to(&node));
    let places = node.tensor_indices.iter().map(|i| i.map_or("all".to_owned(), |i| i.to_string()));
    let id = format!("pattern-{}-{}", node.layer_index.unwrap_or_default(), places.collect::<Vec<_>>().join("-"));
    let (state, again) = follow::<DerivedScalars>(move || {
        let prompt = session.asked.with(|a| a.as_ref().map(|a| a.left.prompt.clone()))?;
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
                <SaveFigure what="the attention pattern" of=format!("#{id} .matrix") file="attention" />
            </div>
            {move || match state.get() {
                Remote::Ready(response) => matrix(&response, from, to),
                Remote::Failed(problem) => view! { <ProblemCard problem=problem retry=again /> }.into_any(),
                _ => view! { <span class="skeleton wide-skeleton"></span> }.into_any(),
            }}
        </div>
    }
}

/// Rows of a lower triangle, drawn as a square.
fn matrix(response: &DerivedScalarsResponse, from: Option<usize>, to: Option<usize>) -> AnyView {
    let tokens = &response.inference_and_token_data.tokens_as_strings;
    let flat = &response.derived_scalars_response_data.activations;
    let n = tokens.len();
    if flat.len() != n * (n + 1) / 2 {
        return view! { <p class="quiet">"The server gives no pattern for this head."</p> }.into_any();
    }
    let rows = (0..n)
        .map(|i| {
            let start = i * (i + 1) / 2;
            let cells = (0..n)
                .map(|j| match j <= i {
                    true => {
                        let v = flat[start + j];
                        let title = format!(
                            "{} ({i}) attends to {} ({j}): {}",
                            format::quoted(&tokens[i]),
                            format::quoted(&tokens[j]),
                            format::full(v)
                        );
                        let here = Some(i) == from && Some(j) == to;
                        view! { <td class="fill seq" class:here=here style=fill_style(v, 1.0) title=title></td> }
                            .into_any()
                    }
                    false => view! { <td></td> }.into_any(),
                })
                .collect_view();
            view! { <tr><th scope="row">{tokens[i].clone()}</th>{cells}</tr> }
        })
        .collect_view();
    view! { <table class="matrix"><tbody>{rows}</tbody></table> }.into_any()
}
