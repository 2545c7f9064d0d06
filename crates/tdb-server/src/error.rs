//! Every error of the interface, and the one place where each becomes a status and a sentence.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tdb_api::FIELD_HEADER;
use tdb_api::wire::{FieldError, FieldPath, Invalid};

/// Why a request was not answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApiError {
    /// The body or a parameter does not have the form asked for; every reason is listed.
    #[error("the request does not have the form asked for")]
    Form(Vec<FieldError>),
    /// The request asks for something that does not exist or does not fit together.
    #[error("{0}")]
    Bad(String),
    /// As [`ApiError::Bad`], about one field of the request.
    #[error("{field}: {what}")]
    BadField { field: FieldPath, what: String },
    /// The server asks for a token that the request does not have.
    #[error(
        "this server asks for its token, which stands in the link that was printed when it was started; \
         programs send it as \"Authorization: Bearer TOKEN\""
    )]
    Unauthorized,
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    NotFound(String),
    #[error("Method Not Allowed")]
    MethodNotAllowed,
    /// Something that this server was not started for.
    #[error("{0}")]
    NotHere(String),
    #[error("{0}")]
    TooLarge(String),
    /// The queue is full.
    #[error("the server is busy: {running} requests compute and {waiting} wait; try again in {retry_after} s")]
    Busy { running: usize, waiting: usize, retry_after: u64 },
    /// Too many large bodies arrive at the same time.
    #[error("the server is receiving as many large requests as it can hold; try again in 1 s")]
    Crowded,
    /// The body did not arrive.
    #[error("the request's body did not arrive within {seconds} s")]
    Late { seconds: u64 },
    /// The server ends.
    #[error("the server is being stopped and could not finish this request")]
    Stopping,
    #[error("the request took longer than the {seconds} s that this server allows one request")]
    TooSlow { seconds: u64 },
    /// Nobody reads this answer: its client went away.
    #[error("the request was cancelled")]
    Cancelled,
    /// A store elsewhere could not be read, or what it holds is damaged.
    #[error("{0}")]
    Upstream(String),
    /// A fault of this program. What happened is in its log.
    #[error("Unhandled server exception")]
    Internal,
}

impl ApiError {
    /// The status that goes with it.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Form(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Bad(_) | Self::BadField { .. } => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotHere(_) => StatusCode::CONFLICT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy { .. } | Self::Crowded => StatusCode::TOO_MANY_REQUESTS,
            Self::TooSlow { .. } | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::Cancelled | Self::Late { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Upstream(_) => StatusCode::BAD_GATEWAY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The field that it is about, if it is about one.
    pub fn field(&self) -> Option<&FieldPath> {
        match self {
            Self::BadField { field, .. } => Some(field),
            _ => None,
        }
    }

    /// The same, about the field that stands for this one in the request as it was asked.
    pub fn moved(self, rename: impl FnOnce(FieldPath) -> FieldPath) -> Self {
        match self {
            Self::BadField { field, what } => Self::BadField { field: rename(field), what },
            other => other,
        }
    }

    /// An internal fault: into the log with it, and a plain answer.
    pub fn internal(what: impl std::fmt::Display) -> Self {
        tracing::error!("{what}");
        Self::Internal
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = match &self {
            Self::Form(detail) => json!({ "detail": detail }),
            other => json!({ "message": other.to_string() }),
        };
        let mut response = (self.status(), Json(body)).into_response();
        let headers = response.headers_mut();
        match &self {
            Self::Busy { retry_after, .. } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(*retry_after));
            }
            Self::Crowded => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(1));
            }
            // What is left of the body is not read, so that nothing can follow it.
            Self::TooLarge(_) | Self::Late { .. } => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        /// Bytes of a header that proxies take; the sentence has the whole field. Clients choose some of its parts.
        const FIELD_BYTES: usize = 1024;
        if let Some(field) = self.field().map(ToString::to_string)
            && field.len() <= FIELD_BYTES
            && let Ok(value) = HeaderValue::from_str(&field)
        {
            headers.insert(HeaderName::from_static(FIELD_HEADER), value);
        }
        response
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        Self::Form(invalid.0)
    }
}

impl From<tdb_scalars::Error> for ApiError {
    fn from(error: tdb_scalars::Error) -> Self {
        match error {
            tdb_scalars::Error::Bad(what) => Self::Bad(what),
            tdb_scalars::Error::BadField { field, what } => Self::BadField { field, what },
            tdb_scalars::Error::NotFound(what) => Self::NotFound(what),
            tdb_scalars::Error::Elsewhere(what) => Self::Upstream(what),
            tdb_scalars::Error::Cancelled => Self::Cancelled,
            tdb_scalars::Error::Internal(what) => Self::internal(what),
        }
    }
}

impl From<tdb_data::Error> for ApiError {
    fn from(error: tdb_data::Error) -> Self {
        match error {
            tdb_data::Error::NotFound(what) => Self::NotFound(what),
            tdb_data::Error::Bad(what) => Self::Bad(what),
            unkept @ tdb_data::Error::Unkept { .. } => Self::NotHere(unkept.to_string()),
            other @ (tdb_data::Error::Io { .. } | tdb_data::Error::Config(_)) => Self::internal(other),
            other => Self::Upstream(other.to_string()),
        }
    }
}
