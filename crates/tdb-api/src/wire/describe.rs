//! JSON schemas of the wire types, for the OpenAPI document.

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

/// Named schemas: the `components.schemas` of an OpenAPI document, in the order in which they were first met.
#[derive(Debug, Default)]
pub struct Schemas(pub Map<String, Value>);

impl Schemas {
    /// A reference to the schema called `name`, which `make` yields when it is met for the first time.
    pub fn named(&mut self, name: &str, make: impl FnOnce(&mut Self) -> Value) -> Value {
        if !self.0.contains_key(name) {
            // A place is kept first: types may contain themselves.
            self.0.insert(name.to_owned(), Value::Null);
            let schema = make(self);
            self.0.insert(name.to_owned(), schema);
        }
        json!({ "$ref": format!("#/components/schemas/{name}") })
    }
}

/// A type that can describe its JSON form.
pub trait Describe {
    /// The media type of an answer of this type.
    const MEDIA_TYPE: &'static str = "application/json";

    /// The schema of this type, or a reference to it; named types enter `schemas`.
    fn describe(schemas: &mut Schemas) -> Value;

    /// Whether a field of this type may be left out.
    fn optional() -> bool {
        false
    }
}

/// Nothing is said about it.
impl Describe for () {
    fn describe(_: &mut Schemas) -> Value {
        json!({})
    }
}

impl Describe for String {
    fn describe(_: &mut Schemas) -> Value {
        json!({ "type": "string" })
    }
}

impl Describe for i64 {
    fn describe(_: &mut Schemas) -> Value {
        json!({ "type": "integer" })
    }
}

impl Describe for f64 {
    fn describe(_: &mut Schemas) -> Value {
        json!({ "type": "number" })
    }
}

impl Describe for bool {
    fn describe(_: &mut Schemas) -> Value {
        json!({ "type": "boolean" })
    }
}

impl<T: Describe> Describe for Option<T> {
    fn describe(schemas: &mut Schemas) -> Value {
        T::describe(schemas)
    }

    fn optional() -> bool {
        true
    }
}

impl<T: Describe> Describe for Box<T> {
    fn describe(schemas: &mut Schemas) -> Value {
        T::describe(schemas)
    }
}

impl<T: Describe> Describe for Vec<T> {
    fn describe(schemas: &mut Schemas) -> Value {
        json!({ "type": "array", "items": T::describe(schemas) })
    }
}

impl<A: Describe, B: Describe> Describe for (A, B) {
    fn describe(schemas: &mut Schemas) -> Value {
        let items = json!([A::describe(schemas), B::describe(schemas)]);
        json!({ "type": "array", "prefixItems": items, "minItems": 2, "maxItems": 2 })
    }
}

impl<K: Describe, T: Describe> Describe for IndexMap<K, T> {
    fn describe(schemas: &mut Schemas) -> Value {
        // Keys are words: a named enum enters the document, although the schema of a map cannot refer to it.
        K::describe(schemas);
        json!({ "type": "object", "additionalProperties": T::describe(schemas) })
    }
}

/// Builds the schema of a struct, field by field.
#[derive(Debug, Default)]
pub(crate) struct ObjectSchema {
    required: Vec<Value>,
    properties: Map<String, Value>,
}

impl ObjectSchema {
    /// Adds the field `snake` of type `T`.
    pub(crate) fn field<T: Describe>(&mut self, snake: &str, docs: &[&str], has_default: bool, schemas: &mut Schemas) {
        let name = super::camel_case(snake);
        if !has_default && !T::optional() {
            self.required.push(name.clone().into());
        }
        let mut schema = T::describe(schemas);
        let docs = paragraph(docs);
        if !docs.is_empty() {
            // Beside a `$ref` other keys are ignored, hence the wrapping.
            if schema.get("$ref").is_some() {
                schema = json!({ "allOf": [schema] });
            }
            schema["description"] = docs.into();
        }
        self.properties.insert(name, schema);
    }

    /// The schema of the struct called `title`.
    pub(crate) fn finish(self, title: &str, docs: &[&str]) -> Value {
        let mut schema = json!({ "title": title, "type": "object", "properties": self.properties });
        if !self.required.is_empty() {
            schema["required"] = self.required.into();
        }
        let docs = paragraph(docs);
        if !docs.is_empty() {
            schema["description"] = docs.into();
        }
        schema
    }
}

/// Doc comment lines as one text.
pub(crate) fn paragraph(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n").trim().to_owned()
}
