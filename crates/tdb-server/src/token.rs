//! The token that clients have to know where others can connect: in the printed link, then in a cookie; programs send
//! it as `Authorization: Bearer`.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::app::App;
use crate::controllers::wants_html;
use crate::error::ApiError;
use crate::pages::token_form;

/// Fewest characters of a token that somebody chooses.
pub const SHORTEST: usize = 16;

/// A new token: 32 hexadecimal digits that cannot be guessed.
pub fn new_token() -> String {
    hex(&rand::random::<[u8; 16]>())
}

/// What probes of a cluster ask without a token. It tells nothing but that the server runs.
const OPEN: [&str; 2] = ["/health", "/ready"];

/// Refuses requests without the token, if there is one.
pub async fn check(State(app): State<App>, request: Request, next: Next) -> Response {
    let Some(token) = &app.config().token else { return next.run(request).await };
    let (headers, uri) = (request.headers(), request.uri());
    if OPEN.contains(&uri.path()) || has_bearer(headers, token) || has_cookie(headers, uri, token) {
        let mut response = next.run(request).await;
        // No cache on the way may give it to somebody without the token.
        let headers = response.headers_mut();
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-store"));
        return response;
    }
    // A browser opens the link once and has the cookie from then on; the token does not stay in the address.
    if request.method() == Method::GET && in_link(uri).is_some_and(|found| same(&found, token)) {
        return to_cookie(headers, uri, token);
    }
    refused(headers, uri)
}

fn refused(headers: &HeaderMap, uri: &Uri) -> Response {
    let mut response = if wants_html(headers) {
        let form = token_form(fields(uri).filter(|(name, _)| name != "token"), in_link(uri).is_some());
        (StatusCode::UNAUTHORIZED, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], form).into_response()
    } else {
        ApiError::Unauthorized.into_response()
    };
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tdb\""));
    response
}

fn to_cookie(headers: &HeaderMap, uri: &Uri, token: &str) -> Response {
    let cookie = format!(
        "{}={}; Path=/; HttpOnly; SameSite=Lax; Max-Age=31536000",
        cookie_name(headers, uri),
        cookie_value(token)
    );
    let headers = [(header::SET_COOKIE, cookie), (header::LOCATION, without_token(uri))];
    (StatusCode::SEE_OTHER, headers, [(header::CACHE_CONTROL, "no-store")]).into_response()
}

fn has_bearer(headers: &HeaderMap, token: &str) -> bool {
    let Some(value) = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) else { return false };
    let Some((scheme, found)) = value.split_once(' ') else { return false };
    scheme.eq_ignore_ascii_case("bearer") && same(found.trim(), token)
}

fn has_cookie(headers: &HeaderMap, uri: &Uri, token: &str) -> bool {
    let (name, value) = (cookie_name(headers, uri), cookie_value(token));
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|list| list.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.into_iter().any(|(found, v)| found == name && same(v, &value))
}

/// Cookies do not tell ports apart, so the name does: there may be several servers on a machine.
fn cookie_name(headers: &HeaderMap, uri: &Uri) -> String {
    let host = crate::guard::host(headers, uri).unwrap_or_default();
    match host.rsplit_once(':') {
        Some((_, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => format!("tdb_token_{port}"),
        _ => "tdb_token".to_owned(),
    }
}

/// What stands for the token in a cookie, which other servers of the same machine can see.
fn cookie_value(token: &str) -> String {
    hex(&Sha256::digest(format!("tdb cookie {token}")))
}

/// What stands behind the question mark.
fn fields(uri: &Uri) -> impl Iterator<Item = (String, String)> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned()
}

fn in_link(uri: &Uri) -> Option<String> {
    fields(uri).find(|(name, _)| name == "token").map(|(_, token)| token)
}

/// The address without the token, on this server.
fn without_token(uri: &Uri) -> String {
    let pairs = uri.query().unwrap_or_default().split('&');
    // Names may be written with escapes.
    let is_token = |pair: &&str| form_urlencoded::parse(pair.as_bytes()).any(|(name, _)| name == "token");
    let kept: Vec<&str> = pairs.filter(|pair| !pair.is_empty() && !is_token(pair)).collect();
    // Two slashes at the beginning, or what browsers read as such, would name another server.
    let path = format!("/{}", uri.path().trim_start_matches(['/', '\\']));
    if kept.is_empty() { path } else { format!("{path}?{}", kept.join("&")) }
}

/// Takes as long whatever the difference is.
fn same(found: &str, wanted: &str) -> bool {
    Sha256::digest(found).ct_eq(&Sha256::digest(wanted)).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_different() {
        assert_eq!(new_token().len(), 32);
        assert_ne!(new_token(), new_token());
        assert!(same("abc", "abc") && !same("abc", "abd") && !same("", "abc"));
    }

    #[test]
    fn the_form_goes_on_with_the_question() {
        let uri = "/a/tdb_alpha?prompt=a%22%3Cb&token=wrong".parse::<Uri>().unwrap();
        let form = token_form(fields(&uri).filter(|(name, _)| name != "token"), in_link(&uri).is_some());
        assert!(form.contains(r#"name="prompt" value="a&quot;&lt;b""#) && form.contains("not the token"), "{form}");
        assert!(!form.contains("wrong") && !form.contains("<!--"));
        assert!(!token_form([], false).contains("not the token"));
    }

    #[test]
    fn the_token_leaves_the_address() {
        let shown = |uri: &str| without_token(&uri.parse().unwrap());
        assert_eq!(shown("/a/tdb_alpha?prompt=x&token=t&k=1"), "/a/tdb_alpha?prompt=x&k=1");
        assert_eq!(shown("/?token=t"), "/");
        assert_eq!(shown("//evil.example/?token=t"), "/evil.example/");
    }
}
