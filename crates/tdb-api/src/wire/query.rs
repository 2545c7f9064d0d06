//! Requests that travel as the parameters of a query.

use super::{Decode, Invalid, from_value};
use serde::Serialize;
use serde_json::{Map, Value};

/// Reads a query string, without its question mark; places are told as below `query`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn from_query<T: Decode>(query: &str) -> Result<T, Invalid> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    let parameters: Map<String, Value> = pairs.map(|(key, value)| (key.into_owned(), value.into())).collect();
    from_value(&Value::Object(parameters), "query")
}

/// The query string of a request, without a question mark.
pub fn to_query(request: &impl Serialize) -> String {
    let mut out = form_urlencoded::Serializer::new(String::new());
    if let Ok(Value::Object(parameters)) = serde_json::to_value(request) {
        for (name, value) in parameters {
            match value {
                Value::Null => {}
                Value::String(text) => drop(out.append_pair(&name, &text)),
                other => drop(out.append_pair(&name, &other.to_string())),
            }
        }
    }
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ForceClientCodeGenerationRequest, GroupId, VocabularyRequest};

    #[test]
    fn parameters_are_read_and_written() {
        let read = |query: &str| from_query::<VocabularyRequest>(query).map(|q| q.prefix);
        assert_eq!(read("x=1&prefix=a+b%20%C3%A9%26").unwrap(), "a b é&");
        let request = VocabularyRequest { prefix: " é&=+".into() };
        assert_eq!(read(&to_query(&request)).unwrap(), request.prefix);
        let error = read("x=1").unwrap_err();
        assert_eq!(error.to_string(), "query.prefix: field required");
    }

    #[test]
    fn names_stand_as_they_are() {
        let read = from_query::<ForceClientCodeGenerationRequest>;
        assert_eq!(read("group_id=write_norm").unwrap().group_id, GroupId::WriteNorm);
        assert_eq!(read("groupId=write_norm").unwrap_err().to_string(), "query.group_id: field required");
    }
}
