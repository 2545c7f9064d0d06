//! Request bodies: JSON by the rules of `tdb_api::wire`, and 422 with every reason when it does not fit.

use crate::error::ApiError;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use serde_json::{Value, json};
use tdb_api::wire::{Decode, FieldError, Step, from_value};

/// A body read as `T`, whatever its content type says.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: Decode, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
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
        Ok(Self(from_value(&value, "body")?))
    }
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

/// The query parameter `name` read as `T`.
pub fn query<T: Decode>(query: Option<&str>, name: &str) -> Result<T, ApiError> {
    let parameters: serde_json::Map<String, Value> = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .map(|(key, value)| (key.into_owned(), Value::String(value.into_owned())))
        .collect();
    let mut errors = tdb_api::wire::Errors::below("query");
    let read = errors.at(Step::Key(name.into()), |errors| match parameters.get(name) {
        Some(value) => T::decode(value, errors),
        None => errors.add("value_error.missing", "field required"),
    });
    read.ok_or_else(|| ApiError::Form(errors.into_found()))
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

    #[test]
    fn parameters_are_decoded() {
        assert_eq!(query::<String>(Some("x=1&name=a%26b"), "name").unwrap(), "a&b");
        assert_eq!(query::<String>(Some("name=a+b%20%C3%A9%"), "name").unwrap(), "a b é%");
        assert!(query::<String>(Some("x=1"), "name").is_err());
    }
}
