//! The handlers, one file for each kind of thing asked for.

mod docs;
mod explanations;
mod inference;
mod info;
mod memory;
mod operation;
mod records;
mod root;
mod stream;

use crate::app::App;
use crate::error::ApiError;
use crate::openapi::Api;
use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use std::time::Duration;
use tdb_api::page::NodePage;

/// Adds every route of the interface.
pub fn add_all(api: &mut Api) {
    root::add(api);
    memory::add(api);
    records::add(api);
    explanations::add(api);
    inference::add(api);
    stream::add(api);
    info::add(api);
    operation::add(api);
}

/// Waits for a store or a language model, but not for ever.
async fn within<T>(time: Duration, waiting: impl Future<Output = T>) -> Result<T, ApiError> {
    tokio::time::timeout(time, waiting).await.map_err(|_| ApiError::TooSlow { seconds: time.as_secs() })
}

/// The page about the interface.
pub fn docs_page(document: &Bytes) -> String {
    docs::page(document)
}

/// The pages for people: the debugger's, the nodes', and the one about the interface.
pub fn pages(document: Bytes, docs: String) -> Router<App> {
    let docs = Bytes::from(docs);
    Router::new()
        .route("/openapi.json", get(move || json(document.clone())))
        .route("/docs", get(move || html(docs.clone())))
        .route("/{model}/tdb_alpha", get(page))
        .route("/{model}/patch", get(page))
        .route("/{model}/{node_type}/{layer}/{index}", get(node_page))
}

async fn page(State(app): State<App>, headers: HeaderMap) -> Response {
    app.config().pages.index(&headers, StatusCode::OK)
}

async fn node_page(
    State(app): State<App>,
    path: Result<Path<(String, String, String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let page = match path {
        Ok(Path((model, node_type, layer, index))) => NodePage::parse(&model, &node_type, &layer, &index),
        Err(rejected) => Err(rejected.body_text()),
    };
    match page {
        Ok(_) => app.config().pages.index(&headers, StatusCode::OK),
        Err(what) if wants_html(&headers) => {
            tracing::debug!("{what}");
            app.config().pages.index(&headers, StatusCode::NOT_FOUND)
        }
        Err(what) => ApiError::NotFound(what).into_response(),
    }
}

/// Files of the pages; 404 for every other path.
pub async fn not_found(State(app): State<App>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let missing = ApiError::NotFound("Not Found".into());
    if method != Method::GET && method != Method::HEAD {
        return missing.into_response();
    }
    let pages = app.config().pages;
    if let Some(file) = pages.asset(uri.path().trim_start_matches('/'), &headers) {
        return file;
    }
    // A person gets the page that says so, and from which there is a way back.
    if wants_html(&headers) { pages.index(&headers, StatusCode::NOT_FOUND) } else { missing.into_response() }
}

/// Whether the client is a browser that is to show a page.
pub fn wants_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|list| list.split(',')).any(|entry| entry.trim().starts_with("text/html"))
}

async fn json(document: Bytes) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], document).into_response()
}

async fn html(page: Bytes) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))], page).into_response()
}
