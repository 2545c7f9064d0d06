//! Routes and their description, made together so that neither can be without the other.

use crate::app::App;
use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodRouter, get, post};
use serde_json::{Map, Value, json};
use tdb_api::wire::{Describe, Schemas};

/// Collects routes and their description.
#[derive(Default)]
pub struct Api {
    router: Router<App>,
    paths: Map<String, Value>,
    schemas: Schemas,
}

/// The description of one route, to be filled in.
pub struct Operation<'a> {
    operation: &'a mut Value,
    schemas: &'a mut Schemas,
}

impl Api {
    /// `GET path`, answered by `handler`. `tag` and `name` make up the operation's id.
    pub fn get<H: Handler<T, App>, T: 'static>(
        &mut self,
        path: &str,
        tag: &str,
        name: &str,
        handler: H,
    ) -> Operation<'_> {
        self.add(path, "get", get(handler), tag, name)
    }

    /// `POST path`, answered by `handler`.
    pub fn post<H: Handler<T, App>, T: 'static>(
        &mut self,
        path: &str,
        tag: &str,
        name: &str,
        handler: H,
    ) -> Operation<'_> {
        self.add(path, "post", post(handler), tag, name)
    }

    fn add(&mut self, path: &str, method: &str, route: MethodRouter<App>, tag: &str, name: &str) -> Operation<'_> {
        self.router = std::mem::take(&mut self.router).route(path, route);
        let operation = json!({
            "tags": [tag],
            "operationId": format!("{tag}-{name}"),
            "responses": { "200": { "description": "The answer", "content": { "application/json": { "schema": {} } } } },
        });
        let methods = self.paths.entry(path).or_insert_with(|| json!({}));
        methods[method] = operation;
        Operation { operation: &mut methods[method], schemas: &mut self.schemas }
    }

    /// The routes, and the OpenAPI document about them.
    pub fn finish(mut self) -> (Router<App>, Value) {
        add_validation_errors(&mut self.schemas);
        let document = json!({
            "openapi": "3.0.2",
            "info": {
                "title": "Transformer Debugger",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "Why does a transformer say one token rather than another? Errors are `{\"message\": ...}`, \
                                or `{\"detail\": [...]}` for requests that do not have the form described here.",
            },
            "paths": self.paths,
            "components": { "schemas": self.schemas.0 },
        });
        (self.router, document)
    }
}

impl Operation<'_> {
    /// What the route does, in a sentence.
    pub fn says(self, summary: &str) -> Self {
        self.operation["summary"] = summary.into();
        self
    }

    /// The body that it takes.
    pub fn takes<T: Describe>(self) -> Self {
        let schema = T::describe(self.schemas);
        self.operation["requestBody"] =
            json!({ "content": { "application/json": { "schema": schema } }, "required": true });
        self.can_fail()
    }

    /// A query parameter that it takes.
    pub fn parameter<T: Describe>(self, name: &str) -> Self {
        let schema = T::describe(self.schemas);
        let parameter = json!({ "name": name, "in": "query", "required": !T::optional(), "schema": schema });
        match self.operation.get_mut("parameters").and_then(Value::as_array_mut) {
            Some(parameters) => parameters.push(parameter),
            None => self.operation["parameters"] = json!([parameter]),
        }
        self.can_fail()
    }

    /// The answer that it gives.
    pub fn gives<T: Describe>(self) -> Self {
        let schema = T::describe(self.schemas);
        self.gives_schema(schema)
    }

    /// The answer that it gives, as a schema.
    pub fn gives_schema(self, schema: Value) -> Self {
        self.operation["responses"]["200"]["content"]["application/json"]["schema"] = schema;
        self
    }

    fn can_fail(self) -> Self {
        self.operation["responses"]["422"] = json!({
            "description": "The request does not have this form",
            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/HTTPValidationError" } } },
        });
        self
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
