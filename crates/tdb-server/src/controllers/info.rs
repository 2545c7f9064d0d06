//! What the server tells about itself, and about tokens, beyond the reference's interface.

use crate::app::App;
use crate::error::ApiError;
use crate::openapi::Api;
use tdb_api::wire::FieldPath;
use tdb_api::{LimitsResponse, ServerInfoResponse, TokenizeRequest, TokenizeResponse, VocabularyRequest, routes};

pub fn add(api: &mut Api) {
    api.route(routes::Limits, limits);
    api.route(routes::Info, info);
    api.route(routes::Tokenize, tokenize);
    api.route(routes::Vocabulary, vocabulary);
}

async fn limits(app: App, (): ()) -> Result<LimitsResponse, ApiError> {
    Ok(app.config().limits.response())
}

async fn info(app: App, (): ()) -> Result<ServerInfoResponse, ApiError> {
    let model = app.maybe_model();
    Ok(ServerInfoResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model: model.map(|model| model.model_info()),
        shape: model.and_then(|model| model.shape()),
        beginning_of_text: model.and_then(|model| model.beginning_of_text()),
        suggested_question: model.and_then(|model| model.suggested_question()),
        device: model.and_then(|model| model.device()),
        mlp_autoencoder: model.and_then(|model| model.mlp_autoencoder()),
        attention_autoencoder: model.and_then(|model| model.attention_autoencoder()),
        residual_autoencoder: model.and_then(|model| model.residual_autoencoder()),
        limits: app.config().limits.response(),
        writes_explanations: app.explainer().is_ok_and(|explainer| explainer.client().is_some()),
    })
}

/// Tokenizing has its own limit rather than a place in the queue: a page asks at every key that is typed.
async fn tokenize(app: App, request: TokenizeRequest) -> Result<TokenizeResponse, ApiError> {
    const LONGEST: usize = 64 << 10;
    let model = app.model()?;
    if request.text.len() > LONGEST {
        let what = format!("has {} bytes; at most {LONGEST} are split into tokens here", request.text.len());
        return Err(ApiError::BadField { field: FieldPath::of("text"), what });
    }
    let tokens = tokio::task::spawn_blocking(move || model.tokenize(&request.text)).await;
    Ok(TokenizeResponse { tokens: tokens.map_err(ApiError::internal)? })
}

async fn vocabulary(app: App, request: VocabularyRequest) -> Result<TokenizeResponse, ApiError> {
    const MOST: usize = 50;
    let model = app.model()?;
    let tokens = tokio::task::spawn_blocking(move || model.vocabulary(&request.prefix, MOST)).await;
    Ok(TokenizeResponse { tokens: tokens.map_err(ApiError::internal)? })
}
