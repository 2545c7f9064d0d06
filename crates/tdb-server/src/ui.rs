//! The pages, which the program carries: each file with its compressed forms beside it.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::EmbeddedFile;
use std::fmt;
use std::fmt::Write as _;

const INDEX: &str = "index.html";

/// The files of the pages. The program carries them rather than this library, which is compiled while they are made.
#[derive(Clone, Copy)]
pub struct Pages {
    get: fn(&str) -> Option<EmbeddedFile>,
}

impl Default for Pages {
    /// None.
    fn default() -> Self {
        Pages::new(|_| None)
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}

impl Pages {
    /// `get` gives the file of a path.
    pub fn new(get: fn(&str) -> Option<EmbeddedFile>) -> Self {
        Pages { get }
    }

    /// The page that every address of a page gets; it looks at the address itself.
    pub fn index(&self, headers: &HeaderMap, status: StatusCode) -> Response {
        match self.asset(INDEX, headers) {
            Some(mut page) => {
                if status != StatusCode::OK && page.status() == StatusCode::OK {
                    *page.status_mut() = status;
                }
                page
            }
            None => (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], NO_PAGES).into_response(),
        }
    }

    /// The text of the page, for what its inline scripts are; empty if there are no pages.
    pub fn index_text(&self) -> String {
        (self.get)(INDEX).map(|page| String::from_utf8_lossy(&page.data).into_owned()).unwrap_or_default()
    }

    /// The file `path` of the pages, if there is one.
    pub fn asset(&self, path: &str, headers: &HeaderMap) -> Option<Response> {
        if path.ends_with(".br") || path.ends_with(".gz") {
            return None;
        }
        let plain = (self.get)(path)?;
        let accepts = |name: &str| accepts_encoding(headers, name);
        let compressed = [("br", ".br"), ("gzip", ".gz")].into_iter().find_map(|(name, suffix)| {
            let file = accepts(name).then(|| (self.get)(&format!("{path}{suffix}"))).flatten()?;
            Some((name, file))
        });
        Some(response(path, compressed, plain, headers))
    }
}

/// `plain`, or the compressed form if there is one that the client takes, unless the client has it.
fn response(
    path: &str,
    compressed: Option<(&'static str, EmbeddedFile)>,
    plain: EmbeddedFile,
    headers: &HeaderMap,
) -> Response {
    let (encoding, file) = match compressed {
        Some((name, file)) => (Some(name), file),
        None => (None, plain),
    };
    let etag = etag(&file, encoding.unwrap_or("plain"));
    let mut response = if same_as(headers, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut response = Response::new(Body::from(file.data.into_owned()));
        let content_type = HeaderValue::from_static(content_type(path));
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        if let Some(encoding) = encoding {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        response
    };
    let own = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        own.insert(header::ETAG, etag);
    }
    // Asked again each time, and answered "not modified": a new build of the program is seen at once.
    own.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    own.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    response
}

fn accepts_encoding(headers: &HeaderMap, name: &str) -> bool {
    let listed = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    listed.flat_map(|list| list.split(',')).any(|entry| {
        let (encoding, quality) = entry.split_once(';').unwrap_or((entry, ""));
        let quality = quality.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok());
        encoding.trim().eq_ignore_ascii_case(name) && quality != Some(0.0)
    })
}

fn same_as(headers: &HeaderMap, etag: &str) -> bool {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    known.split(',').any(|known| known.trim().trim_start_matches("W/") == etag)
}

fn etag(file: &EmbeddedFile, encoding: &str) -> String {
    let mut out = String::from("\"");
    for byte in &file.metadata.sha256_hash()[..12] {
        // Writing into a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out + "-" + encoding + "\""
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("wasm") => "application/wasm",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("json" | "map" | "webmanifest") => "application/json",
        Some("woff2") => "font/woff2",
        Some("txt" | "md") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// What a browser gets from a server that was built without pages.
pub const NO_PAGES: &str = r#"<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Transformer Debugger</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem;color-scheme:light dark}
code{background:#8883;padding:.1em .3em;border-radius:.2em}</style>
<h1>Transformer Debugger</h1>
<p>The server runs, but this <code>tdb</code> was built without its pages.</p>
<p>Build both with <code>cargo xtask run</code>, or the pages alone with <code>cargo xtask ui</code> and then
<code>tdb</code> again.</p>
<p>Programs can use the server as it is: <a href="/docs">the interface</a>,
<a href="/openapi.json">its OpenAPI document</a>.</p>
</html>
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))])
    }

    #[test]
    fn refused_encodings_are_not_accepted() {
        assert!(accepts_encoding(&accepting("gzip, deflate, br"), "br"));
        assert!(accepts_encoding(&accepting("BR;q=0.5"), "br"));
        assert!(!accepts_encoding(&accepting("gzip, br;q=0"), "br"));
        assert!(!accepts_encoding(&accepting("brotli"), "br"));
    }

    #[test]
    fn the_pages_own_files_are_not_reachable_in_compressed_form_alone() {
        #[derive(rust_embed::RustEmbed)]
        #[folder = "../tdb-ui/static"]
        struct Static;
        let pages = Pages::new(|path| Static::get(path.trim_end_matches(".br")));
        assert!(pages.asset("index.html", &HeaderMap::new()).is_some());
        let compressed = pages.asset("index.html", &accepting("br")).map(|page| page.headers().clone());
        assert_eq!(compressed.and_then(|headers| headers.get(header::CONTENT_ENCODING).cloned()).unwrap(), "br");
        assert!(pages.asset("index.html.br", &HeaderMap::new()).is_none());
        assert!(pages.asset("../Cargo.toml", &HeaderMap::new()).is_none());
    }
}
