//! What those who run a server ask it: whether it runs, whether it takes requests, and what it counted.

use crate::app::App;
use crate::error::ApiError;
use crate::openapi::Api;
use crate::reply::Reply;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tdb_api::wire::Describe;
use tdb_api::{OpenMetrics, PlainText, routes};

pub fn add(api: &mut Api) {
    api.route(routes::Health, health);
    api.route(routes::Ready, ready);
    api.route(routes::Metrics, metrics);
}

/// A word, on a line.
struct Word(StatusCode, &'static str);

impl Reply<PlainText> for Word {
    fn reply(self, _: &HeaderMap) -> Response {
        sent(self.0, PlainText::MEDIA_TYPE, format!("{}\n", self.1))
    }
}

struct Counted(String);

impl Reply<OpenMetrics> for Counted {
    fn reply(self, _: &HeaderMap) -> Response {
        sent(StatusCode::OK, &format!("{}; version=1.0.0", OpenMetrics::MEDIA_TYPE), self.0)
    }
}

fn sent(status: StatusCode, media_type: &str, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, format!("{media_type}; charset=utf-8"))], text).into_response()
}

async fn health(_: App, (): ()) -> Result<Word, ApiError> {
    Ok(Word(StatusCode::OK, "ok"))
}

async fn ready(app: App, (): ()) -> Result<Word, ApiError> {
    Ok(match app.stop().has_begun() {
        false => Word(StatusCode::OK, "ready"),
        true => Word(StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    })
}

async fn metrics(app: App, (): ()) -> Result<Counted, ApiError> {
    Ok(Counted(app.metrics_text()))
}
