//! Questions to the model, answered whole.

use crate::app::App;
use crate::error::ApiError;
use crate::openapi::Api;
use crate::question::{OfHead, OfWeights, Question, check_prompts};
use crate::reply::Written;
use std::time::Instant;
use tdb_api::{ComponentRequest, ComponentWeightsResponse, HeadScoresResponse, ModelInfoResponse, routes};

pub fn add(api: &mut Api) {
    api.route(routes::DerivedScalars, ask);
    api.route(routes::DerivedAttentionScalars, ask);
    api.route(routes::MultipleTopKDerivedScalars, ask);
    api.route(routes::Batched, ask);
    api.route(routes::BatchedTdb, ask);
    api.route(routes::DictionaryFidelity, ask);
    api.route(routes::Effects, ask);
    api.route(routes::Circuit, ask);
    api.route(routes::Patch, ask);
    api.route(routes::LogitLens, ask);
    api.route(routes::ComponentWeights, component_weights);
    api.route(routes::HeadScores, head_scores);
    api.route(routes::HeadReadings, ask);
    api.route(routes::ModelInfo, model_info);
}

/// Answers any question. Dropped when the client goes away, which stops the computation.
async fn ask<Q: Question>(app: App, question: Q) -> Result<Written<Q::Answer>, ApiError> {
    let model = app.model()?;
    let limits = app.config().limits.clone();
    question.check(&limits)?;
    let answered = app.queue().run(app.caller().client, question.class(), move |job| {
        let begun = Instant::now();
        check_prompts(&question, &*model, &limits)?;
        let answer = question.answer(&*model, job)?;
        Written::new(&answer, begun.elapsed(), &limits)
    });
    answered.await
}

async fn component_weights(app: App, request: ComponentRequest) -> Result<Written<ComponentWeightsResponse>, ApiError> {
    ask(app, OfWeights(request)).await
}

async fn head_scores(app: App, request: ComponentRequest) -> Result<Written<HeadScoresResponse>, ApiError> {
    ask(app, OfHead(request)).await
}

async fn model_info(app: App, (): ()) -> Result<ModelInfoResponse, ApiError> {
    Ok(app.model()?.model_info())
}
