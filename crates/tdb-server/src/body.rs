//! Reading requests by the rules of `tdb_api::wire`, with 422 and every reason when they do not fit.

use crate::app::App;
use crate::config::Limits;
use crate::connection::{Caller, Connection};
use crate::error::ApiError;
use crate::metrics::Stage;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tdb_api::routes::{Place, Route};
use tdb_api::wire::{self, Decode, Errors, FieldError, Step, from_query, from_value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a route takes, from wherever its request stands. A body is read as JSON, whatever its content type says.
#[derive(Debug)]
pub struct Asked<R: Route>(pub R::Request);

/// Bodies up to this size are read where they arrive. Larger ones are read by other threads, a few at a time, and all
/// of them together may have so many bytes as the limits say.
const SMALL: usize = 64 << 10;
/// Large bodies that are read at a time.
const READ_AT_ONCE: usize = 2;
/// How much of a body that is too large is taken, for its client to come to reading the answer.
const THROWN_AWAY: usize = 16 << 20;
const THROWN_AWAY_IN: Duration = Duration::from_secs(2);

/// Counts the large bodies that are being received or read.
#[derive(Debug)]
pub struct Intake {
    bytes: Arc<Semaphore>,
    readers: Semaphore,
}

impl Intake {
    pub fn new(limits: &Limits) -> Self {
        Self { bytes: Arc::new(Semaphore::new(limits.incoming_bytes)), readers: Semaphore::new(READ_AT_ONCE) }
    }
}

impl<R: Route> FromRequest<App> for Asked<R> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        Ok(Self(match R::PLACE {
            Place::Nowhere => from_value(&Value::Null, "body")?,
            Place::Query => from_query(request.uri().query().unwrap_or_default())?,
            Place::Body => read_body(request, app).await?,
        }))
    }
}

async fn read_body<T: Decode + Send + 'static>(request: Request, app: &App) -> Result<T, ApiError> {
    let begun = Instant::now();
    let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
    let read = async {
        let received = {
            let _waits = caller.connection.as_ref().map(Connection::waits_for_client);
            receive(request, app).await?
        };
        let limits = app.config().limits.clone();
        if received.bytes.len() <= SMALL {
            return decode(&received.bytes, &limits);
        }
        let _reader = app.intake().readers.acquire().await.map_err(ApiError::internal)?;
        let decoded = tokio::task::spawn_blocking(move || decode(&received.bytes, &limits)).await;
        decoded.map_err(ApiError::internal)?
    };
    let value = read.await;
    app.metrics().stage(Stage::Body, begun.elapsed());
    value
}

/// The bytes of a body, with its part in the count of large ones.
struct Received {
    bytes: Vec<u8>,
    _counted: Option<OwnedSemaphorePermit>,
}

async fn receive(request: Request, app: &App) -> Result<Received, ApiError> {
    let limits = &app.config().limits;
    let limit = limits.body_bytes;
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut body = request.into_body();
    if declared.is_some_and(|bytes: usize| bytes > limit) {
        return Err(too_large(body, limit).await);
    }
    let mut bytes = Vec::new();
    let mut counted: Option<OwnedSemaphorePermit> = None;
    let late = tokio::time::sleep(limits.body_time);
    tokio::pin!(late);
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = &mut late => return Err(ApiError::Late { seconds: limits.body_time.as_secs() }),
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| ApiError::Bad(format!("the request's body could not be read: {error}")))?;
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(too_large(body, limit).await);
        }
        if bytes.len() + data.len() > SMALL {
            let new = bytes.len() + data.len() - counted.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let more = app.intake().bytes.clone().try_acquire_many_owned(new as u32).map_err(|_| ApiError::Crowded)?;
            match &mut counted {
                Some(counted) => counted.merge(more),
                None => counted = Some(more),
            }
        }
        bytes.extend_from_slice(data);
    }
    Ok(Received { bytes, _counted: counted })
}

/// Takes what the client is still sending, up to a point: a connection that is closed before that loses its answer.
async fn too_large(mut body: axum::body::Body, limit: usize) -> ApiError {
    let mut thrown_away = 0;
    let rest = async {
        while let Some(Ok(frame)) = body.frame().await
            && thrown_away < THROWN_AWAY
        {
            thrown_away += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    let _ = tokio::time::timeout(THROWN_AWAY_IN, rest).await;
    ApiError::TooLarge(format!(
        "the request's body is larger than the {limit} bytes that this server takes; GET /limits says so, too"
    ))
}

fn decode<T: Decode>(bytes: &[u8], limits: &Limits) -> Result<T, ApiError> {
    let value = parse(bytes)?;
    if value.is_null() {
        return Err(ApiError::Form(vec![missing_body()]));
    }
    Ok(wire::read(&value, Errors::below("body").with_lists_of_at_most(limits.list_items))?)
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
