//! The place of a value inside a request.

use super::{Decode, Errors};
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::fmt;
use std::str::FromStr;

/// One step on the way to a value inside a request: a key or a position in a list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum Step {
    /// A key of an object, or a word such as `body` and `__key__`.
    Key(String),
    /// A position in a list, or in the text of a body that is not JSON.
    Index(usize),
}

impl Decode for Step {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        match value.as_u64().and_then(|index| usize::try_from(index).ok()) {
            Some(index) => Some(Self::Index(index)),
            None => Decode::decode(value, errors).map(Self::Key),
        }
    }
}

/// The path of a field: `subRequests[0].targetTokens[1]`.
///
/// [`fmt::Display`] writes this form and [`FromStr`] reads it back.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct FieldPath(pub Vec<Step>);

impl FieldPath {
    /// The field `key` of the request itself.
    pub fn of(key: impl Into<String>) -> Self {
        Self::default().key(key)
    }

    /// The field `key` of the object at this path.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.0.push(Step::Key(key.into()));
        self
    }

    /// `rest`, counted from this path.
    pub fn join(mut self, rest: FieldPath) -> Self {
        self.0.extend(rest.0);
        self
    }

    /// The item at `index` of the list at this path.
    pub fn index(mut self, index: usize) -> Self {
        self.0.push(Step::Index(index));
        self
    }
}

impl From<&str> for FieldPath {
    fn from(key: &str) -> Self {
        Self::of(key)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if i == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// On the wire a path is its text.
impl Serialize for FieldPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Decode for FieldPath {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        let text = String::decode(value, errors)?;
        text.parse().map_or_else(|error: NotAPath| errors.add("value_error.path", error.to_string()), Some)
    }
}

/// A text that is not the path of a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the path of a field, such as subRequests[0].prompt")]
pub struct NotAPath(String);

impl FromStr for FieldPath {
    type Err = NotAPath;

    fn from_str(text: &str) -> Result<Self, NotAPath> {
        let wrong = || NotAPath(text.to_owned());
        let mut path = Self::default();
        for part in text.split('.') {
            let (key, indices) = part.split_at(part.find('[').unwrap_or(part.len()));
            if key.is_empty() {
                return Err(wrong());
            }
            path = path.key(key);
            for index in indices.split_inclusive(']') {
                let index = index.strip_prefix('[').and_then(|i| i.strip_suffix(']')).ok_or_else(wrong)?;
                path = path.index(index.parse().map_err(|_| wrong())?);
            }
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_and_read_back() {
        let path = FieldPath::of("subRequests").index(0).key("targetTokens").index(1);
        assert_eq!(path.to_string(), "subRequests[0].targetTokens[1]");
        for text in ["subRequests[0].targetTokens[1]", "prompt", "a[1][2].b", "a.b-c"] {
            assert_eq!(text.parse::<FieldPath>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_no_paths() {
        for text in ["", ".a", "a..b", "a[x]", "a[1", "a[1]b", "[0]"] {
            assert!(text.parse::<FieldPath>().is_err(), "{text:?}");
        }
    }
}
