//! Questions to the model, answered whole.

use crate::app::App;
use crate::body::Body;
use crate::error::ApiError;
use crate::model::{Question, check_prompts};
use crate::openapi::Api;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use std::time::Instant;
use tdb_api::{
    BatchedRequest, BatchedTdbRequest, DerivedAttentionScalarsRequest, DerivedScalarsRequest, ModelInfoResponse,
    MultipleTopKDerivedScalarsRequest,
};

pub fn add(api: &mut Api) {
    question::<DerivedScalarsRequest>(api, "derived_scalars", "One scalar of one component at every token.");
    question::<DerivedAttentionScalarsRequest>(
        api,
        "derived_attention_scalars",
        "One scalar of one component at every pair of tokens.",
    );
    question::<MultipleTopKDerivedScalarsRequest>(
        api,
        "multiple_top_k_derived_scalars",
        "The nodes with the largest and smallest scalars.",
    );
    question::<BatchedRequest>(api, "batched", "Several runs, and several things asked of each.");
    question::<BatchedTdbRequest>(api, "batched_tdb", "The debugger's question, for one prompt or two.");
    api.post("/model_info", "inference", "model_info", model_info)
        .says("Which model and autoencoders the server has.")
        .gives::<ModelInfoResponse>();
}

fn question<Q: Question>(api: &mut Api, name: &str, says: &str) {
    api.post(&format!("/{name}"), "inference", name, ask::<Q>).says(says).takes::<Q>().gives::<Q::Answer>();
}

/// Answers any question. Dropped when the client goes away, which stops the computation.
async fn ask<Q: Question>(State(app): State<App>, Body(question): Body<Q>) -> Result<Response, ApiError> {
    let model = app.model()?;
    let limits = app.config().limits.clone();
    question.check(&limits)?;
    let answered = app.queue().run(move |job| {
        let begun = Instant::now();
        check_prompts(&question, &*model, &limits)?;
        let answer = question.answer(&*model, job)?;
        // Written here, too: an answer has up to megabytes, and the threads of the connections have others to serve.
        let json = serde_json::to_vec(&answer).map_err(ApiError::internal)?;
        Ok((json, begun.elapsed()))
    });
    let (json, took) = answered.await?;
    // Beside the answer rather than in it: the same question has the same answer to the byte.
    let timing = format!("compute;dur={:.1}", took.as_secs_f64() * 1000.0);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (HeaderName::from_static("server-timing"), HeaderValue::from_str(&timing).map_err(ApiError::internal)?),
    ];
    Ok((headers, json).into_response())
}

async fn model_info(State(app): State<App>) -> Result<Json<ModelInfoResponse>, ApiError> {
    Ok(Json(app.model()?.model_info()))
}
