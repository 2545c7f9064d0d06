//! How well dictionaries fit the left prompt, beside their switches.

use leptos::prelude::*;
use tdb_api::page::PageState;
use tdb_api::routes::DictionaryFidelity as Route;
use tdb_api::{
    ComponentTypeForAttention, ComponentTypeForMlp, DictionaryFidelity, DictionaryFidelityRequest,
    DictionaryFidelityResponse, LayerFidelity, NodeType,
};

use crate::remote::{Remote, follow};
use crate::server::Server;
use crate::session::Session;

/// Of the dictionaries whose latents the table shows.
#[component]
pub fn Fidelity() -> impl IntoView {
    let session = Session::get();
    let server = Server::get();
    let request = move || {
        let asked = session.asked.get()?;
        // The reference's server does not tell.
        let tells = server.facts.with(|f| f.as_ref().is_some_and(|f| f.server.is_some()));
        (tells && !shown(&asked).is_empty()).then_some(DictionaryFidelityRequest {
            prompt: asked.left.prompt,
            target_tokens: asked.left.target_tokens,
            distractor_tokens: asked.left.distractor_tokens,
        })
    };
    let (state, _) = follow::<Route>(request);
    let lines = move || match (state.get(), session.asked.get()) {
        (Remote::Ready(answer), Some(asked)) => lines(&answer, &shown(&asked)),
        _ => Vec::new(),
    };
    view! {
        <Show when=move || !lines().is_empty()>
            <ul class="plain quiet" id="fidelity" aria-label="How well the dictionaries fit this prompt">
                {move || lines().into_iter().map(|(line, mismatch)| view! {
                    <li>
                        {line}
                        {mismatch.map(|sentence| view! { <strong role="alert">" "{sentence}</strong> })}
                    </li>
                }).collect_view()}
            </ul>
        </Show>
    }
}

/// The dictionaries whose latents are shown, by the type of these; of the residual one a single layer.
fn shown(page: &PageState) -> Vec<(NodeType, Option<i64>)> {
    let mut shown = Vec::new();
    if page.component_type_for_mlp == ComponentTypeForMlp::AutoencoderLatent {
        shown.push((NodeType::MlpAutoencoderLatent, None));
    }
    if page.component_type_for_attention == ComponentTypeForAttention::AutoencoderLatent {
        shown.push((NodeType::AttentionAutoencoderLatent, None));
    }
    shown.extend(page.residual_cut_layer.map(|layer| (NodeType::ResidualAutoencoderLatent, Some(layer))));
    shown
}

/// A line for each dictionary, and what is wrong with it.
fn lines(answer: &DictionaryFidelityResponse, shown: &[(NodeType, Option<i64>)]) -> Vec<(String, Option<String>)> {
    let find = |node_type: NodeType| answer.dictionaries.iter().find(move |d| d.node_type == node_type);
    let line = |(node_type, layer): &(NodeType, Option<i64>)| {
        let dictionary = find(*node_type)?;
        Some((describe(answer, dictionary, *layer)?, dictionary.mismatch.clone()))
    };
    shown.iter().filter_map(line).collect()
}

/// One layer's figures, or the range over all of them.
fn describe(answer: &DictionaryFidelityResponse, of: &DictionaryFidelity, layer: Option<i64>) -> Option<String> {
    let layers: Vec<&LayerFidelity> =
        of.layers.iter().filter(|found| layer.is_none_or(|layer| found.layer_index == layer)).collect();
    let range = |value: &dyn Fn(&LayerFidelity) -> f64, digits: usize| -> Option<String> {
        let values = layers.iter().map(|layer| value(layer));
        let (least, most) = (values.clone().reduce(f64::min)?, values.reduce(f64::max)?);
        let [least, most] = [least, most].map(|x| format!("{x:.digits$}"));
        Some(if least == most { least } else { format!("{least} to {most}") })
    };
    let active = |layer: &LayerFidelity| {
        layer.active_latents.iter().sum::<i64>() as f64 / layer.active_latents.len().max(1) as f64
    };
    let mut text = format!(
        "{}: {} % of the variance on this prompt, {} latents a token; with the reconstruction in place, loss {} instead of \
         {:.2}",
        of.name,
        range(&|layer| 100.0 * layer.variance_explained, 0)?,
        range(&active, 0)?,
        range(&|layer| layer.cross_entropy, 2)?,
        answer.cross_entropy,
    );
    if let Some(plain) = answer.logit_difference {
        let made = range(&|layer| layer.logit_difference.unwrap_or_default(), 2)?;
        text.push_str(&format!(", logit difference {made} instead of {plain:.2}"));
    }
    text.push('.');
    Some(text)
}
