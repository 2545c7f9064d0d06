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

/// Most errors that are told about one value. A body can hold as many as it has bytes; nobody reads them all.
pub const MOST_ERRORS: usize = 20;

/// A value that does not fit the type asked for, with its reasons: all of them, or the first [`MOST_ERRORS`].
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
#[derive(Debug)]
pub struct Errors {
    path: Vec<Step>,
    found: Vec<FieldError>,
    longest_list: usize,
}

impl Default for Errors {
    fn default() -> Self {
        Self { path: Vec::new(), found: Vec::new(), longest_list: usize::MAX }
    }
}

impl Errors {
    /// Begins below `root`, for instance `body` or `query`.
    pub fn below(root: &str) -> Self {
        Self { path: vec![Step::Key(root.to_owned())], ..Self::default() }
    }

    /// Refuses lists and maps of more than `longest` items before any item is looked at.
    pub fn with_lists_of_at_most(self, longest: usize) -> Self {
        Self { longest_list: longest, ..self }
    }

    /// Whether nothing more will be noted: what is read from here on only costs time.
    pub fn is_full(&self) -> bool {
        self.found.len() >= MOST_ERRORS
    }

    /// Notes a list or map with too many items; `None` then.
    pub(crate) fn check_len(&mut self, len: usize) -> Option<()> {
        let limit = self.longest_list;
        if len <= limit {
            return Some(());
        }
        let msg = format!("ensure this value has at most {limit} items");
        self.add_with("value_error.list.max_items", msg, Some(json!({ "limit_value": limit })))
    }

    /// Notes that the present place is wrong. Returns `None`, which is also what the reader of that place returns.
    pub fn add<T>(&mut self, kind: &str, msg: impl Into<String>) -> Option<T> {
        self.add_with(kind, msg, None)
    }

    /// [`Errors::add`] with particulars.
    pub fn add_with<T>(&mut self, kind: &str, msg: impl Into<String>, ctx: Option<Value>) -> Option<T> {
        self.note(kind, msg.into(), ctx);
        None
    }

    // What readers of all types share is compiled once: the pages have a hundred of them.
    #[inline(never)]
    fn note(&mut self, kind: &str, msg: String, ctx: Option<Value>) {
        if !self.is_full() {
            let loc = self.path.iter().map(brief_step).collect();
            self.found.push(FieldError { loc, msg, kind: kind.to_owned(), ctx });
        }
    }

    #[inline(never)]
    fn note_missing(&mut self) {
        self.note("value_error.missing", "field required".to_owned(), None);
    }

    /// Reads something one step further in.
    pub fn at<T>(&mut self, step: Step, read: impl FnOnce(&mut Self) -> T) -> T {
        self.enter(step);
        let out = read(self);
        self.leave();
        out
    }

    /// Goes one step further in. For readers of many types, which a closure for each would double in size.
    pub(crate) fn enter(&mut self, step: Step) {
        self.path.push(step);
    }

    /// Goes back from where [`Errors::enter`] went.
    pub(crate) fn leave(&mut self) {
        self.path.pop();
    }

    /// Reads the field `snake` of `object` under its camelCase or its snake_case name.
    pub fn field<T: Decode>(&mut self, object: &Map<String, Value>, snake: &str, default: Option<T>) -> Option<T> {
        let value = self.enter_field(object, snake);
        self.entered(value, default)
    }

    #[inline(never)]
    fn enter_field<'a>(&mut self, object: &'a Map<String, Value>, snake: &str) -> Option<&'a Value> {
        let camel = super::camel_case(snake);
        let value = object.get(&camel).or_else(|| object.get(snake));
        self.enter(Step::Key(camel));
        value
    }

    /// Reads the field called `name`, which is `value` if it is there.
    pub fn named<T: Decode>(&mut self, name: String, value: Option<&Value>, default: Option<T>) -> Option<T> {
        self.enter(Step::Key(name));
        self.entered(value, default)
    }

    /// Reads the field that was entered, and leaves it.
    fn entered<T: Decode>(&mut self, value: Option<&Value>, default: Option<T>) -> Option<T> {
        let read = match value {
            Some(value) => T::decode(value, self),
            None => {
                let read = default.or_else(T::when_absent);
                if read.is_none() {
                    self.note_missing();
                }
                read
            }
        };
        self.leave();
        read
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
        self.found.truncate(MOST_ERRORS);
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
    read(value, Errors::below(root))
}

/// Reads `value`, noting what is wrong in `errors`.
pub fn read<T: Decode>(value: &Value, mut errors: Errors) -> Result<T, Invalid> {
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
    read(&parsed(text)?, Errors::default())
}

#[inline(never)]
fn parsed(text: &str) -> Result<Value, Invalid> {
    serde_json::from_str(text).map_err(|error| {
        let mut errors = Errors::default();
        errors.note("value_error.jsondecode", error.to_string(), None);
        Invalid(errors.into_found())
    })
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
        Some(json!({ "given": brief(given), "permitted": [word] })),
    )
}

/// Longest text and most items of a value that is shown in an error.
const MOST_SHOWN: usize = 200;

/// `value` as it stands in an error: one that is large or nested is cut.
fn brief(value: &Value) -> Value {
    match value {
        Value::String(text) => brief_text(text).into(),
        Value::Array(items) if items.len() > MOST_SHOWN || items.iter().any(is_nested) => "(a list)".into(),
        Value::Object(fields) if fields.len() > MOST_SHOWN || fields.values().any(is_nested) => "(an object)".into(),
        Value::Array(items) => items.iter().map(brief).collect(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (brief_text(key), brief(value))).collect(),
        plain => plain.clone(),
    }
}

fn is_nested(value: &Value) -> bool {
    matches!(value, Value::Array(_) | Value::Object(_))
}

fn brief_text(text: &str) -> String {
    match text.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn brief_step(step: &Step) -> Step {
    match step {
        Step::Key(key) => Step::Key(brief_text(key)),
        Step::Index(index) => Step::Index(*index),
    }
}

/// The object behind `value`, or an error.
pub(crate) fn object<'a>(value: &'a Value, errors: &mut Errors) -> Option<&'a Map<String, Value>> {
    match value {
        Value::Object(map) => Some(map),
        Value::Null => errors.add("type_error.none.not_allowed", "none is not an allowed value"),
        _ => errors.add("type_error.dict", "value is not a valid dict"),
    }
}
