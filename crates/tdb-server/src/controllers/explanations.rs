//! Explanations of nodes: those that are stored, and those that a language model writes.

use crate::app::App;
use crate::body::Body;
use crate::error::ApiError;
use crate::openapi::Api;
use axum::Json;
use axum::extract::State;
use tdb_api::{
    AttributedScoredExplanation, ExistingExplanationsRequest, ExplanationResult, NodeIdAndDatasets, ScoreRequest,
    ScoreResult,
};
use tdb_data::StoredExplanation;
use tdb_explain::{Error as ExplainError, ScoreMethod};

pub fn add(api: &mut Api) {
    api.post("/existing_explanations", "read", "existing_explanations", existing_explanations)
        .says("The stored explanations of a component. Where their file tells it, `method`, `scoreMethod`, `model` and `date` stand beside each.")
        .takes::<ExistingExplanationsRequest>()
        .gives::<Vec<AttributedScoredExplanation>>();
    api.post("/explain", "explainer", "explain", explain)
        .says("Explanations of a component.")
        .takes::<NodeIdAndDatasets>()
        .gives::<ExplanationResult>();
    api.post("/score", "explainer", "score", score)
        .says("How well an explanation predicts a component's activations.")
        .takes::<ScoreRequest>()
        .gives::<ScoreResult>();
}

async fn existing_explanations(
    State(app): State<App>,
    Body(request): Body<ExistingExplanationsRequest>,
) -> Result<Json<Vec<StoredExplanation>>, ApiError> {
    Ok(Json(app.library()?.existing_explanations(&request).await?))
}

/// The stored explanations of the node; without any, a new one if a language model is set up.
async fn explain(
    State(app): State<App>,
    Body(request): Body<NodeIdAndDatasets>,
) -> Result<Json<ExplanationResult>, ApiError> {
    let found = app.library()?.record(&request).await?;
    let explained = app.explainer()?.explain(&found).await.map_err(refusal)?;
    let mut explanations: Vec<String> = Vec::new();
    for text in explained.explanations {
        if !explanations.contains(&text) {
            explanations.push(text);
        }
    }
    Ok(Json(ExplanationResult { explanations, dataset: found.entry.location }))
}

/// The stored score of an explanation; without one, a new one if a language model is set up.
async fn score(State(app): State<App>, Body(request): Body<ScoreRequest>) -> Result<Json<ScoreResult>, ApiError> {
    let node = NodeIdAndDatasets {
        dst: request.dst,
        layer_index: request.layer_index,
        activation_index: request.activation_index,
        datasets: request.datasets,
    };
    let max_sequences = match request.max_sequences.map(usize::try_from) {
        None => None,
        Some(Ok(n)) if n > 0 => Some(n),
        _ => return Err(ApiError::Bad("maxSequences: must be a positive number, or null for all".into())),
    };
    let found = app.library()?.record(&node).await?;
    let method = ScoreMethod::default();
    let scored = app.explainer()?.score(&found, &request.explanation, method, max_sequences).await.map_err(refusal)?;
    Ok(Json(ScoreResult { score: scored.score, dataset_path: found.entry.location }))
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
