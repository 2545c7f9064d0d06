//! What the server tells about itself, and about tokens, beyond the reference's interface.

use crate::app::App;
use crate::body::{self, Body};
use crate::error::ApiError;
use crate::openapi::Api;
use axum::Json;
use axum::extract::{RawQuery, State};
use tdb_api::{LimitsResponse, ServerInfoResponse, TokenizeRequest, TokenizeResponse};

pub fn add(api: &mut Api) {
    api.get("/limits", "info", "limits", limits).says("What a request may ask for at most.").gives::<LimitsResponse>();
    api.get("/info", "info", "info", info)
        .says("Version, model, shapes, autoencoders and limits.")
        .gives::<ServerInfoResponse>();
    api.post("/tokenize", "info", "tokenize", tokenize)
        .says("The tokens of a text.")
        .takes::<TokenizeRequest>()
        .gives::<TokenizeResponse>();
    api.get("/vocabulary", "info", "vocabulary", vocabulary)
        .says("Up to 50 tokens whose text begins with `prefix`, in the order of their ids.")
        .parameter::<String>("prefix")
        .gives::<TokenizeResponse>();
}

async fn limits(State(app): State<App>) -> Json<LimitsResponse> {
    Json(app.config().limits.response())
}

async fn info(State(app): State<App>) -> Json<ServerInfoResponse> {
    let model = app.maybe_model();
    Json(ServerInfoResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model: model.map(|model| model.model_info()),
        shape: model.and_then(|model| model.shape()),
        mlp_autoencoder: model.and_then(|model| model.mlp_autoencoder()),
        attention_autoencoder: model.and_then(|model| model.attention_autoencoder()),
        limits: app.config().limits.response(),
        writes_explanations: app.explainer().is_ok_and(|explainer| explainer.client().is_some()),
    })
}

/// Tokenizing has its own limit rather than a place in the queue: a page asks at every key that is typed.
async fn tokenize(
    State(app): State<App>,
    Body(request): Body<TokenizeRequest>,
) -> Result<Json<TokenizeResponse>, ApiError> {
    const LONGEST: usize = 64 << 10;
    let model = app.model()?;
    if request.text.len() > LONGEST {
        let found = request.text.len();
        return Err(ApiError::Bad(format!("text: has {found} bytes; at most {LONGEST} are split into tokens here")));
    }
    let tokens = tokio::task::spawn_blocking(move || model.tokenize(&request.text)).await;
    Ok(Json(TokenizeResponse { tokens: tokens.map_err(ApiError::internal)? }))
}

async fn vocabulary(State(app): State<App>, RawQuery(query): RawQuery) -> Result<Json<TokenizeResponse>, ApiError> {
    const MOST: usize = 50;
    let model = app.model()?;
    let prefix: String = body::query(query.as_deref(), "prefix")?;
    let tokens = tokio::task::spawn_blocking(move || model.vocabulary(&prefix, MOST)).await;
    Ok(Json(TokenizeResponse { tokens: tokens.map_err(ApiError::internal)? }))
}
