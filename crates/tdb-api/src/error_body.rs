//! The body of an error, read as leniently as servers write it.

use crate::wire::{Decode, Errors, FieldError, FieldPath, Step, decode_object};
use serde_json::Value;

/// The header that names the field an error is about.
///
/// The interface's error bodies have no room for it. Its value is a [`FieldPath`] as text.
pub const FIELD_HEADER: &str = "x-tdb-field";

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorBody {
    /// One sentence for a person.
    pub message: String,
    /// The field that it is about, if the body says so.
    pub field: Option<FieldPath>,
}

/// `{"message": ...}`, or `{"detail": ...}` with a sentence or a list of what is wrong, of which the first counts.
impl Decode for ErrorBody {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        let object = decode_object(value, errors)?;
        if let Some(message) = object.get("message").or(object.get("detail")).and_then(Value::as_str) {
            return Some(Self { message: message.to_owned(), field: None });
        }
        let detail: Vec<FieldError> = errors.field(object, "detail", None)?;
        let Some(first) = detail.into_iter().next() else {
            return errors.add("value_error", "nothing is said about the error");
        };
        // The first step says that the place is in the body.
        let place = FieldPath(first.loc.into_iter().skip_while(|step| *step == Step::Key("body".into())).collect());
        let field = (!place.0.is_empty()).then_some(place);
        let message = field.as_ref().map_or_else(|| first.msg.clone(), |field| format!("{field}: {}", first.msg));
        Some(Self { message, field })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::from_json;

    #[test]
    fn errors_are_read_in_every_form() {
        let read = |text: &str| from_json::<ErrorBody>(text).map(|e| (e.message, e.field.map(|f| f.to_string())));
        let said = |message: &str, field: Option<&str>| Ok((message.to_owned(), field.map(str::to_owned)));
        assert_eq!(read(r#"{"message":"no"}"#), said("no", None));
        assert_eq!(read(r#"{"detail":"Not Found"}"#), said("Not Found", None));
        let list = r#"{"detail":[{"loc":["body","subRequests",0,"prompt"],"msg":"field required","type":"x"},
            {"loc":["body"],"msg":"y","type":"z"}]}"#;
        assert_eq!(read(list), said("subRequests[0].prompt: field required", Some("subRequests[0].prompt")));
        assert_eq!(
            read(r#"{"detail":[{"loc":["body"],"msg":"field required","type":"x"}]}"#),
            said("field required", None)
        );
        for nothing in ["{}", "[]", "no JSON", r#"{"detail":[]}"#] {
            assert!(read(nothing).is_err(), "{nothing}");
        }
    }
}
