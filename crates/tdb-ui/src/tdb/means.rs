//! Mean ablation: what a component does on average, as a value to hold it at, with the place that the average is taken
//! over.

use leptos::prelude::*;
use tdb_api::numbers::{mean, mean_attention};
use tdb_api::page::{ModelSlug, NodePage, NodePageKind};
use tdb_api::{DerivedScalarsRequest, NodeIndex, NodeType, routes};

use super::Slug;
use crate::client;
use crate::format;
use crate::names;
use crate::records::stored_node;
use crate::requests;
use crate::session::Session;
use crate::signals::{Peek, RwSignal, See, Signal};
use crate::tasks::spawn;
use crate::ui::{CollectView, Notices, button, dynamic};

/// What the mean is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The tokens of the prompt, with nothing ablated.
    Prompt,
    /// The text that the component's record was collated on.
    DataSet,
}

impl Over {
    /// The means that make sense for a type of node.
    pub fn all(node_type: NodeType) -> &'static [Self] {
        match node_type {
            NodeType::AttentionHead => &[Self::Prompt],
            _ if NodePageKind::of(node_type).is_some() => &[Self::Prompt, Self::DataSet],
            _ => &[],
        }
    }

    pub fn words(self, node_type: NodeType) -> &'static str {
        match (self, node_type) {
            (_, NodeType::AttentionHead) => "uniform attention (1/n)",
            (Self::Prompt, _) => "mean over this prompt",
            (Self::DataSet, _) => "mean over the data set",
        }
    }
}

/// A mean, and in words where it comes from.
pub type Mean = (f64, String);

async fn find_mean(node: &NodeIndex, over: Over, prompt: String, slug: &str) -> Result<Mean, String> {
    let layer_index = node.layer_index.ok_or("It belongs to no layer.")?;
    if node.node_type == NodeType::AttentionHead {
        // A head's attention from a token adds up to 1, so that its mean is known without a run.
        let from = names::token_from(node).ok_or("The mean of a head's attention needs one attended-from token.")?;
        let source = format!("attention from token {from} spread evenly over {} tokens", from + 1);
        return Ok((mean_attention(from), source));
    }
    let kind = NodePageKind::of(node.node_type).ok_or("This type of node has no mean.")?;
    let page = NodePage { slug: ModelSlug::parse(slug), kind, layer_index, node_index: names::unit(node) };
    match over {
        Over::Prompt => over_prompt(&page, prompt).await,
        Over::DataSet => over_data_set(&page).await,
    }
}

async fn over_prompt(page: &NodePage, prompt: String) -> Result<Mean, String> {
    let request = DerivedScalarsRequest {
        inference_request_spec: requests::run(prompt),
        derived_scalars_request_spec: requests::scalars(page.kind.live, Some(page.layer_index), page.node_index),
    };
    let answer = client::call::<routes::DerivedScalars>(&request, None).await.map_err(|p| p.message)?;
    let values = answer.derived_scalars_response_data.activations;
    let mean = mean(&values).ok_or("The server gives no activations.")?;
    Ok((mean, format!("mean over the {} tokens of this prompt, unablated", values.len())))
}

/// The mean over the whole text that the record was collated on; where the record does not tell it, over its random
/// texts.
async fn over_data_set(page: &NodePage) -> Result<Mean, String> {
    let node = stored_node(page).ok_or("No data set has it.")?;
    let summary = client::call::<routes::RecordSummary>(&node, None).await.map_err(|p| p.message)?;
    if let (Some(mean), Some(values)) = (summary.mean, summary.values) {
        let values = format::count(values.unsigned_abs());
        return Ok((mean, format!("mean over the {values} tokens of the collated text")));
    }
    let texts = client::call::<routes::NeuronRecord>(&node, None).await.map_err(|p| p.message)?.random_sample;
    let values: Vec<f64> = texts.iter().flatten().map(|token| token.scalar).collect();
    let mean = mean(&values).ok_or("The record has no random texts.")?;
    let (tokens, texts) = (format::count(values.len() as u64), texts.len());
    Ok((mean, format!("mean over the {tokens} tokens of {texts} random texts, all that the record tells")))
}

/// Finds a mean and hands it on; a failure is said.
pub fn find(
    session: Session,
    notices: Notices,
    slug: String,
    node: NodeIndex,
    over: Over,
    then: impl FnOnce(Mean) + 'static,
) {
    let prompt = session.page.peek(|p| p.left.prompt.clone());
    spawn(async move {
        match find_mean(&node, over, prompt, &slug).await {
            Ok(found) => then(found),
            Err(message) => notices.say(format!("No mean for {}: {message}", names::node_name(&node))),
        }
    });
}

/// Fills `value` with a mean of `node`, and says which one it is for as long as it stands there.
#[component]
pub fn MeanValues(#[prop(into)] node: Signal<Option<NodeIndex>>, value: RwSignal<String>) -> impl IntoView {
    let (session, notices, slug) = (Session::get(), Notices::get(), StoredValue::new(Slug::text()));
    let found = RwSignal::new(None::<Mean>);
    view! {
        {dynamic(move || node.get().filter(|n| !Over::all(n.node_type).is_empty()).map(|node| view! {
            <div class="row means">
                {Over::all(node.node_type).iter().map(|over| {
                    let (node, words) = (node.clone(), over.words(node.node_type));
                    button("button small", words, move |_| {
                        let held = node.clone();
                        find(session, notices, slug.get_value(), node.clone(), *over, move |mean| {
                            let _ = value.try_set(mean.0.to_string());
                            session.remember_source(&held, &mean);
                            let _ = found.try_set(Some(mean));
                        });
                    })
                }).collect_view()}
            </div>
        }))}
        {dynamic(move || found.get().filter(|(v, _)| value.see(|t| *t == v.to_string())).map(|(v, source)| view! {
            <p class="small-text quiet" role="status">{format::number(v)}": "{source}</p>
        }))}
    }
}
