//! Explanations of nodes: those that are stored, and those that a language model writes.

use crate::app::App;
use crate::error::ApiError;
use crate::openapi::Api;
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
    Ok(app.library()?.existing_explanations(&request).await?)
}

/// Of each component as [`existing_explanations`]; where that would be refused as not found, null.
async fn existing_explanations_batch(
    app: App,
    request: ExistingExplanationsBatchRequest,
) -> Result<ExistingExplanationsBatchResponse, ApiError> {
    let library = app.library()?;
    let mut explanations = Vec::with_capacity(request.requests.len());
    for request in &request.requests {
        explanations.push(match library.existing_explanations(request).await {
            Ok(found) => Some(found),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        });
    }
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
    Ok(app.library()?.search_explanations(&request.text, MOST).await?)
}

/// The stored explanations of the node; without any, a new one if a language model is set up.
async fn explain(app: App, request: NodeIdAndDatasets) -> Result<ExplanationResult, ApiError> {
    let found = app.library()?.record(&request).await?;
    let explained = app.explainer()?.explain(&found).await.map_err(refusal)?;
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
    let found = app.library()?.record(&node).await?;
    let method = ScoreMethod::default();
    let scored = app.explainer()?.score(&found, &request.explanation, method, max_sequences).await.map_err(refusal)?;
    Ok(ScoreResult { score: scored.score, dataset_path: found.entry.location })
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
