//! The only module that talks to the server.
//!
//! [`call`] asks any route of [`tdb_api::routes`], [`stream`] reads an answer that is sent in parts.
//! Each call ends in data or in a [`Problem`] that a person can act on; one whose [`Abort`] was dropped ends in
//! [`Kind::Aborted`].

use std::cell::RefCell;
use std::pin::Pin;

use tdb_api::routes::{Method, Place, Route};
use tdb_api::stream::{Events, FoldError, TdbEvent};
use tdb_api::wire::{Decode, Describe, FieldPath, from_json, to_query};
use tdb_api::{ErrorBody, FIELD_HEADER};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, AbortSignal, Headers, ReadableStreamDefaultReader, RequestInit, Response};

use crate::dom;
use crate::json::Json;

const SERVER_KEY: &str = "tdb.server";

thread_local! {
    static SERVER: RefCell<String> =
        RefCell::new(dom::stored(SERVER_KEY).filter(|address| is_within_reach(address)).unwrap_or_default());
    /// Routes that this server was found not to have.
    static MISSING: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// The server's address; empty means the page's own origin.
pub fn server() -> String {
    SERVER.with_borrow(Clone::clone)
}

/// Whether the content policy of these pages lets them ask a server: their own, and those of the browser's machine.
pub fn is_within_reach(address: &str) -> bool {
    let is_of_this_machine = |rest: &str| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        matches!(host.split(':').next(), Some("localhost" | "127.0.0.1")) && !host.contains('@')
    };
    let address = address.trim().trim_end_matches('/');
    address.is_empty() || address == dom::origin() || address.strip_prefix("http://").is_some_and(is_of_this_machine)
}

/// Talks to another server from now on, and remembers it in this browser.
pub fn set_server(address: &str) {
    let address = address.trim().trim_end_matches('/');
    dom::store(SERVER_KEY, (!address.is_empty()).then_some(address));
    SERVER.set(address.to_owned());
    MISSING.set(Vec::new());
}

/// The server's address as another program needs it.
pub fn absolute_server() -> String {
    let server = server();
    if server.is_empty() { dom::origin() } else { server }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No answer at all.
    Unreachable,
    /// An answer without its end.
    CutOff,
    /// The server answered with an error status.
    Refused(u16),
    /// An answer that does not have the expected form.
    Unreadable,
    /// Cancelled by the page itself; never shown.
    Aborted,
}

/// What went wrong, in a sentence.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub kind: Kind,
    pub message: String,
    /// Where in the request, for instance `subRequests[0].targetTokens[1]`.
    pub field: Option<FieldPath>,
}

impl Problem {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), field: None }
    }

    /// A refusal; a sentence that begins with its field is shown without it.
    pub fn refused(status: u16, message: &str, field: Option<FieldPath>) -> Self {
        let prefix = field.as_ref().map(|field| format!("{field}: "));
        let message = match prefix.and_then(|prefix| message.strip_prefix(&prefix)) {
            Some(rest) => capital(rest),
            None => message.to_owned(),
        };
        Self { kind: Kind::Refused(status), message, field }
    }

    pub fn unreadable(what: &str, error: impl std::fmt::Display) -> Self {
        Self::new(Kind::Unreadable, format!("The answer to {what} cannot be read: {error}."))
    }

    /// What a stream told in place of an answer.
    pub fn not_added_up(error: FoldError) -> Self {
        match error {
            FoldError::Failed { status, message, field } => Self::refused(status, &message, field),
            other => Self::unreadable("the question", other),
        }
    }

    /// There is no answer to show, and nothing that the server says about it.
    pub fn is_unanswered(&self) -> bool {
        matches!(self.kind, Kind::Unreachable | Kind::CutOff)
    }

    /// The route does not exist on this server: a feature to hide, not an error to show.
    pub fn is_missing_route(&self) -> bool {
        matches!(self.kind, Kind::Refused(404 | 405 | 501))
    }

    fn from_body(status: u16, body: &str, field: Option<FieldPath>) -> Self {
        match from_json::<ErrorBody>(body) {
            Ok(said) => Self::refused(status, &said.message, said.field.or(field)),
            Err(_) => {
                let message = format!("The server answered {status} ({}) without a reason.", status_name(status));
                Self::new(Kind::Refused(status), message)
            }
        }
    }
}

