//! How well dictionaries fit the left prompt.

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
use crate::signals::{Memo, See};
use crate::ui::{CollectView, Show, dynamic};

/// Of the dictionaries whose latents the table shows.
#[component]
pub fn Fidelity() -> impl IntoView {
    let session = Session::get();
    let server = Server::get();
    let request = move || {
        let asked = session.asked.get()?;
        // The reference's server does not tell.
        let tells = server.facts.see(|f| f.as_ref().is_some_and(|f| f.server.is_some()));
        (tells && !shown(&asked).is_empty()).then_some(DictionaryFidelityRequest {
            prompt: asked.left.prompt,
            target_tokens: asked.left.target_tokens,
            distractor_tokens: asked.left.distractor_tokens,
        })
    };
    let (state, _) = follow::<Route>(request);
    let told = Memo::new(move |_| match (state.get(), session.asked.get()) {
        (Remote::Ready(answer), Some(asked)) => Told::of(&answer, &shown(&asked)),
        _ => Told::default(),
    });
    view! {
        <Show when=move || told.see(|told| !told.summary.is_empty())>
            <div class="fidelity small-text" id="fidelity">
                {dynamic(move || {
                    let told = told.get();
                    view! {
                        <details>
                            <summary class="quiet">{told.summary}</summary>
                            <ul class="quiet">
                                {told.lines.into_iter().map(|line| view! { <li>{line}</li> }).collect_view()}
                            </ul>
                        </details>
                        {told.mismatches.into_iter().map(|sentence| view! {
                            <strong role="alert">{sentence}</strong>
                        }).collect_view()}
                    }
                })}
            </div>
        </Show>
    }
}

/// What the page says of the fit.
#[derive(Clone, Default, PartialEq)]
struct Told {
    /// In one sentence.
    summary: String,
    /// More of each dictionary.
    lines: Vec<String>,
    /// What is wrong with them.
    mismatches: Vec<String>,
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

impl Told {
    fn of(answer: &DictionaryFidelityResponse, shown: &[(NodeType, Option<i64>)]) -> Self {
        let mut told = Self::default();
        let mut shares = Vec::new();
        for (node_type, layer) in shown {
            let Some(of) = answer.dictionaries.iter().find(|d| d.node_type == *node_type) else { continue };
            let layers: Vec<&LayerFidelity> =
                of.layers.iter().filter(|found| layer.is_none_or(|layer| found.layer_index == layer)).collect();
            let Some(share) = range(&layers, |layer| 100.0 * layer.variance_explained, 0) else { continue };
            shares.push(format!("{} {share} %", name(*node_type)));
            told.lines.extend(describe(answer, of, &layers));
            told.mismatches.extend(of.mismatch.clone());
        }
        if !shares.is_empty() {
            told.summary = format!("Autoencoders explain of the variance: {}.", shares.join(", "));
        }
        told
    }
}

fn name(node_type: NodeType) -> &'static str {
    match node_type {
        NodeType::MlpAutoencoderLatent => "MLP",
        NodeType::AttentionAutoencoderLatent => "attention",
        _ => "residual stream",
    }
}

/// One layer's figure, or the range over several.
fn range(layers: &[&LayerFidelity], value: impl Fn(&LayerFidelity) -> f64, digits: usize) -> Option<String> {
    let values: Vec<f64> = layers.iter().map(|layer| value(layer)).collect();
    let (least, most) = (values.iter().copied().reduce(f64::min)?, values.iter().copied().reduce(f64::max)?);
    let [least, most] = [least, most].map(|x| format!("{x:.digits$}"));
    Some(if least == most { least } else { format!("{least} to {most}") })
}

fn describe(answer: &DictionaryFidelityResponse, of: &DictionaryFidelity, layers: &[&LayerFidelity]) -> Option<String> {
    let active = |layer: &LayerFidelity| {
        layer.active_latents.iter().sum::<i64>() as f64 / layer.active_latents.len().max(1) as f64
    };
    let mut text = format!(
        "{}: {} latents a token; with the reconstruction of a layer in its place, loss {} instead of {:.2}",
        of.name,
        range(layers, active, 0)?,
        range(layers, |layer| layer.cross_entropy, 2)?,
        answer.cross_entropy,
    );
    if let Some(plain) = answer.logit_difference {
        let made = range(layers, |layer| layer.logit_difference.unwrap_or_default(), 2)?;
        text += &format!(", logit difference {made} instead of {plain:.2}");
    }
    text.push('.');
    Some(text)
}
