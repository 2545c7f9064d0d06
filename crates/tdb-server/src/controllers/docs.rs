//! The page about the interface: the OpenAPI document as HTML, without anything from elsewhere.

use bytes::Bytes;
use serde_json::{Map, Value};
use std::fmt::Write as _;

const HEAD: &str = r#"<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Transformer Debugger: the interface</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
code{font-family:ui-monospace,monospace;font-size:.92em}
details{border:1px solid #8886;border-radius:.3rem;margin:.4rem 0;padding:.3rem .7rem}
summary{cursor:pointer}table{border-collapse:collapse;width:100%}
td{border-top:1px solid #8884;padding:.2rem .6rem .2rem 0;vertical-align:top}
.method{display:inline-block;min-width:3.2rem;font-weight:600;text-transform:uppercase}
</style>
<h1>The interface</h1>
"#;

/// The page for `document`.
pub fn page(document: &Bytes) -> String {
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    let mut out = String::from(HEAD);
    let info = &document["info"];
    let _ = write!(
        out,
        "<p>{}</p><p>Version {}. As a document: <a href=\"/openapi.json\">/openapi.json</a>.</p><h2>Routes</h2>",
        escaped(text(&info["description"])),
        escaped(text(&info["version"]))
    );
    for (path, methods) in entries(&document["paths"]) {
        for (method, operation) in entries(methods) {
            route(&mut out, path, method, operation);
        }
    }
    out.push_str("<h2>Types</h2>");
    for (name, schema) in entries(&document["components"]["schemas"]) {
        named_type(&mut out, name, schema);
    }
    out.push_str("</html>\n");
    out
}

// Writing into a String cannot fail, hence the ignored results below.

fn route(out: &mut String, path: &str, method: &str, operation: &Value) {
    let _ = write!(
        out,
        "<details><summary><span class=\"method\">{}</span> <code>{}</code> {}</summary><table>",
        escaped(method),
        escaped(path),
        escaped(text(&operation["summary"]))
    );
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = escaped(text(&parameter["name"]));
        let _ = write!(out, "<tr><td>parameter <code>{name}</code><td>{}", kind(&parameter["schema"]));
    }
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    if !body.is_null() {
        let _ = write!(out, "<tr><td>takes<td>{}", kind(body));
    }
    let answer = &operation["responses"]["200"]["content"]["application/json"]["schema"];
    let id = escaped(text(&operation["operationId"]));
    let _ = write!(out, "<tr><td>gives<td>{}<tr><td>operation<td><code>{id}</code></table></details>", kind(answer));
}

fn named_type(out: &mut String, name: &str, schema: &Value) {
    let _ = write!(
        out,
        "<details id=\"{0}\"><summary><code>{0}</code></summary><p>{1}</p>",
        escaped(name),
        escaped(text(&schema["description"]))
    );
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> = words.iter().map(|word| format!("<code>{}</code>", escaped(text(word)))).collect();
        let _ = write!(out, "<p>{}</p>", words.join(", "));
    }
    out.push_str("<table>");
    let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (field, schema) in entries(&schema["properties"]) {
        let must = if required.iter().any(|name| name == field) { "" } else { " (optional)" };
        let docs = escaped(text(&schema["description"]));
        let _ = write!(out, "<tr><td><code>{}</code>{must}<td>{}<td>{docs}", escaped(field), kind(schema));
    }
    out.push_str("</table></details>");
}

/// A schema in a few words, with links to named ones.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return format!("<a href=\"#{0}\">{0}</a>", escaped(name));
    }
    for (key, joint) in [("anyOf", " or "), ("allOf", " and ")] {
        if let Some(parts) = schema[key].as_array() {
            return parts.iter().map(kind).collect::<Vec<_>>().join(joint);
        }
    }
    if let Some([word]) = schema["enum"].as_array().map(Vec::as_slice) {
        return format!("<code>\"{}\"</code>", escaped(text(word)));
    }
    match text(&schema["type"]) {
        "array" => format!("list of {}", kind(&schema["items"])),
        "object" if !schema["additionalProperties"].is_null() => {
            format!("map to {}", kind(&schema["additionalProperties"]))
        }
        "" => "anything".to_owned(),
        other => escaped(other),
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter).map(|(key, value)| (key.as_str(), value))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