/// A text with a capital in front.
pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|c| std::iter::once(c.to_ascii_uppercase()).chain(letters).collect()).unwrap_or_default()
}

fn status_name(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        422 => "Validation Error",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "error",
    }
}

/// Cancels its calls when dropped.
pub struct Abort(AbortController);

impl Abort {
    pub fn new() -> Option<Self> {
        AbortController::new().ok().map(Self)
    }

    pub fn signal(&self) -> AbortSignal {
        self.0.signal()
    }
}

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks a route.
pub async fn call<R: Route<Answer: Decode>>(
    request: &R::Request,
    signal: Option<AbortSignal>,
) -> Result<R::Answer, Problem> {
    let text = text(Call::json::<R>(request), signal).await?;
    from_json(&text).map_err(|e| Problem::unreadable(R::PATH, e))
}

/// The text that answers a request. Boxed, so that whoever waits for it is small.
pub fn text(call: Call, signal: Option<AbortSignal>) -> Pin<Box<dyn Future<Output = Result<String, Problem>>>> {
    Box::pin(async move { text_of(&send(call, signal).await?).await })
}

/// Asks a route that answers in parts, and hands over each event of the answer as it arrives.
pub async fn stream<R: Route<Answer = Events>>(
    request: &R::Request,
    signal: Option<AbortSignal>,
    mut event: impl FnMut(TdbEvent),
) -> Result<(), Problem> {
    let response = send(Call::of::<R>(request, Events::MEDIA_TYPE), signal).await?;
    lines_of(&response, &mut |line: &str| {
        event(from_json(line).map_err(|e| Problem::unreadable("the question", e))?);
        Ok(())
    })
    .await
}

/// Hands over each line of a body.
async fn lines_of(response: &Response, line: &mut dyn FnMut(&str) -> Result<(), Problem>) -> Result<(), Problem> {
    let Some(stream) = response.body() else {
        return text_of(response).await?.lines().try_for_each(|text| emit(text.as_bytes(), line));
    };
    let reader: ReadableStreamDefaultReader = stream.get_reader().unchecked_into();
    let mut pending: Vec<u8> = Vec::new();
    loop {
        let chunk = JsFuture::from(reader.read()).await.map_err(|e| broken(&e, Kind::CutOff))?;
        let done = js_sys::Reflect::get(&chunk, &JsValue::from_str("done")).is_ok_and(|d| d.is_truthy());
        if let Ok(value) = js_sys::Reflect::get(&chunk, &JsValue::from_str("value"))
            && let Some(bytes) = value.dyn_ref::<js_sys::Uint8Array>()
        {
            pending.extend(bytes.to_vec());
        }
        let mut start = 0;
        while let Some(end) = pending[start..].iter().position(|&b| b == b'\n') {
            emit(&pending[start..start + end], line)?;
            start += end + 1;
        }
        pending.drain(..start);
        if done {
            return emit(&pending, line);
        }
    }
}

fn emit(bytes: &[u8], line: &mut dyn FnMut(&str) -> Result<(), Problem>) -> Result<(), Problem> {
    let text = String::from_utf8_lossy(bytes);
    if text.trim().is_empty() { Ok(()) } else { line(text.trim()) }
}

async fn text_of(response: &Response) -> Result<String, Problem> {
    let promise = response.text().map_err(|e| broken(&e, Kind::CutOff))?;
    let text = JsFuture::from(promise).await.map_err(|e| broken(&e, Kind::CutOff))?;
    Ok(text.as_string().unwrap_or_default())
}

/// A request as it is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    method: &'static str,
    route: &'static str,
    /// Path and query.
    path: String,
    body: Option<String>,
    accept: &'static str,
    in_reference: bool,
}

impl Call {
    /// One that is answered with JSON.
    pub fn json<R: Route>(request: &R::Request) -> Self {
        Self::of::<R>(request, "application/json")
    }

