//! From what a handler gives to what is sent.

use crate::config::Limits;
use crate::error::ApiError;
use crate::unsent::Pieces;
use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::marker::PhantomData;
use std::time::Duration;

/// What can be sent where a route gives a `T`: a `T`, or something that was made of one.
pub trait Reply<T>: Send {
    /// The response to a request with these headers.
    fn reply(self, asked: &HeaderMap) -> Response;
}

impl<T: Serialize + Send> Reply<T> for T {
    fn reply(self, _: &HeaderMap) -> Response {
        Json(self).into_response()
    }
}

/// A `T` that is written as JSON already, and how long it took to compute.
///
/// Answers have up to megabytes: they are written on the compute threads, because those of the connections have others
/// to serve.
#[derive(Debug)]
pub struct Written<T> {
    json: Pieces,
    took: Duration,
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize> Written<T> {
    /// Writes `answer`.
    ///
    /// # Errors
    /// If it has no JSON form, or more bytes than `limits` allow.
    pub fn new(answer: &T, took: Duration, limits: &Limits) -> Result<Self, ApiError> {
        let limit = usize::try_from(limits.bounds.answer_bytes).unwrap_or(usize::MAX);
        let mut json = Pieces::up_to(limit);
        serde_json::to_writer(&mut json, answer).map_err(|error| match error.io_error_kind() {
            Some(_) => ApiError::Bad(format!("the answer has more than the {limit} bytes that this server gives")),
            None => ApiError::internal(error),
        })?;
        Ok(Self { json, took, of: PhantomData })
    }
}

impl<T> Reply<T> for Written<T> {
    fn reply(self, _: &HeaderMap) -> Response {
        // Beside the answer rather than in it: the same question has the same answer to the byte.
        let timing = format!("compute;dur={:.1}", self.took.as_secs_f64() * 1000.0);
        let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        if let Ok(timing) = HeaderValue::from_str(&timing) {
            headers.insert(HeaderName::from_static("server-timing"), timing);
        }
        (headers, self.json.into_body()).into_response()
    }
}
