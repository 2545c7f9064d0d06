//! What those who run a server ask it: whether it runs, whether it takes requests, and what it counted.

use crate::app::App;
use crate::error::ApiError;
use crate::openapi::Api;
use crate::reply::Reply;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tdb_api::routes;

pub fn add(api: &mut Api) {
    api.route(routes::Health, health);
    api.route(routes::Ready, ready);
    api.route(routes::Metrics, metrics);
}

/// A text that is sent as it is.
struct Plain {
    status: StatusCode,
    content_type: &'static str,
    text: String,
}

impl Plain {
    fn word(status: StatusCode, word: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", text: format!("{word}\n") }
    }
}

impl Reply<String> for Plain {
    fn reply(self, _: &HeaderMap) -> Response {
        (self.status, [(header::CONTENT_TYPE, self.content_type)], self.text).into_response()
    }
}

async fn health(_: App, (): ()) -> Result<Plain, ApiError> {
    Ok(Plain::word(StatusCode::OK, "ok"))
}

async fn ready(app: App, (): ()) -> Result<Plain, ApiError> {
    Ok(match app.stop().has_begun() {
        false => Plain::word(StatusCode::OK, "ready"),
        true => Plain::word(StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    })
}

async fn metrics(app: App, (): ()) -> Result<Plain, ApiError> {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(Plain { status: StatusCode::OK, content_type, text: app.metrics_text() })
}
