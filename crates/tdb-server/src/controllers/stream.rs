//! Questions to the model, each part of the answer sent as soon as it is ready: as lines of JSON, or as server-sent
//! events for whoever accepts those.

use crate::app::App;
use crate::connection::Connection;
use crate::error::ApiError;
use crate::metrics::Dropped;
use crate::openapi::Api;
use crate::question::{Streamed, check_prompts};
use crate::reply::Reply;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use std::convert::Infallible;
use std::sync::Arc;
use tdb_api::routes;
use tdb_api::stream::{Events, TdbEvent};
use tdb_api::wire::Describe;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub fn add(api: &mut Api) {
    api.route(routes::BatchedTdbStream, ask);
    api.route(routes::EffectsStream, ask);
    api.route(routes::PatchStream, ask);
    api.route(routes::SampleStream, ask);
}

/// How events are written.
#[derive(Clone, Copy)]
enum Form {
    Lines,
    ServerSent,
}

/// Events as they come, written in the form that was asked for when they are sent.
struct Parts<S>(S);

impl<S: Stream<Item = Bytes> + Send + 'static> Reply<Events> for Parts<S> {
    fn reply(self, asked: &HeaderMap) -> Response {
        let form = form(asked);
        let content_type = match form {
            Form::Lines => Events::MEDIA_TYPE,
            Form::ServerSent => "text/event-stream",
        };
        let chunks = self.0.map(move |event| Ok::<_, Infallible>(framed(&event, form)));
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        (headers, axum::body::Body::from_stream(chunks)).into_response()
    }
}

/// Answers a question by the events of its computation.
async fn ask<Q: Streamed>(app: App, question: Q) -> Result<impl Reply<Events>, ApiError> {
    let model = app.model()?;
    let limits = app.config().limits.clone();
    question.check(&limits)?;
    let (sender, mut events) = unbounded_channel();
    // The channel is bounded by its bytes, which are counted like those of any answer.
    let hold = Arc::new(app.unsent().hold(app.caller()));
    let counted = hold.clone();
    let send = Box::new(move |event| {
        let event = written(&event);
        // A client that went away is noticed by the queue; its last events go nowhere.
        let _ = counted.add(event.len()) && sender.send(event).is_ok();
    });
    let class = question.class();
    let (answer, stop) = app.queue().start(app.caller().client, class, Some(send), move |job| {
        check_prompts(&question, &*model, &limits)?;
        question.send(&*model, job)
    })?;
    let mut answer = Box::pin(answer);
    // Until the answer is complete its connection is one that is worked for, so that a hang-up is looked for.
    let working = app.caller().connection.as_ref().map(Connection::request);
    // A question that fails before its first event is refused like any other. One may also be over before its first
    // event was looked for; its outcome is told once.
    let (first, answer) = tokio::select! {
        biased;
        Some(event) = events.recv() => (vec![event], Some((answer, working))),
        outcome = &mut answer => (ended(&mut events, Ok(outcome?)), None),
    };
    let state = (events, answer, stop, app);
    let rest = stream::unfold(state, |(mut events, mut answer, stop, app)| async move {
        let (waiting, _) = answer.as_mut()?;
        let event = tokio::select! {
            biased;
            Some(event) = events.recv() => event,
            outcome = waiting => {
                let left = ended(&mut events, outcome);
                return Some((left, (events, None, stop, app)));
            }
            () = app.stop().cutting() => {
                app.stop().count_cut();
                app.metrics().dropped(Dropped::Stopped);
                return Some((vec![written(&last(Err(ApiError::Stopping)))], (events, None, stop, app)));
            }
        };
        Some((vec![event], (events, answer, stop, app)))
    });
    let all = stream::iter(first).chain(rest.flat_map(stream::iter)).inspect(move |event| hold.sent(event.len()));
    Ok(Parts(all))
}

/// What is left to send when the outcome is known: everything was sent before, but perhaps not yet taken.
fn ended(events: &mut UnboundedReceiver<Bytes>, outcome: Result<(), ApiError>) -> Vec<Bytes> {
    let mut left: Vec<Bytes> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    left.push(written(&last(outcome)));
    left
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

fn written(event: &TdbEvent) -> Bytes {
    // Events are plain data and always have a JSON form.
    serde_json::to_vec(event)
        .unwrap_or_else(|error| {
            tracing::error!("an event could not be written: {error}");
            Vec::new()
        })
        .into()
}

fn framed(event: &Bytes, form: Form) -> Bytes {
    match form {
        Form::Lines => [event, &b"\n"[..]].concat().into(),
        Form::ServerSent => [&b"data: "[..], event, &b"\n\n"[..]].concat().into(),
    }
}
