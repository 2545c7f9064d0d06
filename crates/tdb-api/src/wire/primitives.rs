//! Reading numbers, texts, lists and maps, with the leniency that clients of the reference rely on.

use super::{Decode, Errors, Step, decode::object};
use indexmap::IndexMap;
use serde_json::Value;
use std::hash::Hash;

/// Notes a value of the wrong kind; a null has its own message.
fn wrong<T>(value: &Value, kind: &str, msg: &str, errors: &mut Errors) -> Option<T> {
    match value {
        Value::Null => errors.add("type_error.none.not_allowed", "none is not an allowed value"),
        _ => errors.add(kind, msg),
    }
}

/// Nothing is read.
impl Decode for () {
    fn decode(_: &Value, _: &mut Errors) -> Option<Self> {
        Some(())
    }
}

/// Texts; a number is taken as its text.
impl Decode for String {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            other => wrong(other, "type_error.str", "str type expected", errors),
        }
    }
}

/// Integers; `"1"`, `1.9` and `true` are 1.
impl Decode for i64 {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        let read = match value {
            Value::Number(number) => number.as_i64().or_else(|| {
                // Beyond i64 nothing here has a meaning; `as` would silently turn it into the largest integer.
                let float = number.as_f64()?.trunc();
                (float.abs() < 9e18).then_some(float as i64)
            }),
            Value::String(text) => text.trim().parse().ok(),
            Value::Bool(flag) => Some(i64::from(*flag)),
            _ => None,
        };
        read.or_else(|| wrong(value, "type_error.integer", "value is not a valid integer", errors))
    }
}

/// Positions and counts.
impl Decode for usize {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        natural(value, errors)
    }
}

/// Statuses.
impl Decode for u16 {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        natural(value, errors)
    }
}

fn natural<T: TryFrom<i64>>(value: &Value, errors: &mut Errors) -> Option<T> {
    let wide = i64::decode(value, errors)?;
    T::try_from(wide).ok().or_else(|| errors.add("value_error.number.range", "value is out of range"))
}

/// Numbers; `"1.5"` is 1.5.
impl Decode for f64 {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        let read = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => number_of(text.trim()).filter(|number| number.is_finite()),
            Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
            _ => None,
        };
        read.or_else(|| wrong(value, "type_error.float", "value is not a valid float", errors))
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn number_of(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// As JSON has numbers. The tables for all that Rust takes for one are a fiftieth of what a browser has to load, and no
/// answer has numbers as texts.
#[cfg(target_arch = "wasm32")]
fn number_of(text: &str) -> Option<f64> {
    serde_json::from_str(text).ok()
}

/// Yes or no; the usual words and 0 and 1 are understood.
impl Decode for bool {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        let read = match value {
            Value::Bool(flag) => Some(*flag),
            Value::Number(number) => match number.as_f64() {
                Some(0.0) => Some(false),
                Some(1.0) => Some(true),
                _ => None,
            },
            Value::String(text) => match text.to_ascii_lowercase().as_str() {
                "0" | "off" | "f" | "false" | "n" | "no" => Some(false),
                "1" | "on" | "t" | "true" | "y" | "yes" => Some(true),
                _ => None,
            },
            _ => None,
        };
        read.or_else(|| wrong(value, "type_error.bool", "value could not be parsed to a boolean", errors))
    }
}

/// Null or absent is `None`.
impl<T: Decode> Decode for Option<T> {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            other => T::decode(other, errors).map(Some),
        }
    }

    fn when_absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Decode> Decode for Box<T> {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        T::decode(value, errors).map(Box::new)
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        let mut all = Vec::new();
        let mut read = |item: &Value, errors: &mut Errors| match T::decode(item, errors) {
            Some(item) => {
                all.push(item);
                true
            }
            None => false,
        };
        each(value, errors, &mut read).then_some(all)
    }
}

/// Reads the items of a list; false if it is none, or any of them failed.
#[inline(never)]
fn each(value: &Value, errors: &mut Errors, read: &mut dyn FnMut(&Value, &mut Errors) -> bool) -> bool {
    let Value::Array(items) = value else {
        wrong::<()>(value, "type_error.list", "value is not a valid list", errors);
        return false;
    };
    if errors.check_len(items.len()).is_none() {
        return false;
    }
    let mut complete = true;
    // Items are read even after a failure, so that all errors are told at once, as far as any more are told.
    for (i, item) in items.iter().enumerate() {
        if errors.is_full() {
            return false;
        }
        errors.enter(Step::Index(i));
        complete &= read(item, errors);
        errors.leave();
    }
    complete
}

/// The items of a list of exactly `n`.
fn items<'a>(value: &'a Value, n: usize, errors: &mut Errors) -> Option<&'a [Value]> {
    match value {
        Value::Array(items) if items.len() == n => Some(items),
        _ => wrong(value, "type_error.list", &format!("value is not a list of {n} items"), errors),
    }
}

impl<A: Decode, B: Decode> Decode for (A, B) {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        let items = items(value, 2, errors)?;
        let first = errors.at(Step::Index(0), |errors| A::decode(&items[0], errors));
        let second = errors.at(Step::Index(1), |errors| B::decode(&items[1], errors));
        Some((first?, second?))
    }
}

impl<A: Decode, B: Decode, C: Decode> Decode for (A, B, C) {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        let items = items(value, 3, errors)?;
        let first = errors.at(Step::Index(0), |errors| A::decode(&items[0], errors));
        let second = errors.at(Step::Index(1), |errors| B::decode(&items[1], errors));
        let third = errors.at(Step::Index(2), |errors| C::decode(&items[2], errors));
        Some((first?, second?, third?))
    }
}

/// Maps keep the order in which the keys came.
impl<K: Decode + Hash + Eq, T: Decode> Decode for IndexMap<K, T> {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        let items = object(value, errors)?;
        errors.check_len(items.len())?;
        let mut out = IndexMap::new();
        let mut complete = true;
        for (key, item) in items {
            if errors.is_full() {
                return None;
            }
            let name = errors.at(Step::Key("__key__".into()), |e| K::decode(&Value::String(key.clone()), e));
            let item = errors.at(Step::Key(key.clone()), |e| T::decode(item, e));
            match (name, item) {
                (Some(name), Some(item)) => drop(out.insert(name, item)),
                _ => complete = false,
            }
        }
        complete.then_some(out)
    }
}
