//! JSON: lines with an object each, a list of objects, or objects one after the other; the text is in the field `text`.

use std::collections::VecDeque;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::document::{Document, Documents, Trouble, of_entry};
use super::file::Text;
use super::lines::{LONGEST, Lines};
use crate::Error;

/// How values follow each other in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One on each line.
    Lines,
    /// In one list.
    List,
    /// One after the other, each over any number of lines.
    Values,
}

/// The form of a file that begins so; `None` if it is no JSON. A file whose name promises JSON is always taken for it.
pub(super) fn form(head: &[u8], extension: Option<&str>) -> Option<Form> {
    let start = head.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(head.len());
    let head = &head[start..];
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
    let first_line_is_whole = serde_json::from_slice::<Value>(line).is_ok_and(|value| value.is_object());
    let promised = matches!(extension, Some("json" | "jsonl" | "ndjson" | "jsonlines"));
    match head.first() {
        Some(b'{') if first_line_is_whole => Some(Form::Lines),
        Some(b'[') if promised || is_list_of_objects(head) => Some(Form::List),
        // Lines that are promised are read as such, so that one that is damaged is one line.
        Some(b'{') if extension == Some("json") => Some(Form::Values),
        _ => promised.then_some(Form::Lines),
    }
}

/// Whether a text that may be anything begins as a list of objects does: `[{"`.
fn is_list_of_objects(head: &[u8]) -> bool {
    let mut signs = head.iter().filter(|b| !b.is_ascii_whitespace());
    b"[{\"".iter().all(|sign| signs.next() == Some(sign))
}

pub(super) fn open(path: &Path, text: Text, form: Form) -> Documents {
    match form {
        Form::Lines => {
            let lines = Lines::new(path, text.reader);
            Box::new(Entries { next: OfLines(lines), ready: VecDeque::new(), ended: false })
        }
        Form::List | Form::Values => {
            let values = Values { path: path.to_owned(), reader: text.reader, form, begun: false, number: 0 };
            Box::new(Entries { next: values, ready: VecDeque::new(), ended: false })
        }
    }
}

/// Gives values with their places.
trait Source {
    fn next(&mut self) -> Option<Result<(Vec<u8>, String), Trouble>>;
}

struct Entries<S> {
    next: S,
    ready: VecDeque<Document>,
    ended: bool,
}

impl<S: Source> Iterator for Entries<S> {
    type Item = Result<Document, Trouble>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(document) = self.ready.pop_front() {
                return Some(Ok(document));
            }
            if self.ended {
                return None;
            }
            let Some(found) = self.next.next() else {
                self.ended = true;
                continue;
            };
            match found.and_then(|(value, place)| match text_of(&value) {
                Ok(text) => Ok(of_entry(text, &place)),
                Err(message) => Err(Trouble::Skip { place, message }),
            }) {
                Ok(documents) => self.ready.extend(documents),
                Err(trouble) => {
                    self.ended = matches!(trouble, Trouble::Stop(_));
                    return Some(Err(trouble));
                }
            }
        }
    }
}

/// The text of a value: that of its field `text`, or it is a text itself.
fn text_of(value: &[u8]) -> Result<String, String> {
    let value: Value = serde_json::from_slice(value).map_err(|error| format!("is not JSON: {error}"))?;
    match value {
        Value::String(text) => Ok(text),
        Value::Object(mut object) if object.contains_key("text") => match object.remove("text") {
            Some(Value::String(text)) => Ok(text),
            other => Err(format!("`text` is {}, not a string", kind(&other.unwrap_or_default()))),
        },
        other => Err(format!("has no field `text`; it is {}", describe(&other))),
    }
}

struct OfLines(Lines);

impl Source for OfLines {
    fn next(&mut self) -> Option<Result<(Vec<u8>, String), Trouble>> {
        loop {
            match self.0.next()? {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => return Some(Ok((line.into_bytes(), self.0.place()))),
                Err(trouble) => return Some(Err(trouble)),
            }
        }
    }
}

/// Values one after the other, found by their brackets and quotes alone.
struct Values {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    form: Form,
    begun: bool,
    number: usize,
}

impl Source for Values {
    fn next(&mut self) -> Option<Result<(Vec<u8>, String), Trouble>> {
        match self.value() {
            Ok(value) => value.map(|value| match value.len() > LONGEST {
                false => Ok((value, self.place())),
                true => Err(Trouble::skip(self.place(), format!("is longer than {LONGEST} bytes"))),
            }),
            Err(trouble) => Some(Err(trouble)),
        }
    }
}

impl Values {
    fn place(&self) -> String {
        format!("entry {}", self.number)
    }

    fn peek(&mut self) -> Result<Option<u8>, Trouble> {
        let block = self.reader.fill_buf();
        block.map(|block| block.first().copied()).map_err(|source| {
            let message = format!("cannot be read: {source}");
            let place = format!("after entry {}", self.number);
            Trouble::Stop(Error::Text { path: self.path.clone(), place, message })
        })
    }

    /// The bytes of the next value; at most one more than [`LONGEST`] of them.
    fn value(&mut self) -> Result<Option<Vec<u8>>, Trouble> {
        let Some(first) = self.begin()? else { return Ok(None) };
        self.number += 1;
        let mut value = Vec::new();
        let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
        while let Some(byte) = self.peek()? {
            let ends_before = depth == 0 && !in_text && !value.is_empty();
            if ends_before && (matches!(byte, b',' | b']' | b'}') || byte.is_ascii_whitespace()) {
                return Ok(Some(value));
            }
            self.reader.consume(1);
            if value.len() <= LONGEST {
                value.push(byte);
            }
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_text => escaped = true,
                b'"' => in_text = !in_text,
                b'{' | b'[' if !in_text => depth += 1,
                b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && !in_text && matches!(byte, b'}' | b']' | b'"') {
                return Ok(Some(value));
            }
        }
        match depth == 0 && !in_text && !matches!(first, b'{' | b'[' | b'"') {
            true => Ok(Some(value)),
            false => Err(Trouble::skip(self.place(), "the file ends within it")),
        }
    }

    /// Goes to the first byte of the next value, if there is one.
    fn begin(&mut self) -> Result<Option<u8>, Trouble> {
        while let Some(byte) = self.peek()? {
            let is_list = self.form == Form::List;
            match byte {
                b'[' if is_list && !self.begun => self.begun = true,
                b']' if is_list => {
                    self.reader.consume(1);
                    self.form = Form::Values;
                    continue;
                }
                b',' if is_list => {}
                _ if byte.is_ascii_whitespace() => {}
                _ => return Ok(Some(byte)),
            }
            self.reader.consume(1);
        }
        Ok(None)
    }
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
            if fields.is_empty() {
                return "an object without fields".to_owned();
            }
            let names: Vec<_> = fields.keys().take(8).map(String::as_str).collect();
            format!("an object with the fields {}", names.join(", "))
        }
        other => kind(other).to_owned(),
    }
}
