//! Reading a JSON value into a type, collecting everything that is wrong with it.

use super::{FieldPath, Step};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::fmt;

/// One thing that is wrong, in the shape of the `detail` list of a 422 answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldError {
    /// Where: `["body", "subRequests", 0, "prompt"]`.
    pub loc: Vec<Step>,
    /// What, for a person.
    pub msg: String,
    /// What, for a program: `value_error.missing`, `type_error.integer`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Particulars, such as the permitted values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctx: Option<Value>,
}

/// The list of a 422 answer is read as what it is written as.
impl Decode for FieldError {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        let object = object(value, errors)?;
        let (loc, msg) = (errors.field(object, "loc", None), errors.field(object, "msg", None));
        let kind = errors.field(object, "type", None);
        Some(Self { loc: loc?, msg: msg?, kind: kind?, ctx: object.get("ctx").cloned() })
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.loc.is_empty() {
            write!(f, "{}: ", FieldPath(self.loc.clone()))?;
        }
        f.write_str(&self.msg)
    }
}

/// A value that does not fit the type asked for, with every reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Invalid(pub Vec<FieldError>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

/// The place in the body that is being read, and what was found wrong so far.
#[derive(Debug, Default)]
pub struct Errors {
    path: Vec<Step>,
    found: Vec<FieldError>,
}

impl Errors {
    /// Begins below `root`, for instance `body` or `query`.
    pub fn below(root: &str) -> Self {
        Self { path: vec![Step::Key(root.to_owned())], found: Vec::new() }
    }

    /// Notes that the present place is wrong. Returns `None`, which is also what the reader of that place returns.
    pub fn add<T>(&mut self, kind: &str, msg: impl Into<String>) -> Option<T> {
        self.add_with(kind, msg, None)
    }

    /// [`Errors::add`] with particulars.
    pub fn add_with<T>(&mut self, kind: &str, msg: impl Into<String>, ctx: Option<Value>) -> Option<T> {
        self.found.push(FieldError { loc: self.path.clone(), msg: msg.into(), kind: kind.to_owned(), ctx });
        None
    }

    /// Reads something one step further in.
    pub fn at<T>(&mut self, step: Step, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let out = read(self);
        self.path.pop();
        out
    }

    /// Reads the field `snake` of `object` under its camelCase or its snake_case name.
    pub fn field<T: Decode>(&mut self, object: &Map<String, Value>, snake: &str, default: Option<T>) -> Option<T> {
        let camel = super::camel_case(snake);
        let value = object.get(&camel).or_else(|| object.get(snake));
        self.named(camel, value, default)
    }

    /// Reads the field called `name`, which is `value` if it is there.
    pub fn named<T: Decode>(&mut self, name: String, value: Option<&Value>, default: Option<T>) -> Option<T> {
        self.at(Step::Key(name), |errors| match value {
            Some(value) => T::decode(value, errors),
            None => default.or_else(T::when_absent).or_else(|| errors.add("value_error.missing", "field required")),
        })
    }

    /// Tries `read` without keeping what it finds wrong; gives that back instead.
    pub fn attempt<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Result<T, Vec<FieldError>> {
        let before = self.found.len();
        match read(self) {
            Some(value) => Ok(value),
            None => Err(self.found.split_off(before)),
        }
    }

    /// Takes over what an [`Errors::attempt`] found.
    pub fn keep(&mut self, found: Vec<FieldError>) {
        self.found.extend(found);
    }

    /// Everything that was found.
    pub fn into_found(self) -> Vec<FieldError> {
        self.found
    }
}

/// A type that can be read from a JSON value by the rules of this module.
pub trait Decode: Sized {
    /// Reads `value`; on failure notes at least one error and returns `None`.
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self>;

    /// What an absent field of this type means, if it may be absent.
    fn when_absent() -> Option<Self> {
        None
    }
}

/// Reads `value`, telling places as below `root`.
pub fn from_value<T: Decode>(value: &Value, root: &str) -> Result<T, Invalid> {
    let mut errors = Errors::below(root);
    match T::decode(value, &mut errors) {
        Some(out) => Ok(out),
        None => Err(Invalid(errors.into_found())),
    }
}

/// Reads the JSON text of a `T`.
///
/// # Errors
/// Everything that is wrong with it; for a text that is not JSON, where it breaks.
pub fn from_json<T: Decode>(text: &str) -> Result<T, Invalid> {
    let mut errors = Errors::default();
    let read = match serde_json::from_str::<Value>(text) {
        Ok(value) => T::decode(&value, &mut errors),
        Err(error) => errors.add("value_error.jsondecode", error.to_string()),
    };
    read.ok_or_else(|| Invalid(errors.into_found()))
}

/// Reads `value` for serde: places are told from the value itself.
pub(crate) fn for_serde<'de, T: Decode, D: serde::Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let value = <Value as serde::Deserialize>::deserialize(deserializer)?;
    let mut errors = Errors::default();
    T::decode(&value, &mut errors).ok_or_else(|| serde::de::Error::custom(Invalid(errors.into_found())))
}

/// The error for a word that is none of `permitted`.
pub(crate) fn not_permitted<T>(permitted: &[&str], errors: &mut Errors) -> Option<T> {
    let list = permitted.iter().map(|p| format!("'{p}'")).collect::<Vec<_>>().join(", ");
    errors.add_with(
        "type_error.enum",
        format!("value is not a valid enumeration member; permitted: {list}"),
        Some(json!({ "enum_values": permitted })),
    )
}

/// The error for a fixed word that is another one.
pub(crate) fn not_the_word<T>(given: &Value, word: &str, errors: &mut Errors) -> Option<T> {
    errors.add_with(
        "value_error.const",
        format!("unexpected value; permitted: '{word}'"),
        Some(json!({ "given": given, "permitted": [word] })),
    )
}

/// The object behind `value`, or an error.
pub(crate) fn object<'a>(value: &'a Value, errors: &mut Errors) -> Option<&'a Map<String, Value>> {
    match value {
        Value::Object(map) => Some(map),
        Value::Null => errors.add("type_error.none.not_allowed", "none is not an allowed value"),
        _ => errors.add("type_error.dict", "value is not a valid dict"),
    }
}
