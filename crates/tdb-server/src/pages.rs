//! What browsers may do with the server's pages, as headers tell them.

use axum::http::{HeaderName, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// What a browser gets that does not have the token yet.
pub const TOKEN_FORM: &str = r#"<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Transformer Debugger: token</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem;color-scheme:light dark}
input,button{font:inherit;padding:.3em .6em}</style>
<h1>Transformer Debugger</h1>
<p>This server asks for a token. Whoever started it has it: it stands in the link that was printed at the start.</p>
<form method="get"><!--fields-->
<label>Token <input name="token" type="password" autocomplete="off" size="40" autofocus></label>
<button>Open</button></form>
</html>
"#;

/// What asks for a token, and goes on with `fields` of the address. `was_wrong`: one was given.
pub fn token_form(fields: impl IntoIterator<Item = (String, String)>, was_wrong: bool) -> String {
    let field = |(name, value): (String, String)| {
        format!("<input type=\"hidden\" name=\"{}\" value=\"{}\">", escaped(&name), escaped(&value))
    };
    let mut fields: String = fields.into_iter().map(field).collect();
    if was_wrong {
        fields.push_str("<p role=\"alert\">That was not the token.</p>");
    }
    TOKEN_FORM.replace("<!--fields-->", &fields)
}

/// A text as it stands in an attribute.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Headers of every answer, for pages that have the inline scripts and styles of `documents`.
pub fn headers<'a>(documents: impl IntoIterator<Item = &'a str>) -> Vec<(HeaderName, HeaderValue)> {
    let fixed = |value| HeaderValue::from_static(value);
    let policy = content_policy(documents);
    vec![
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_str(&policy).unwrap_or(fixed("default-src 'none'"))),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (header::X_FRAME_OPTIONS, fixed("DENY")),
        (header::REFERRER_POLICY, fixed("no-referrer")),
        (HeaderName::from_static("cross-origin-resource-policy"), fixed("same-origin")),
        (HeaderName::from_static("cross-origin-opener-policy"), fixed("same-origin")),
        (
            HeaderName::from_static("permissions-policy"),
            fixed(
                "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), magnetometer=(), \
                 microphone=(), midi=(), payment=(), screen-wake-lock=(), usb=(), xr-spatial-tracking=()",
            ),
        ),
    ]
}

/// Only what comes from this server runs, and of inline scripts and styles only our own, told by their hashes. Style
/// attributes may be written: widths and colours of cells are.
fn content_policy<'a>(documents: impl IntoIterator<Item = &'a str>) -> String {
    let (mut scripts, mut styles) = (String::new(), String::new());
    for document in documents {
        scripts.extend(inline(document, "script").map(source));
        styles.extend(inline(document, "style").map(source));
    }
    // Another server of the browser's own machine may be chosen.
    let own_machine = "http://localhost:* http://127.0.0.1:*";
    format!(
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'{scripts}; style-src 'self'{styles}; \
         style-src-attr 'unsafe-inline'; img-src 'self' data:; font-src 'self'; connect-src 'self' {own_machine}; \
         manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
}

/// The contents of the elements `name` of a document that have any.
fn inline<'a>(document: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let (begin, end) = (format!("<{name}"), format!("</{name}>"));
    let mut rest = document;
    std::iter::from_fn(move || {
        let element = &rest[rest.find(&begin)?..];
        let content = &element[element.find('>')? + 1..];
        let (content, after) = content.split_once(end.as_str())?;
        rest = after;
        Some(content)
    })
    .filter(|content| !content.is_empty())
}

fn source(content: &str) -> String {
    format!(" 'sha256-{}'", STANDARD.encode(Sha256::digest(content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_scripts_are_found() {
        let document = "<script src=\"a.js\"></script><style>b{}</style><script type=\"module\">go()</script>";
        assert_eq!(inline(document, "script").collect::<Vec<_>>(), ["go()"]);
        assert_eq!(inline(document, "style").collect::<Vec<_>>(), ["b{}"]);
        let policy = content_policy([document]);
        // The hash that browsers compute of "go()".
        assert!(policy.contains("'sha256-5KYv+PUboo5h+0+YAtGRPbwv5d/QxzHslP4YGnUaxRw='"), "{policy}");
    }
}