    fn of<R: Route>(request: &R::Request, accept: &'static str) -> Self {
        let (mut path, mut body) = (R::PATH.to_owned(), None);
        match R::PLACE {
            Place::Nowhere => {}
            Place::Body => body = Some(Json::of(request).text()),
            Place::Query => path = format!("{path}?{}", to_query(request)),
        }
        let method = match R::METHOD {
            Method::Get => "GET",
            Method::Post => "POST",
        };
        Self { method, route: R::PATH, path, body, accept, in_reference: R::IN_REFERENCE }
    }
}

async fn send(call: Call, signal: Option<AbortSignal>) -> Result<Response, Problem> {
    let window = dom::window().ok_or_else(|| Problem::new(Kind::Unreachable, "There is no window."))?;
    // Of routes that the reference's server lacks one refusal is enough; the page does without them.
    if MISSING.with_borrow(|m| m.contains(&call.route)) {
        return Err(Problem::new(Kind::Refused(404), "This server does not have it."));
    }
    let init = RequestInit::new();
    init.set_method(call.method);
    let headers = Headers::new().map_err(|e| broken(&e, Kind::Unreachable))?;
    headers.set("Accept", call.accept).map_err(|e| broken(&e, Kind::Unreachable))?;
    if let Some(body) = &call.body {
        headers.set("Content-Type", "application/json").map_err(|e| broken(&e, Kind::Unreachable))?;
        init.set_body(&JsValue::from_str(body));
    }
    init.set_headers(&headers);
    init.set_signal(signal.as_ref());
    let url = format!("{}{}", server(), call.path);
    let response: Response = JsFuture::from(window.fetch_with_str_and_init(&url, &init))
        .await
        .map_err(|e| broken(&e, Kind::Unreachable))?
        .unchecked_into();
    if response.ok() {
        return Ok(response);
    }
    let status = response.status();
    let field = response.headers().get(FIELD_HEADER).ok().flatten().and_then(|path| path.parse().ok());
    let body = text_of(&response).await.unwrap_or_default();
    if is_without_route(status, &body) && !call.in_reference {
        MISSING.with_borrow_mut(|m| m.push(call.route));
    }
    Err(Problem::from_body(status, &body, field))
}

/// Whether a server says that it has no such route, rather than that it has no such thing, of which it tells more.
fn is_without_route(status: u16, body: &str) -> bool {
    let is_all = || from_json::<ErrorBody>(body).map_or(true, |said| said.message == "Not Found");
    status == 405 || status == 404 && is_all()
}

fn broken(error: &JsValue, kind: Kind) -> Problem {
    let name =
        js_sys::Reflect::get(error, &JsValue::from_str("name")).ok().and_then(|n| n.as_string()).unwrap_or_default();
    if name == "AbortError" {
        return Problem::new(Kind::Aborted, "");
    }
    let message = match kind {
        Kind::CutOff => "The answer broke off before its end. Ask again.",
        _ => "The server cannot be reached. The page keeps trying and asks again when it is back.",
    };
    Problem::new(kind, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_thing_is_no_missing_route() {
        for body in ["", "<html>", r#"{"detail":"Not Found"}"#, r#"{"message":"Not Found"}"#] {
            assert!(is_without_route(404, body), "{body}");
        }
        assert!(!is_without_route(404, r#"{"message":"no data set has layer 9, index 1"}"#));
        assert!(is_without_route(405, "") && !is_without_route(400, ""));
    }

    #[test]
    fn a_sentence_is_shown_without_its_field() {
        let field = FieldPath::of("subRequests").index(0).key("prompt");
        let message = r#"{"message":"subRequests[0].prompt: has 9 tokens"}"#;
        let problem = Problem::from_body(400, message, Some(field.clone()));
        assert_eq!((problem.message.as_str(), problem.field), ("Has 9 tokens", Some(field)));
        let problem = Problem::from_body(422, r#"{"detail":[{"loc":["body","a"],"msg":"is odd","type":"x"}]}"#, None);
        assert_eq!((problem.message.as_str(), problem.field), ("Is odd", Some(FieldPath::of("a"))));
        let problem = Problem::from_body(502, "<html>", None);
        assert_eq!(problem.message, "The server answered 502 (Bad Gateway) without a reason.");
    }
}
