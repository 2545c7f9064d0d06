//! The declarations of wire types. Each makes a plain Rust type with `Serialize`, `Deserialize`, [`Decode`] and
//! [`Describe`] that agree with each other.
//!
//! [`Decode`]: super::Decode
//! [`Describe`]: super::Describe

/// A struct whose fields are written in camelCase, all of them, in the order of their declaration.
///
/// An attribute of serde about writing may stand before a field. `field: Type = value` gives the value that an absent
/// field has; a field of type `Option` may be absent anyway.
macro_rules! wire_struct {
    ($(#[doc = $doc:literal])* pub struct $name:ident {
        $(
            $(#[doc = $field_doc:literal])*
            $(#[serde($($attribute:tt)+)])?
            pub $field:ident : $type:ty $(= $default:expr)?,
        )*
    }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $($(#[doc = $field_doc])* $(#[serde($($attribute)+)])? pub $field: $type,)*
        }

        impl $crate::wire::Decode for $name {
            fn decode(value: &serde_json::Value, errors: &mut $crate::wire::Errors) -> Option<Self> {
                let object = $crate::wire::decode_object(value, errors)?;
                // All fields are read before the first failure is acted on, so that all errors are told at once.
                $(let $field: Option<$type> =
                    errors.field(object, stringify!($field), $crate::wire::macros::wire_default!($($default)?));)*
                Some(Self { $($field: $field?,)* })
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::wire::decode_for_serde(deserializer)
            }
        }

        impl $crate::wire::Describe for $name {
            fn describe(schemas: &mut $crate::wire::Schemas) -> serde_json::Value {
                schemas.named(stringify!($name), |schemas| {
                    let mut object = $crate::wire::ObjectSchema::default();
                    $(object.field::<$type>(
                        stringify!($field),
                        &[$($field_doc),*],
                        $crate::wire::macros::wire_has_default!($($default)?),
                        schemas,
                    );)*
                    object.finish(stringify!($name), &[$($doc),*])
                })
            }
        }
    };
}

macro_rules! wire_default {
    () => {
        None
    };
    ($default:expr) => {
        Some($default)
    };
}

macro_rules! wire_has_default {
    () => {
        false
    };
    ($default:expr) => {
        true
    };
}

/// The parameters of a query, under the names of their fields.
macro_rules! wire_query {
    ($(#[doc = $doc:literal])* pub struct $name:ident {
        $($(#[doc = $field_doc:literal])* pub $field:ident : $type:ty,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        pub struct $name {
            $($(#[doc = $field_doc])* pub $field: $type,)*
        }

        impl $crate::wire::Decode for $name {
            fn decode(value: &serde_json::Value, errors: &mut $crate::wire::Errors) -> Option<Self> {
                let object = $crate::wire::decode_object(value, errors)?;
                $(let $field: Option<$type> =
                    errors.named(stringify!($field).to_owned(), object.get(stringify!($field)), None);)*
                Some(Self { $($field: $field?,)* })
            }
        }

        /// A list of OpenAPI parameters.
        impl $crate::wire::Describe for $name {
            fn describe(schemas: &mut $crate::wire::Schemas) -> serde_json::Value {
                serde_json::json!([$({
                    "name": stringify!($field),
                    "in": "query",
                    "required": !<$type as $crate::wire::Describe>::optional(),
                    "schema": <$type as $crate::wire::Describe>::describe(schemas),
                },)*])
            }
        }
    };
}

/// An enum of words. `ALL` lists it, `as_str` and `Display` give the word, `FromStr` reads it.
macro_rules! wire_enum {
    ($(#[doc = $doc:literal])* pub enum $name:ident {
        $($(#[doc = $variant_doc:literal])* $variant:ident = $word:literal,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $(#[doc = concat!("`", $word, "`.")] $(#[doc = $variant_doc])* $variant,)*
        }

        impl $name {
            /// Every value, in the order of the declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            const WORDS: &'static [&'static str] = &[$($word,)*];

            /// The word on the wire.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::UnknownName;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($word => Ok(Self::$variant),)*
                    _ => Err($crate::UnknownName { kind: stringify!($name), found: word.to_owned() }),
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::wire::decode_for_serde(deserializer)
            }
        }

        impl $crate::wire::Decode for $name {
            fn decode(value: &serde_json::Value, errors: &mut $crate::wire::Errors) -> Option<Self> {
                match value.as_str().and_then(|word| word.parse().ok()) {
                    Some(found) => Some(found),
                    None if value.is_null() => {
                        errors.add("type_error.none.not_allowed", "none is not an allowed value")
                    }
                    None => $crate::wire::decode_not_permitted(Self::WORDS, errors),
                }
            }
        }

        impl $crate::wire::Describe for $name {
            fn describe(schemas: &mut $crate::wire::Schemas) -> serde_json::Value {
                schemas.named(stringify!($name), |_| {
                    let docs = $crate::wire::paragraph(&[$($doc),*]);
                    serde_json::json!({
                        "title": stringify!($name), "type": "string", "enum": Self::WORDS, "description": docs,
                    })
                })
            }
        }
    };
}

/// The type of a field that always holds the same word and may be left out by whoever sends it.
macro_rules! wire_tag {
    ($(#[doc = $doc:literal])* pub struct $name:ident = $word:literal $(of $enum:ident)?) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name;

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str($word)
            }
        }

        impl $crate::wire::Decode for $name {
            fn decode(value: &serde_json::Value, errors: &mut $crate::wire::Errors) -> Option<Self> {
                match value.as_str() {
                    Some($word) => Some(Self),
                    _ => $crate::wire::decode_not_the_word(value, $word, errors),
                }
            }

            fn when_absent() -> Option<Self> {
                Some(Self)
            }
        }

        impl $crate::wire::Describe for $name {
            fn describe(schemas: &mut $crate::wire::Schemas) -> serde_json::Value {
                let _ = &schemas;
                $(<$enum as $crate::wire::Describe>::describe(schemas);)?
                serde_json::json!({ "type": "string", "enum": [$word], "default": $word })
            }

            fn optional() -> bool {
                true
            }
        }
    };
}

pub(crate) use {wire_default, wire_enum, wire_has_default, wire_query, wire_struct, wire_tag};
