//! The only module that talks to the server.
//!
//! Nearly everything is a POST with a JSON body. Each call ends in data or in a [`Problem`] that a person can act on; a call whose
//! [`Abort`] was dropped ends in [`Kind::Aborted`], which nobody shows.

use std::cell::RefCell;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, Headers, ReadableStreamDefaultReader, RequestInit, Response};

use crate::dom;

const SERVER_KEY: &str = "tdb.server";

/// Routes that the reference's server does not have. There one refusal is enough; the page does without them.
const OURS: [&str; 4] = ["/batched_tdb/stream", "/info", "/tokenize", "/vocabulary"];

thread_local! {
    static SERVER: RefCell<String> = RefCell::new(dom::stored(SERVER_KEY).unwrap_or_default());
    static MISSING: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// The route of ours that a path names.
fn ours(path: &str) -> Option<&'static str> {
    let route = path.split('?').next().unwrap_or_default();
    OURS.into_iter().find(|ours| *ours == route)
}

/// The server's address; empty means the page's own origin.
pub fn server() -> String {
    SERVER.with_borrow(Clone::clone)
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
    /// The server answered with an error status.
    Refused(u16),
    /// An answer that does not have the expected form.
    Unreadable,
    /// Superseded; not for eyes.
    Aborted,
}

/// What went wrong, in a sentence.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub kind: Kind,
    pub message: String,
    /// Where in the request, for instance `subRequests[0].targetTokens[1]`.
    pub field: Option<String>,
    /// What would be right, if the server says it.
    pub hint: Option<String>,
}

impl Problem {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), field: None, hint: None }
    }

    pub fn unreadable(what: &str, error: impl std::fmt::Display) -> Self {
        Self::new(Kind::Unreadable, format!("The answer to {what} cannot be read: {error}."))
    }

    /// The route does not exist on this server: a feature to hide, not an error to show.
    pub fn is_missing_route(&self) -> bool {
        matches!(self.kind, Kind::Refused(404 | 405 | 501))
    }

    fn from_body(status: u16, body: &str) -> Self {
        let value: Value = serde_json::from_str(body).unwrap_or_default();
        let text = |key: &str| value.get(key).and_then(Value::as_str).filter(|s| !s.is_empty()).map(str::to_owned);
        let (message, mut field) = match (text("message"), value.get("detail")) {
            (Some(message), _) => (message, None),
            (None, Some(Value::Array(details))) => validation(details),
            (None, Some(Value::String(detail))) => (detail.clone(), None),
            _ => (format!("The server answered {status} ({}) without a reason.", status_name(status)), None),
        };
        field = text("field").or(field);
        let (message, field) = split_field(message, field);
        Self { kind: Kind::Refused(status), message, field, hint: text("hint") }
    }
}

/// Sentences about a field begin with it: `subRequests[0].prompt: is empty`.
pub fn split_field(message: String, field: Option<String>) -> (String, Option<String>) {
    let is_path = |text: &str| {
        text.starts_with("subRequests") && text.chars().all(|c| c.is_ascii_alphanumeric() || "[].".contains(c))
    };
    match message.split_once(": ") {
        Some((path, rest)) if field.is_none() && is_path(path) => {
            let mut letters = rest.chars();
            let rest = letters.next().map(|c| c.to_uppercase().chain(letters).collect()).unwrap_or_default();
            (rest, Some(path.to_owned()))
        }
        _ => (message, field),
    }
}

/// Validation errors as `{loc, msg}`: the first, with its place.
fn validation(details: &[Value]) -> (String, Option<String>) {
    let Some(first) = details.first() else { return ("The server did not understand the request.".into(), None) };
    let mut place = String::new();
    for part in first.get("loc").and_then(Value::as_array).into_iter().flatten().skip(1) {
        match part {
            Value::Number(n) => place.push_str(&format!("[{n}]")),
            other => {
                if !place.is_empty() {
                    place.push('.');
                }
                place.push_str(other.as_str().unwrap_or_default());
            }
        }
    }
    let message = first.get("msg").and_then(Value::as_str).unwrap_or("is not valid");
    (format!("{place}: {message}"), Some(place))
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

    pub fn signal(&self) -> web_sys::AbortSignal {
        self.0.signal()
    }
}

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Posts `body` and reads the answer as `T`.
pub async fn post<T: DeserializeOwned>(
    path: &str,
    body: &impl Serialize,
    signal: Option<web_sys::AbortSignal>,
) -> Result<T, Problem> {
    let body = serde_json::to_string(body).map_err(|e| Problem::unreadable(path, e))?;
    let text = post_text(path, Some(&body), signal).await?;
    serde_json::from_str(&text).map_err(|e| Problem::unreadable(path, e))
}

