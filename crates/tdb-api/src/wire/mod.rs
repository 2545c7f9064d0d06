//! How JSON becomes our types and how the types describe themselves.
//!
//! Requests come from clients written for the reference's server, whose validation is lenient in known ways: keys in
//! camelCase or snake_case, unknown keys ignored, `"1"` or `1.9` where an integer is wanted. It also reports all that
//! is wrong with a body (up to [`MOST_ERRORS`]), each with its place. [`Decode`] does both; `serde::Deserialize` of
//! every wire type goes through it, so that there is one set of rules. [`Describe`] yields the JSON schema of the same
//! types for the OpenAPI document.

mod decode;
mod describe;
pub(crate) mod macros;
mod path;
mod primitives;
mod query;

pub use decode::{Decode, Errors, FieldError, Invalid, MOST_ERRORS, from_json, from_value, read};
pub(crate) use decode::{
    for_serde as decode_for_serde, not_permitted as decode_not_permitted, not_the_word as decode_not_the_word,
    object as decode_object,
};
pub use describe::{Describe, Schemas};
pub(crate) use describe::{ObjectSchema, paragraph};
pub(crate) use macros::{wire_enum, wire_query, wire_struct, wire_tag};
pub use path::{FieldPath, NotAPath, Step};
pub use query::{from_query, to_query};

/// Name of a field on the wire: `top_and_bottom_k` is `topAndBottomK`.
pub fn camel_case(snake: &str) -> String {
    let mut out = String::with_capacity(snake.len());
    let mut upper = false;
    for c in snake.chars() {
        if c == '_' {
            upper = true;
        } else if upper {
            out.push(c.to_ascii_uppercase());
            upper = false;
        } else {
            out.push(c);
        }
    }
    out
}
