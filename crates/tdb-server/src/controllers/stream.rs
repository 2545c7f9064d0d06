//! The debugger's question, each part of the answer sent as soon as it is ready: as lines of JSON, or as server-sent
//! events for whoever accepts those.

use crate::app::App;
use crate::error::ApiError;
use crate::openapi::Api;
use crate::question::{Question, check_prompts};
use crate::reply::Reply;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, stream};
use std::convert::Infallible;
use tdb_api::stream::{Events, TdbEvent};
use tdb_api::{BatchedTdbRequest, routes};
use tokio::sync::mpsc::unbounded_channel;

pub fn add(api: &mut Api) {
    api.route(routes::BatchedTdbStream, batched_tdb_stream);
}

/// How events are written.
#[derive(Clone, Copy)]
enum Form {
    Lines,
    ServerSent,
}

/// Events as they come, some at a time.
struct Parts<S>(S);

impl<S: Stream<Item = Vec<TdbEvent>> + Send + 'static> Reply<Events> for Parts<S> {
    fn reply(self, asked: &HeaderMap) -> Response {
        let form = form(asked);
        let content_type = match form {
            Form::Lines => "application/x-ndjson",
            Form::ServerSent => "text/event-stream",
        };
        let chunks = self.0.map(move |events| Ok::<_, Infallible>(written(&events, form)));
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        (headers, axum::body::Body::from_stream(chunks)).into_response()
    }
}

async fn batched_tdb_stream(app: App, question: BatchedTdbRequest) -> Result<impl Reply<Events>, ApiError> {
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
    Ok(Parts(all))
}

fn last(outcome: Result<(), ApiError>) -> TdbEvent {
    match outcome {
        Ok(()) => TdbEvent::Done,
        Err(error) => TdbEvent::Error {
            status: error.status().as_u16(),
            message: error.to_string(),
            field: error.field().cloned(),
        },
    }
}

fn form(headers: &HeaderMap) -> Form {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("text/event-stream") { Form::ServerSent } else { Form::Lines }
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
