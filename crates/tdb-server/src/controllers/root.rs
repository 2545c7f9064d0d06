//! The server's own address: a page for people, a greeting for programs.

use super::wants_html;
use crate::body;
use crate::error::ApiError;
use crate::openapi::Api;
use crate::ui;
use axum::Json;
use axum::extract::RawQuery;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tdb_api::GroupId;

pub fn add(api: &mut Api) {
    api.get("/", "hello_world", "read_root", read_root)
        .says("The debugger's page for browsers, a greeting for programs.")
        .gives_schema(json!({ "type": "object", "additionalProperties": { "type": "string" } }));
    api.get(
        "/force_client_code_generation",
        "hello_world",
        "force_client_code_generation",
        force_client_code_generation,
    )
    .says("Does nothing. It makes generated clients know the names of groups.")
    .parameter::<GroupId>("group_id");
}

async fn read_root(headers: HeaderMap) -> Response {
    if wants_html(&headers) {
        return ui::index(&headers, StatusCode::OK);
    }
    ([(header::VARY, "accept")], Json(json!({ "Hello": "World" }))).into_response()
}

async fn force_client_code_generation(RawQuery(query): RawQuery) -> Result<Json<Value>, ApiError> {
    body::query::<GroupId>(query.as_deref(), "group_id")?;
    Ok(Json(Value::Null))
}
