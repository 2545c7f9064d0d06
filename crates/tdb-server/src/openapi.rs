//! The routes with their handlers, and the OpenAPI document about them, both made from [`tdb_api::routes`].
//!
//! A handler takes what its route takes and gives what its route gives:
//!
//! ```
//! # use tdb_server::{ApiError, App, openapi::Api};
//! use tdb_api::{TokenizeRequest, TokenizeResponse, routes};
//!
//! async fn tokenize(_: App, _: TokenizeRequest) -> Result<TokenizeResponse, ApiError> {
//!     Ok(TokenizeResponse { tokens: vec![] })
//! }
//! Api::default().route(routes::Tokenize, tokenize);
//! ```
//!
//! Another handler does not compile:
//!
//! ```compile_fail
//! # use tdb_server::{ApiError, App, openapi::Api};
//! use tdb_api::{TokenizeRequest, TokenizeResponse, routes};
//!
//! async fn tokenize(_: App, _: TokenizeRequest) -> Result<Vec<TokenizeResponse>, ApiError> {
//!     Ok(vec![])
//! }
//! Api::default().route(routes::Tokenize, tokenize);
//! ```

use crate::app::App;
use crate::body::Asked;
use crate::connection::Caller;
use crate::error::ApiError;
use crate::reply::Reply;
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde_json::{Map, Value, json};
use tdb_api::routes::{Method, Place, Route};
use tdb_api::wire::{Describe, Schemas};

/// Collects routes and their description.
#[derive(Default)]
pub struct Api {
    router: Router<App>,
    paths: Map<String, Value>,
    schemas: Schemas,
}

impl Api {
    /// Answers the requests of `route` with `handler`.
    pub fn route<R, H, F, A>(&mut self, route: R, handler: H)
    where
        R: Route + 'static,
        H: Fn(App, R::Request) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<A, ApiError>> + Send,
        A: Reply<R::Answer>,
    {
        let answer =
            async move |State(app): State<App>, caller: Caller, headers: HeaderMap, Asked(request): Asked<R>| {
                match handler(app.for_caller(caller), request).await {
                    Ok(answer) => answer.reply(&headers),
                    Err(error) => error.into_response(),
                }
            };
        let routing = match R::METHOD {
            Method::Get => get(answer),
            Method::Post => post(answer),
        };
        self.router = std::mem::take(&mut self.router).route(R::PATH, routing);
        self.describe(route);
    }

    fn describe<R: Route>(&mut self, _: R) {
        let mut operation = json!({
            "tags": [R::TAG],
            "operationId": format!("{}-{}", R::TAG, R::NAME),
            "responses": { "200": { "description": "The answer" } },
            "summary": R::SUMMARY,
        });
        let taken = R::Request::describe(&mut self.schemas);
        match R::PLACE {
            Place::Nowhere => {}
            Place::Body => {
                let content = json!({ "application/json": { "schema": taken } });
                operation["requestBody"] = json!({ "content": content, "required": true });
            }
            Place::Query => operation["parameters"] = taken,
        }
        if R::PLACE != Place::Nowhere {
            operation["responses"]["422"] = json!({
                "description": "The request does not have this form",
                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/HTTPValidationError" } } },
            });
        }
        let given = R::Answer::describe(&mut self.schemas);
        operation["responses"]["200"]["content"] = json!({ R::Answer::MEDIA_TYPE: { "schema": given } });
        let method = match R::METHOD {
            Method::Get => "get",
            Method::Post => "post",
        };
        self.paths.entry(R::PATH).or_insert_with(|| json!({}))[method] = operation;
    }

    /// The routes, and the OpenAPI document about them.
    pub fn finish(mut self) -> (Router<App>, Value) {
        add_validation_errors(&mut self.schemas);
        let document = json!({
            "openapi": "3.0.2",
            "info": {
                "title": "Transformer Debugger",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "Why does a transformer say one token rather than another? Errors are \
                                `{\"message\": ...}`, or `{\"detail\": [...]}` for requests that do not have the form \
                                described here.",
            },
            "paths": self.paths,
            "components": { "schemas": self.schemas.0 },
        });
        (self.router, document)
    }
}

fn add_validation_errors(schemas: &mut Schemas) {
    schemas.named("HTTPValidationError", |_| {
        let items = json!({ "$ref": "#/components/schemas/ValidationError" });
        json!({ "title": "HTTPValidationError", "type": "object",
                "properties": { "detail": { "title": "Detail", "type": "array", "items": items } } })
    });
    schemas.named("ValidationError", |_| {
        let step = json!({ "anyOf": [{ "type": "string" }, { "type": "integer" }] });
        json!({ "title": "ValidationError", "type": "object", "required": ["loc", "msg", "type"], "properties": {
            "loc": { "title": "Location", "type": "array", "items": step },
            "msg": { "title": "Message", "type": "string" },
            "type": { "title": "Error Type", "type": "string" },
        } })
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers;
    use std::collections::BTreeSet;
    use tdb_api::routes;

    #[test]
    fn every_route_that_is_described_is_answered() {
        let mut api = Api::default();
        controllers::add_all(&mut api);
        let (_, document) = api.finish();
        let described: BTreeSet<(&str, &str)> = routes::ALL
            .iter()
            .map(|(method, path)| (*path, if *method == Method::Get { "get" } else { "post" }))
            .collect();
        let paths = document["paths"].as_object().unwrap();
        let answered = paths.iter().flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |method| (path.as_str(), method.as_str()))
        });
        assert_eq!(answered.collect::<BTreeSet<_>>(), described);
    }
}
