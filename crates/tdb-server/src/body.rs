//! Reading requests by the rules of `tdb_api::wire`, with 422 and every reason when they do not fit.

use crate::error::ApiError;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use serde_json::{Value, json};
use tdb_api::routes::{Place, Route};
use tdb_api::wire::{FieldError, Step, from_query, from_value};

/// What a route takes, from wherever its request stands. A body is read as JSON, whatever its content type says.
#[derive(Debug)]
pub struct Asked<R: Route>(pub R::Request);

impl<R: Route, S: Send + Sync> FromRequest<S> for Asked<R> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let read = match R::PLACE {
            Place::Nowhere => from_value(&Value::Null, "body"),
            Place::Query => from_query(request.uri().query().unwrap_or_default()),
            Place::Body => from_value(&body(request, state).await?, "body"),
        };
        Ok(Self(read?))
    }
}

async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Value, ApiError> {
    let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
        let message = rejection.body_text();
        match rejection.status() {
            axum::http::StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge(
                "the request's body is larger than this server takes; GET /limits says how large it may be".into(),
            ),
            _ => ApiError::Bad(format!("the request's body could not be read: {message}")),
        }
    })?;
    let value = parse(&bytes)?;
    if value.is_null() {
        return Err(ApiError::Form(vec![missing_body()]));
    }
    Ok(value)
}

fn missing_body() -> FieldError {
    let loc = vec![Step::Key("body".into())];
    FieldError { loc, msg: "field required".into(), kind: "value_error.missing".into(), ctx: None }
}

fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    if bytes.is_empty() {
        return Err(ApiError::Form(vec![missing_body()]));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let text = String::from_utf8_lossy(bytes);
        let line_start: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let at_end = error.is_eof();
        // Columns are counted in bytes from 1; at the end of the text they point at its last character.
        let byte = if at_end { text.len() } else { (line_start + error.column().saturating_sub(1)).min(text.len()) };
        let pos = text.as_bytes().iter().take(byte).filter(|b| (**b as i8) >= -0x40).count();
        let (lineno, colno) = (error.line(), error.column() + usize::from(at_end));
        let what = error.to_string();
        let what = what.split(" at line ").next().unwrap_or(&what);
        ApiError::Form(vec![FieldError {
            loc: vec![Step::Key("body".into()), Step::Index(pos)],
            msg: format!("{what}: line {lineno} column {colno} (char {pos})"),
            kind: "value_error.jsondecode".into(),
            ctx: Some(json!({ "msg": what, "pos": pos, "lineno": lineno, "colno": colno })),
        }])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Vec<Step> {
        match parse(text.as_bytes()) {
            Err(ApiError::Form(errors)) => errors[0].loc.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_place_where_json_breaks_is_told_in_characters() {
        let at = |pos| vec![Step::Key("body".into()), Step::Index(pos)];
        assert_eq!(place("{\"subRequests\": ["), at(17));
        assert_eq!(place("{\"é\":\n  x}"), at(8));
    }
}
