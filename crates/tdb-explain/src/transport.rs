//! One question over HTTP, and what servers answer when they do not take it.

use std::time::Duration;

use serde_json::Value;

/// Bytes of an answer that are read: thousands of tokens of thinking, each with its alternatives.
const MOST_BYTES: usize = 4 << 20;

/// Why there is no answer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The HTTP status; 0 where there was no answer at all, or none that can be read.
    pub status: u16,
    /// What the server said, in one line.
    pub message: String,
    /// A word for programs, such as `insufficient_quota`.
    pub code: Option<String>,
    /// The parameter that it is about.
    pub parameter: Option<String>,
    /// When the server wants to be asked again.
    pub after: Option<Duration>,
}

impl Refusal {
    /// Whether the same question may be taken later.
    pub fn may_pass(&self) -> bool {
        let is_final =
            matches!(self.code.as_deref(), Some("insufficient_quota" | "billing_not_active")) || self.status == 501;
        !is_final && (matches!(self.status, 0 | 408 | 409 | 425 | 429) || self.status >= 500)
    }
}

/// Posts `body` to `url` and gives the answer's JSON.
pub(crate) async fn post(http: &reqwest::Client, url: &str, key: &str, body: &Value) -> Result<Value, Refusal> {
    let mut request = http.post(url).header("content-type", "application/json").body(body.to_string());
    if !key.is_empty() {
        request = request.bearer_auth(key);
    }
    let response = request.send().await.map_err(|error| no_answer(&error))?;
    let (status, after) = (response.status(), retry_after(&response));
    if status.is_redirection() {
        let to = response.headers().get("location").and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
        let message = format!("{status}: it sends questions on to {}, which is not followed", line(to));
        return Err(Refusal { status: status.as_u16(), message, ..Refusal::default() });
    }
    let bytes = read(response).await?;
    if !status.is_success() {
        return Err(Refusal { after, ..refusal(status, &bytes) });
    }
    serde_json::from_slice(&bytes).map_err(|error| Refusal {
        message: format!("its answer is not JSON ({error}): {}", line(&String::from_utf8_lossy(&bytes))),
        ..Refusal::default()
    })
}

async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| no_answer(&error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MOST_BYTES {
            let message = format!("its answer is longer than {MOST_BYTES} bytes");
            // With its status, since the next answer would be as long.
            return Err(Refusal { status: response.status().as_u16(), message, ..Refusal::default() });
        }
    }
    Ok(bytes)
}

fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let seconds = response.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn no_answer(error: &dyn std::error::Error) -> Refusal {
    let mut message = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        next = cause.source();
    }
    Refusal { message, ..Refusal::default() }
}

/// What a refusing answer says. The shapes are those of OpenAI, of Gemini (the same in a list), of vLLM (without the
/// `error` around it), of TGI (`error` is the sentence) and of FastAPI (`detail`).
pub(crate) fn refusal(status: reqwest::StatusCode, body: &[u8]) -> Refusal {
    let text = String::from_utf8_lossy(body);
    let whole: Value = serde_json::from_slice(body).unwrap_or_default();
    let whole = whole.get(0).unwrap_or(&whole);
    let error = whole.get("error").filter(|error| !error.is_null()).unwrap_or(whole);
    let detail = || whole["detail"].as_str().or_else(|| whole["detail"][0]["msg"].as_str());
    let said = error.as_str().or_else(|| error["message"].as_str()).or_else(detail);
    let field = |name: &str| match &error[name] {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let place = whole["detail"][0]["loc"].as_array().and_then(|loc| loc.last()?.as_str().map(str::to_owned));
    Refusal {
        status: status.as_u16(),
        message: format!("{status}: {}", line(said.unwrap_or(&text))),
        code: field("code").or_else(|| field("type")),
        parameter: field("param").or(place),
        after: None,
    }
}

/// The beginning of a text in one line.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::StatusCode;

    #[test]
    fn the_sentence_is_found_in_every_servers_answer() {
        for (body, message) in [
            (r#"{"error": {"message": "no key", "type": "auth", "param": "x", "code": null}}"#, "no key"),
            (r#"[{"error": {"code": 400, "message": "bad value", "status": "INVALID_ARGUMENT"}}]"#, "bad value"),
            (
                r#"{"object": "error", "message": "too long", "type": "BadRequestError", "param": null, "code": 400}"#,
                "too long",
            ),
            (r#"{"error": "Input validation error: `x`", "error_type": "validation"}"#, "Input validation error: `x`"),
            (r#"{"detail": "Not here"}"#, "Not here"),
            (r#"{"detail": [{"loc": ["body", "logprobs"], "msg": "extra fields", "type": "x"}]}"#, "extra fields"),
            ("<html>\n  <h1>Bad</h1></html>", "<html> <h1>Bad</h1></html>"),
        ] {
            let refusal = refusal(StatusCode::BAD_REQUEST, body.as_bytes());
            assert_eq!(refusal.message, format!("400 Bad Request: {message}"));
            assert!(!refusal.may_pass());
        }
        let place =
            refusal(StatusCode::UNPROCESSABLE_ENTITY, br#"{"detail": [{"loc": ["body", "logprobs"], "msg": "x"}]}"#);
        assert_eq!(place.parameter.as_deref(), Some("logprobs"));
    }

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        for (status, body, passes) in [
            (429, r#"{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}"#, true),
            (
                429,
                r#"{"error": {"message": "pay", "type": "insufficient_quota", "code": "insufficient_quota"}}"#,
                false,
            ),
            (503, "", true),
            (501, "", false),
            (401, "", false),
            (404, "", false),
        ] {
            assert_eq!(
                refusal(StatusCode::from_u16(status).unwrap(), body.as_bytes()).may_pass(),
                passes,
                "{status} {body}"
            );
        }
    }
}
