//! JSON lines: one object a line, its text in the field `text`.

use std::path::Path;

use serde_json::Value;

use super::text::Lines;
use super::{Document, Documents};
use crate::Result;

pub(super) fn open(path: &Path) -> Result<Documents> {
    let mut lines = Lines::open(path)?;
    let documents = std::iter::from_fn(move || {
        loop {
            let line = match lines.next()? {
                Ok(line) if line.trim().is_empty() => continue,
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            let value: Value = match serde_json::from_str(&line) {
                Ok(value) => value,
                Err(error) => return Some(Err(lines.error(format!("is not JSON: {error}")))),
            };
            return Some(match value.get("text") {
                // A document without text says nothing; it is not an error in millions of lines.
                Some(Value::String(text)) if text.is_empty() => continue,
                Some(Value::String(text)) => {
                    Ok(Document { text: text.clone(), place: format!("line {}", lines.number) })
                }
                Some(other) => Err(lines.error(format!("`text` is {}, not a string", kind(other)))),
                None => Err(lines.error(format!("has no field `text`; it is {}", describe(&value)))),
            });
        }
    });
    Ok(Box::new(documents))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let names: Vec<_> = fields.keys().take(8).map(String::as_str).collect();
            format!("an object with the fields {}", names.join(", "))
        }
        other => kind(other).to_owned(),
    }
}