/// Posts nothing and reads the answer as `T`.
pub async fn post_empty<T: DeserializeOwned>(path: &str) -> Result<T, Problem> {
    let text = post_text(path, None, None).await?;
    serde_json::from_str(&text).map_err(|e| Problem::unreadable(path, e))
}

/// Gets `path`, which is one of our own server's additions, and reads the answer as `T`.
pub async fn get<T: DeserializeOwned>(path: &str) -> Result<T, Problem> {
    let response = send("GET", path, None, None, "application/json").await?;
    let text = text_of(&response).await?;
    serde_json::from_str(&text).map_err(|e| Problem::unreadable(path, e))
}

/// Posts `body` and gives the answer's text.
pub async fn post_text(
    path: &str,
    body: Option<&str>,
    signal: Option<web_sys::AbortSignal>,
) -> Result<String, Problem> {
    let response = send("POST", path, body, signal, "application/json").await?;
    text_of(&response).await
}

/// Posts `body` and hands over each line of the answer as it arrives.
pub async fn post_lines(
    path: &str,
    body: &str,
    signal: Option<web_sys::AbortSignal>,
    mut line: impl FnMut(&str),
) -> Result<(), Problem> {
    let response = send("POST", path, Some(body), signal, "application/x-ndjson").await?;
    let Some(stream) = response.body() else {
        text_of(&response).await?.lines().for_each(&mut line);
        return Ok(());
    };
    let reader: ReadableStreamDefaultReader = stream.get_reader().unchecked_into();
    let mut pending: Vec<u8> = Vec::new();
    loop {
        let chunk = JsFuture::from(reader.read()).await.map_err(|e| broken(&e))?;
        let done = js_sys::Reflect::get(&chunk, &JsValue::from_str("done")).is_ok_and(|d| d.is_truthy());
        if let Ok(value) = js_sys::Reflect::get(&chunk, &JsValue::from_str("value"))
            && let Some(bytes) = value.dyn_ref::<js_sys::Uint8Array>()
        {
            pending.extend(bytes.to_vec());
        }
        let mut start = 0;
        while let Some(end) = pending[start..].iter().position(|&b| b == b'\n') {
            emit(&pending[start..start + end], &mut line);
            start += end + 1;
        }
        pending.drain(..start);
        if done {
            emit(&pending, &mut line);
            return Ok(());
        }
    }
}

fn emit(bytes: &[u8], line: &mut impl FnMut(&str)) {
    let text = String::from_utf8_lossy(bytes);
    if !text.trim().is_empty() {
        line(text.trim());
    }
}

async fn text_of(response: &Response) -> Result<String, Problem> {
    let promise = response.text().map_err(|e| broken(&e))?;
    let text = JsFuture::from(promise).await.map_err(|e| broken(&e))?;
    Ok(text.as_string().unwrap_or_default())
}

async fn send(
    method: &str,
    path: &str,
    body: Option<&str>,
    signal: Option<web_sys::AbortSignal>,
    accept: &str,
) -> Result<Response, Problem> {
    let window = dom::window().ok_or_else(|| Problem::new(Kind::Unreachable, "There is no window."))?;
    let ours = ours(path);
    if ours.is_some_and(|route| MISSING.with_borrow(|m| m.contains(&route))) {
        return Err(Problem::new(Kind::Refused(404), "This server does not have it."));
    }
    let init = RequestInit::new();
    init.set_method(method);
    let headers = Headers::new().map_err(|e| broken(&e))?;
    headers.set("Accept", accept).map_err(|e| broken(&e))?;
    if let Some(body) = body {
        headers.set("Content-Type", "application/json").map_err(|e| broken(&e))?;
        init.set_body(&JsValue::from_str(body));
    }
    init.set_headers(&headers);
    init.set_signal(signal.as_ref());
    let url = format!("{}{path}", server());
    let response: Response =
        JsFuture::from(window.fetch_with_str_and_init(&url, &init)).await.map_err(|e| broken(&e))?.unchecked_into();
    if response.ok() {
        return Ok(response);
    }
    let status = response.status();
    if let (404 | 405, Some(route)) = (status, ours) {
        MISSING.with_borrow_mut(|m| m.push(route));
    }
    let body = text_of(&response).await.unwrap_or_default();
    Err(Problem::from_body(status, &body))
}

fn broken(error: &JsValue) -> Problem {
    let name =
        js_sys::Reflect::get(error, &JsValue::from_str("name")).ok().and_then(|n| n.as_string()).unwrap_or_default();
    if name == "AbortError" {
        return Problem::new(Kind::Aborted, "");
    }
    Problem::new(Kind::Unreachable, "The server cannot be reached. The page keeps trying and goes on when it is back.")
}
