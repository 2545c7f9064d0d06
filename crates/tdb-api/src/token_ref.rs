//! Naming one token of the vocabulary.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::wire::{Decode, Describe, Errors, Schemas, decode_for_serde};

/// One token of the vocabulary. A token's identity is its id; its text names it where no other token has the same.
///
/// On the wire `" Canada"`, or `{"id": 187, "text": "�"}`. A text that stands beside an id is checked by the server, so
/// that a link does not silently mean another token with another tokenizer; it may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TokenRef {
    Text(String),
    Id { id: i64, text: Option<String> },
}

impl TokenRef {
    /// The token's text, as far as it is said; empty where only the id is.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Id { text, .. } => text.as_deref().unwrap_or_default(),
        }
    }

    /// The token's id, if it is named by it.
    pub fn id(&self) -> Option<i64> {
        match self {
            Self::Text(_) => None,
            Self::Id { id, .. } => Some(*id),
        }
    }

    /// Whether this names the token of this id and text.
    pub fn is(&self, id: i64, text: &str) -> bool {
        match self {
            Self::Text(own) => own == text,
            Self::Id { id: own, .. } => *own == id,
        }
    }
}

impl Default for TokenRef {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl From<&str> for TokenRef {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for TokenRef {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl fmt::Display for TokenRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Id { id, text } => write!(f, "{} (token {id})", text.as_deref().unwrap_or_default()),
        }
    }
}

impl Serialize for TokenRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Id { id, text: None } => json!({ "id": id }).serialize(serializer),
            Self::Id { id, text: Some(text) } => json!({ "id": id, "text": text }).serialize(serializer),
        }
    }
}

impl Decode for TokenRef {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        match value {
            Value::Object(object) => {
                let id = errors.field(object, "id", None);
                let text = errors.field(object, "text", None);
                Some(Self::Id { id: id?, text: text? })
            }
            other => String::decode(other, errors).map(Self::Text),
        }
    }
}

impl<'de> Deserialize<'de> for TokenRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        decode_for_serde(deserializer)
    }
}

impl Describe for TokenRef {
    fn describe(schemas: &mut Schemas) -> Value {
        schemas.named("TokenRef", |_| {
            json!({
                "title": "TokenRef",
                "description": "One token of the vocabulary: its text, where no other token has the same, or its id. \
                                A text beside an id is checked.",
                "anyOf": [
                    { "type": "string" },
                    {
                        "type": "object",
                        "properties": { "id": { "type": "integer" }, "text": { "type": "string" } },
                        "required": ["id"],
                    },
                ],
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::from_value;

    #[test]
    fn tokens_are_named_by_text_or_by_id() {
        let by_id = |text: Option<&str>| TokenRef::Id { id: 187, text: text.map(str::to_owned) };
        for (json, token) in [
            (json!(" Canada"), " Canada".into()),
            (json!({ "id": 187 }), by_id(None)),
            (json!({ "id": 187, "text": "\u{fffd}" }), by_id(Some("\u{fffd}"))),
        ] {
            assert_eq!(from_value::<TokenRef>(&json, "body").unwrap(), token);
            assert_eq!(serde_json::to_value(&token).unwrap(), json);
        }
        assert_eq!(from_value::<TokenRef>(&json!(7), "body").unwrap(), "7".into(), "as the reference reads it");
        for wrong in [json!({ "text": "a" }), json!({ "id": "x" }), json!([]), json!(null)] {
            assert!(from_value::<TokenRef>(&wrong, "body").is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_told_by_its_id_before_its_text() {
        let token = TokenRef::Id { id: 3, text: Some("x".to_owned()) };
        assert!(token.is(3, "x") && !token.is(4, "x"));
        assert!(TokenRef::from("x").is(4, "x") && !TokenRef::from("x").is(4, "y"));
    }
}
