//! Every request gets an id, is counted, and stands in the access log if there is one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use crate::app::App;
use crate::connection::{Caller, Client};
use crate::metrics::Dropped;

/// The header that carries a request's id, in both directions.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Around everything else: also what is refused is counted.
pub async fn observe(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(request.headers());
    let caller = caller(&app, &request);
    let client = caller.client;
    request.extensions_mut().insert(caller);
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    // Without what follows the question mark: that is what people ask about.
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let unanswered = Unanswered { app: &app, line: Some((&id, client, method.as_str(), path.as_str())) };
    let mut response = next.run(request).await;
    unanswered.answered();
    let status = response.status().as_u16();
    let took = begun.elapsed();
    app.metrics().answered(&route, status, took);
    if app.config().access_log {
        let ms = took.as_secs_f64() * 1000.0;
        let id = id.to_str().unwrap_or_default();
        tracing::info!(target: "access", id, %client, %method, path, status, ms = (ms * 10.0).round() / 10.0);
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// Writes a line about a request whose client went away before it was answered.
struct Unanswered<'a> {
    app: &'a App,
    line: Option<(&'a HeaderValue, Client, &'a str, &'a str)>,
}

impl Unanswered<'_> {
    fn answered(mut self) {
        self.line = None;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let Some((id, client, method, path)) = self.line.take() else { return };
        self.app.metrics().dropped(Dropped::Gone);
        if self.app.config().access_log {
            let id = id.to_str().unwrap_or_default();
            tracing::info!(target: "access", id, %client, method, path, "the client went away");
        }
    }
}

/// The id that a proxy or a client gave the request, if it is one; or a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    const LONGEST: usize = 64;
    let is_id = |id: &&HeaderValue| {
        let of_ids = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
        (1..=LONGEST).contains(&id.len()) && id.as_bytes().iter().all(of_ids)
    };
    headers.get(REQUEST_ID).filter(is_id).cloned().unwrap_or_else(new_id)
}

/// Unlike all others of this process, and hardly like any of another.
fn new_id() -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let id = format!("{now:x}-{:x}", NEXT.fetch_add(1, Ordering::Relaxed));
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
}

/// Who asks. A reverse proxy of ours says for whom it does.
fn caller(app: &App, request: &Request) -> Caller {
    let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
    let is_proxy = caller.connection.as_ref().is_some_and(|c| app.config().proxies.contains(&c.peer.to_canonical()));
    let forwarded = is_proxy.then(|| forwarded_for(request.headers())).flatten();
    Caller { client: forwarded.unwrap_or(caller.client), ..caller }
}

/// The last address of `X-Forwarded-For`: the one that the proxy itself saw. The others can be made up.
fn forwarded_for(headers: &HeaderMap) -> Option<Client> {
    let last = headers.get_all("x-forwarded-for").into_iter().next_back()?.to_str().ok()?.rsplit(',').next()?.trim();
    last.parse().ok().map(Client::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn ids_are_kept_if_they_are_ids() {
        assert_eq!(request_id(&with("x-request-id", "abc-1.2_3")), "abc-1.2_3");
        for bad in ["", "a b", "a\"b", &"x".repeat(65)] {
            assert_ne!(request_id(&with("x-request-id", bad)), bad);
        }
        assert_ne!(new_id(), new_id());
    }

    #[test]
    fn the_proxys_own_word_counts() {
        let client = |text: &str| forwarded_for(&with("x-forwarded-for", text));
        assert_eq!(client("6.6.6.6, 10.0.0.7"), Some(Client::new("10.0.0.7".parse().unwrap())));
        assert_eq!(client("nonsense"), None);
    }
}
