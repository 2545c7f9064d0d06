//! From what a handler gives to what is sent.

use crate::error::ApiError;
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
/// Answers have up to megabytes: they are written on the compute threads, because those of the connections have others to
/// serve.
#[derive(Debug)]
pub struct Written<T> {
    json: Vec<u8>,
    took: Duration,
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize> Written<T> {
    /// Writes `answer`.
    ///
    /// # Errors
    /// If it has no JSON form.
    pub fn new(answer: &T, took: Duration) -> Result<Self, ApiError> {
        Ok(Self { json: serde_json::to_vec(answer).map_err(ApiError::internal)?, took, of: PhantomData })
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
        (headers, self.json).into_response()
    }
}
