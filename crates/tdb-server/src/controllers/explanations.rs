//! Explanations of nodes: those that are stored, and those that a language model writes.

use super::within;
use crate::app::App;
use crate::error::ApiError;
use crate::openapi::Api;
use std::time::Duration;
use tdb_api::wire::FieldPath;
use tdb_api::{
    AttributedScoredExplanation, ExistingExplanationsBatchRequest, ExistingExplanationsBatchResponse,
    ExistingExplanationsRequest, ExplanationResult, ExplanationSearchRequest, ExplanationSearchResponse,
    NodeIdAndDatasets, ScoreRequest, ScoreResult, routes,
};
use tdb_explain::{Error as ExplainError, ScoreMethod};

pub fn add(api: &mut Api) {
    api.route(routes::ExistingExplanations, existing_explanations);
    api.route(routes::ExistingExplanationsBatch, existing_explanations_batch);
    api.route(routes::ExplanationSearch, explanation_search);
    api.route(routes::Explain, explain);
    api.route(routes::Score, score);
}

async fn existing_explanations(
    app: App,
    request: ExistingExplanationsRequest,
) -> Result<Vec<AttributedScoredExplanation>, ApiError> {
    Ok(within(app.config().limits.time, app.library()?.existing_explanations(&request)).await??)
}

/// Of each component as [`existing_explanations`]; where that would be refused as not found, null.
async fn existing_explanations_batch(
    app: App,
    request: ExistingExplanationsBatchRequest,
) -> Result<ExistingExplanationsBatchResponse, ApiError> {
    let library = app.library()?;
    let all = async {
        let mut explanations = Vec::with_capacity(request.requests.len());
        for request in &request.requests {
            explanations.push(match library.existing_explanations(request).await {
                Ok(found) => Some(found),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error),
            });
        }
        Ok(explanations)
    };
    let explanations = within(app.config().limits.time, all).await??;
    Ok(ExistingExplanationsBatchResponse { explanations })
}

async fn explanation_search(
    app: App,
    request: ExplanationSearchRequest,
) -> Result<ExplanationSearchResponse, ApiError> {
    const MOST: usize = 50;
    const LONGEST: usize = 1024;
    if request.text.len() > LONGEST {
        let what = format!("has {} bytes; at most {LONGEST} are searched for", request.text.len());
        return Err(ApiError::BadField { field: FieldPath::of("text"), what });
    }
    Ok(within(app.config().limits.time, app.library()?.search_explanations(&request.text, MOST)).await??)
}

/// The stored explanations of the node; without any, a new one if a language model is set up.
async fn explain(app: App, request: NodeIdAndDatasets) -> Result<ExplanationResult, ApiError> {
    let found = within(app.config().limits.time, app.library()?.record(&request)).await??;
    let explained = within(WRITING, app.explainer()?.explain(&found)).await?.map_err(refusal)?;
    note(explained.unstored);
    let mut explanations: Vec<String> = Vec::new();
    for text in explained.explanations {
        if !explanations.contains(&text) {
            explanations.push(text);
        }
    }
    Ok(ExplanationResult { explanations, dataset: found.entry.location })
}

/// The stored score of an explanation; without one, a new one if a language model is set up.
async fn score(app: App, request: ScoreRequest) -> Result<ScoreResult, ApiError> {
    let node = NodeIdAndDatasets {
        dst: request.dst,
        layer_index: request.layer_index,
        activation_index: request.activation_index,
        datasets: request.datasets,
    };
    let max_sequences = match request.max_sequences.map(usize::try_from) {
        None => None,
        Some(Ok(n)) if n > 0 => Some(n),
        _ => {
            let what = "must be a positive number, or null for all".into();
            return Err(ApiError::BadField { field: FieldPath::of("maxSequences"), what });
        }
    };
    let found = within(app.config().limits.time, app.library()?.record(&node)).await??;
    let method = ScoreMethod::default();
    let scoring = app.explainer()?.score(&found, &request.explanation, method, max_sequences);
    let scored = within(WRITING, scoring).await?.map_err(refusal)?;
    note(scored.unstored);
    Ok(ScoreResult { score: scored.score, dataset_path: found.entry.location })
}

/// How long a language model may take over an explanation or its score, all of its questions together.
const WRITING: Duration = Duration::from_secs(600);

/// What was answered but could not be kept is in the log.
fn note(unstored: Option<tdb_data::Error>) {
    if let Some(why) = unstored {
        tracing::error!("what a language model answered was told, but could not be stored: {why}");
    }
}

/// Why there is no explanation or score, as this interface says it.
fn refusal(error: ExplainError) -> ApiError {
    match error {
        ExplainError::Data(error) => error.into(),
        ExplainError::Unsuitable(what) => ApiError::Bad(what),
        other @ ExplainError::NotSetUp => ApiError::NotHere(other.to_string()),
        other => ApiError::Upstream(other.to_string()),
    }
}
