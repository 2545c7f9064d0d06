//! The server's own address: a page for people, a greeting for programs.

use super::wants_html;
use crate::app::App;
use crate::error::ApiError;
use crate::openapi::Api;
use crate::reply::Reply;
use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tdb_api::{ForceClientCodeGenerationRequest, IndexMap, routes};

pub fn add(api: &mut Api) {
    api.route(routes::Root, read_root);
    api.route(routes::ForceClientCodeGeneration, force_client_code_generation);
}

/// The greeting, or the debugger's page for those who accept HTML.
struct Greeting(App);

impl Reply<IndexMap<String, String>> for Greeting {
    fn reply(self, asked: &HeaderMap) -> Response {
        if wants_html(asked) {
            return self.0.config().pages.index(asked, StatusCode::OK);
        }
        ([(header::VARY, "accept")], Json(IndexMap::from([("Hello", "World")]))).into_response()
    }
}

async fn read_root(app: App, (): ()) -> Result<Greeting, ApiError> {
    Ok(Greeting(app))
}

async fn force_client_code_generation(_: App, _: ForceClientCodeGenerationRequest) -> Result<(), ApiError> {
    Ok(())
}
