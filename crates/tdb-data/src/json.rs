//! Reading JSON that somebody else wrote: bounded, and with an error that names the file, the key and what was found.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use crate::{Error, Result};

/// Parses `bytes` (at most `limit` of them) as `T`; `file` is the name that errors carry.
///
/// The reference's files were written by Python, whose JSON has `NaN` and `Infinity`; both read as `null` here. A
/// byte-order mark is passed over.
pub(crate) fn parse<T: DeserializeOwned>(file: &str, bytes: &[u8], limit: usize) -> Result<T> {
    if bytes.len() > limit {
        return Err(Error::damaged(file, format!("{} bytes, more than the limit of {limit}", bytes.len())));
    }
    crate::local::check_fetched(file, bytes)?;
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let bytes = without_non_finite(bytes);
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let path = e.path().to_string();
        let at = if path == "." { String::new() } else { format!("at {path}: ") };
        Error::damaged(file, format!("{at}{}", e.inner()))
    })?;
    json.end().map_err(|e| Error::damaged(file, format!("after the JSON document: {e}")))?;
    Ok(value)
}

/// Replaces Python's `NaN`, `Infinity` and `-Infinity` outside strings by `null`.
fn without_non_finite(bytes: &[u8]) -> Cow<'_, [u8]> {
    let contains = |needle: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
    if !contains(b"NaN") && !contains(b"Infinity") {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let (mut i, mut in_string) = (0, false);
    while i < bytes.len() {
        let rest = &bytes[i..];
        if in_string {
            let n = if rest[0] == b'\\' { 2.min(rest.len()) } else { 1 };
            in_string = rest[0] != b'"';
            out.extend_from_slice(&rest[..n]);
            i += n;
            continue;
        }
        match [&b"-Infinity"[..], b"Infinity", b"NaN"].into_iter().find(|word| rest.starts_with(word)) {
            Some(word) => {
                out.extend_from_slice(b"null");
                i += word.len();
            }
            None => {
                in_string = rest[0] == b'"';
                out.push(rest[0]);
                i += 1;
            }
        }
    }
    Cow::Owned(out)
}

/// A non-negative integer, also if written as a string (old records have `"layer": "1"`).
pub(crate) fn index<'de, D: Deserializer<'de>>(d: D) -> Result<usize, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u32),
        Text(String),
    }
    match Written::deserialize(d).map_err(|_| serde::de::Error::custom("expected an index"))? {
        Written::Number(n) => Ok(n as usize),
        Written::Text(t) => t
            .parse::<u32>()
            .map(|n| n as usize)
            .map_err(|_| serde::de::Error::custom(format!("expected an index, found the text {t:?}"))),
    }
}

/// Finite numbers only. The reader of the number `null` (see [`parse`]) gets an error here.
pub(crate) fn finite_list<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<f32>, D::Error> {
    let values = Vec::<f32>::deserialize(d)?;
    match values.iter().position(|v| !v.is_finite()) {
        Some(i) => Err(serde::de::Error::custom(format!("entry {i} is not a finite number in single precision"))),
        None => Ok(values),
    }
}

/// `Some` class name must be one of `allowed`: the data class that the reference would build from this object.
pub(crate) fn check_class(file: &str, what: &str, found: Option<&str>, allowed: &[&str]) -> Result<()> {
    match found {
        Some(name) if !allowed.contains(&name) => Err(Error::damaged(
            file,
            format!("{what}: dataclass_name is {name:?} where {:?} was expected", allowed.first().unwrap_or(&"")),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_finite_numbers_become_null_outside_strings_only() {
        let text = br#"{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN \" Infinity", "d": 1}"#;
        let value: serde_json::Value = parse("x", text, 1000).unwrap();
        assert_eq!(value, serde_json::json!({"a": null, "b": [null, null], "c": "NaN \" Infinity", "d": 1}));
    }

    #[test]
    fn the_limit_and_trailing_text_are_errors() {
        assert!(parse::<serde_json::Value>("x", b"[1]", 2).unwrap_err().to_string().contains("limit of 2"));
        assert!(parse::<serde_json::Value>("x", b"[1] 2", 20).unwrap_err().to_string().starts_with("x is damaged"));
    }
}
