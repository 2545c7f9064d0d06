//! Who may ask. What protects the server from pages of other sites is that it answers to its own names alone, and to
//! requests from its own pages, from pages of the browser's own machine, or from none. Where others can connect, there
//! is a token, too (see `token`).

use crate::app::App;
use crate::error::ApiError;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::time::Duration;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};

/// The names by which the server may be addressed.
#[derive(Debug, Clone)]
pub struct Names {
    names: Vec<String>,
    /// Listening on every interface: any address of this machine will do, as addresses cannot be made to lie by DNS.
    any_address: bool,
}

impl Names {
    /// This machine's own names and `hosts`.
    pub fn new(hosts: &[String]) -> Self {
        let mut names: Vec<String> = LOOPBACK.map(String::from).to_vec();
        let unspecified = |host: &str| bare(host).parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
        let any_address = hosts.iter().any(|host| unspecified(host));
        for host in hosts {
            let host = host.to_ascii_lowercase();
            let bracketed = host.contains(':') && !host.starts_with('[');
            names.push(if bracketed { format!("[{host}]") } else { host });
        }
        Self { names, any_address }
    }

    fn has(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.names.contains(&host) || (self.any_address && bare(&host).parse::<IpAddr>().is_ok())
    }

    /// Whether a page of `origin` may use the server that was addressed as `host`: a page of this server or of the
    /// browser's own machine. An address is not enough for that, as any site can have one.
    pub fn allows_origin(&self, origin: &str, host: Option<&str>) -> bool {
        let (page, default_port) = match origin.split_once("://") {
            Some(("http", page)) => (page, ":80"),
            Some(("https", page)) => (page, ":443"),
            _ => return false,
        };
        let whole = |host: &str| host.strip_suffix(default_port).unwrap_or(host).to_ascii_lowercase();
        let is_ours = || host.is_some_and(|host| self.has(without_port(host)) && whole(host) == whole(page));
        !page.contains(['/', '@', '?', '#']) && (is_loopback(without_port(page)) || is_ours())
    }
}

/// This machine's own names.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

fn is_loopback(host: &str) -> bool {
    LOOPBACK.contains(&host.to_ascii_lowercase().as_str())
}

fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// `example:80` without its port; an IPv6 address keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
            if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host }
        }
        _ => host,
    }
}

/// The name by which the server was addressed.
pub fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    // HTTP/2 has no Host header; its counterpart becomes part of the URI.
    headers.get(header::HOST).and_then(|value| value.to_str().ok()).or_else(|| uri.authority().map(|a| a.as_str()))
}

/// Refuses requests under a foreign name or from a page of another site.
pub async fn check(State(app): State<App>, request: Request, next: Next) -> Response {
    match refusal(app.names(), request.headers(), request.uri()) {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    }
}

fn refusal(names: &Names, headers: &HeaderMap, uri: &Uri) -> Option<ApiError> {
    for name in [header::HOST, header::ORIGIN] {
        if headers.get_all(&name).iter().nth(1).is_some() {
            return Some(ApiError::Bad(format!("the request has more than one {name} header")));
        }
    }
    let host = host(headers, uri);
    let authority = uri.authority().map(|authority| authority.as_str());
    let foreign = [host, authority.or(host)].into_iter().find(|host| !host.is_some_and(|h| names.has(without_port(h))));
    if let Some(found) = foreign {
        let found = match found {
            Some(host) => format!("this server does not answer to {host:?}"),
            None => "the request has no Host header that can be read".to_owned(),
        };
        return Some(ApiError::Forbidden(format!(
            "{found}; address the server as localhost or 127.0.0.1, or start it with --host or --allow-host"
        )));
    }
    let origin = headers.get(header::ORIGIN)?.to_str().unwrap_or("(unreadable)");
    let allowed = names.allows_origin(origin, host);
    (!allowed).then(|| {
        ApiError::Forbidden(format!(
            "pages of {origin:?} may not use this server; only its own pages and those of your machine may"
        ))
    })
}

/// Lets pages of this machine read answers, errors included.
pub fn cors(names: Names) -> CorsLayer {
    let allowed = move |origin: &HeaderValue, request: &Parts| {
        let host = host(&request.headers, &request.uri);
        origin.to_str().is_ok_and(|origin| names.allows_origin(origin, host))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .allow_credentials(true)
        .expose_headers(ExposeHeaders::list([
            axum::http::HeaderName::from_static(tdb_api::FIELD_HEADER),
            axum::http::HeaderName::from_static("server-timing"),
            header::RETRY_AFTER,
            crate::observe::REQUEST_ID,
        ]))
        .max_age(Duration::from_secs(600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_cut_off() {
        for (host, name) in
            [("a:80", "a"), ("a", "a"), ("[::1]:8000", "[::1]"), ("[::1]", "[::1]"), ("127.0.0.1:1", "127.0.0.1")]
        {
            assert_eq!(without_port(host), name);
        }
    }

    #[test]
    fn only_own_names_and_origins_pass() {
        let names = Names::new(&["Box.local".into()]);
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "[::1]", "box.local"] {
            assert!(names.has(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "10.0.0.1", "", "127.0.0.1.evil.example"] {
            assert!(!names.has(host), "{host}");
        }
        for origin in ["http://localhost", "https://localhost:3000", "http://127.0.0.1:8000", "http://[::1]:8000"] {
            assert!(names.allows_origin(origin, Some("box.local:8000")), "{origin}");
        }
        for origin in ["null", "http://localhost@evil.example", "http://localhost.evil.example", "file://", "localhost"]
        {
            assert!(!names.allows_origin(origin, Some("localhost")), "{origin}");
        }
    }

    #[test]
    fn on_all_interfaces_any_address_is_ours() {
        let names = Names::new(&["0.0.0.0".into()]);
        assert!(names.has("192.168.0.7") && names.has("[fe80::1]"));
        assert!(!names.has("evil.example"));
        // ... but only pages of the very address that the browser asks.
        assert!(names.allows_origin("http://192.168.0.7:8000", Some("192.168.0.7:8000")));
        assert!(names.allows_origin("https://192.168.0.7", Some("192.168.0.7:443")));
        for origin in ["http://8.8.8.8", "http://192.168.0.7:9000", "http://192.168.0.7"] {
            assert!(!names.allows_origin(origin, Some("192.168.0.7:8000")), "{origin}");
        }
    }
}
