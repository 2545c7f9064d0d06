//! Mean ablation: what a component does on average, as a value to hold it at, with the place that the average is taken over.

use leptos::prelude::*;
use leptos::task::spawn_local;
use serde_json::{Value, json};
use tdb_api::page::{ModelSlug, NodePageKind};
use tdb_api::{NodeIndex, NodeType};

use super::Slug;
use super::explain::stored_node;
use crate::client;
use crate::format;
use crate::names;
use crate::session::Session;
use crate::ui::Notices;

/// What the mean is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The tokens of the prompt, with nothing ablated.
    Prompt,
    /// The random texts of the component's record.
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
            (_, NodeType::AttentionHead) => "mean attention of its token",
            (Self::Prompt, _) => "mean over this prompt",
            (Self::DataSet, _) => "mean over the data set",
        }
    }
}

/// A mean, and in words where it comes from.
pub type Mean = (f64, String);

async fn mean(node: &NodeIndex, over: Over, prompt: &str, slug: &str) -> Result<Mean, String> {
    let layer = node.layer_index.ok_or("It belongs to no layer.")?;
    if node.node_type == NodeType::AttentionHead {
        // A head's attention from a token adds up to 1, so that its mean is known without a run.
        let from = names::token_from(node).ok_or("The mean of a head's attention needs one attended-from token.")?;
        return Ok((
            1.0 / (from + 1) as f64,
            format!("its attention from token {from} spread evenly over {} tokens", from + 1),
        ));
    }
    let kind = NodePageKind::of(node.node_type).ok_or("This type of node has no mean.")?;
    let unit = names::unit(node);
    match over {
        Over::Prompt => {
            let body = json!({
                "inferenceRequestSpec": { "prompt": prompt },
                "derivedScalarsRequestSpec": { "dst": kind.live, "layerIndex": layer, "activationIndex": unit },
            });
            let answer: Value = client::post("/derived_scalars", &body, None).await.map_err(|p| p.message)?;
            let values = numbers(&answer["derivedScalarsResponseData"]["activations"]);
            let mean = average(&values).ok_or("The server gives no activations.")?;
            Ok((mean, format!("its mean over the {} tokens of this prompt, unablated", values.len())))
        }
        Over::DataSet => {
            let body =
                stored_node(&ModelSlug::parse(slug), node.node_type, layer, unit).ok_or("No data set has it.")?;
            let answer: Value = client::post("/neuron_record", &body, None).await.map_err(|p| p.message)?;
            let texts = answer["randomSample"].as_array().cloned().unwrap_or_default();
            let values: Vec<f64> =
                texts.iter().filter_map(Value::as_array).flatten().filter_map(|t| t["scalar"].as_f64()).collect();
            let mean = average(&values).ok_or("The record has no random texts.")?;
            let (tokens, texts) = (format::count(values.len() as u64), texts.len());
            Ok((mean, format!("its mean over the {tokens} tokens of {texts} random texts of the data set")))
        }
    }
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

fn average(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
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
    let prompt = session.page.with_untracked(|p| p.left.prompt.clone());
    spawn_local(async move {
        match mean(&node, over, &prompt, &slug).await {
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
        {move || node.get().filter(|n| !Over::all(n.node_type).is_empty()).map(|node| view! {
            <div class="row means">
                {Over::all(node.node_type).iter().map(|over| {
                    let (node, words) = (node.clone(), over.words(node.node_type));
                    view! {
                        <button type="button" class="button small" on:click=move |_| {
                            find(session, notices, slug.get_value(), node.clone(), *over, move |mean| {
                                let _ = value.try_set(mean.0.to_string());
                                let _ = found.try_set(Some(mean));
                            });
                        }>{words}</button>
                    }
                }).collect_view()}
            </div>
        })}
        {move || found.get().filter(|(v, _)| value.with(|t| *t == v.to_string())).map(|(v, source)| view! {
            <p class="small-text quiet" role="status">{format::number(v)}": "{source}</p>
        })}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_no_mean() {
        assert_eq!(average(&[]), None);
        assert_eq!(average(&[1.0, 2.0, 6.0]), Some(3.0));
        assert_eq!(numbers(&json!([1, 2.5, null])), [1.0, 2.5]);
    }
}
