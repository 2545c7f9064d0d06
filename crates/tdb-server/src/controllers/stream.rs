//! The debugger's question, each part of the answer sent as soon as it is ready: as lines of JSON, or as server-sent
//! events for whoever accepts those.

use crate::app::App;
use crate::body::Body;
use crate::error::ApiError;
use crate::model::{Question, check_prompts};
use crate::openapi::Api;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, stream};
use std::convert::Infallible;
use tdb_api::BatchedTdbRequest;
use tdb_api::stream::TdbEvent;
use tokio::sync::mpsc::unbounded_channel;

pub fn add(api: &mut Api) {
    let line = serde_json::json!({
        "type": "object", "required": ["event"], "properties": { "event": { "type": "string" } },
        "description": "One line of the stream. `event` is tokens, progress, inference, output_logits, node_groups, \
                        token_readings, token_pairs, done or error.",
    });
    api.post("/batched_tdb/stream", "inference", "batched_tdb_stream", batched_tdb_stream)
        .says("The debugger's question, answered in parts: lines of JSON, or server-sent events by the Accept header.")
        .takes::<BatchedTdbRequest>()
        .gives_schema(line);
}

/// How events are written.
#[derive(Clone, Copy)]
enum Form {
    Lines,
    ServerSent,
}

async fn batched_tdb_stream(
    State(app): State<App>,
    headers: HeaderMap,
    Body(question): Body<BatchedTdbRequest>,
) -> Result<Response, ApiError> {
    let model = app.model()?;
    let limits = app.config().limits.clone();
    question.check(&limits)?;
    let (sender, mut events) = unbounded_channel();
    let (answer, stop) = app.queue().start(Some(sender), move |job| {
        check_prompts(&question, &*model, &limits)?;
        // The answer itself is not needed: its parts have been sent.
        question.answer(&*model, job).map(drop)
    })?;
    let mut answer = Box::pin(answer.fuse());
    // A question that fails before its first event is refused like any other.
    let first = tokio::select! {
        biased;
        Some(event) = events.recv() => Some(event),
        outcome = &mut answer => {
            outcome?;
            None
        }
    };
    let form = form(&headers);
    let state = (events, Some(answer), stop);
    let rest = stream::unfold(state, |(mut events, mut answer, stop)| async move {
        let waiting = answer.as_mut()?;
        let event = tokio::select! {
            biased;
            Some(event) = events.recv() => event,
            outcome = waiting => {
                // Everything was sent before the outcome was known, but perhaps not yet taken.
                let mut left: Vec<TdbEvent> = std::iter::from_fn(|| events.try_recv().ok()).collect();
                left.push(last(outcome));
                return Some((left, (events, None, stop)));
            }
        };
        Some((vec![event], (events, answer, stop)))
    });
    let all = stream::iter(first.map(|event| vec![event])).chain(rest);
    Ok(respond(all, form))
}

fn last(outcome: Result<(), ApiError>) -> TdbEvent {
    match outcome {
        Ok(()) => TdbEvent::Done,
        Err(error) => TdbEvent::Error { status: error.status().as_u16(), message: error.to_string() },
    }
}

fn form(headers: &HeaderMap) -> Form {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("text/event-stream") { Form::ServerSent } else { Form::Lines }
}

fn respond(events: impl Stream<Item = Vec<TdbEvent>> + Send + 'static, form: Form) -> Response {
    let content_type = match form {
        Form::Lines => "application/x-ndjson",
        Form::ServerSent => "text/event-stream",
    };
    let chunks = events.map(move |events| Ok::<_, Infallible>(written(&events, form)));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, axum::body::Body::from_stream(chunks)).into_response()
}

fn written(events: &[TdbEvent], form: Form) -> Bytes {
    let mut out = Vec::new();
    for event in events {
        if let Form::ServerSent = form {
            out.extend_from_slice(b"data: ");
        }
        // Events are plain data and always have a JSON form.
        if let Err(error) = serde_json::to_writer(&mut out, event) {
            tracing::error!("an event could not be written: {error}");
        }
        out.extend_from_slice(match form {
            Form::Lines => b"\n",
            Form::ServerSent => b"\n\n",
        });
    }
    out.into()
}
