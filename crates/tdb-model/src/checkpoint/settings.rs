//! Settings from a JSON object, each checked where it is read.

use std::path::Path;

use serde_json::{Map, Value};

use super::error::CheckpointError;

/// Larger than any size of any model, and small enough that products of three sizes do not overflow.
const MAX_SIZE: usize = 1 << 20;

/// A JSON object with the file that it came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings<'a> {
    path: &'a Path,
    json: &'a Map<String, Value>,
    /// The keys under which these settings stand, the outermost first.
    within: [Option<&'a str>; 2],
}

impl<'a> Settings<'a> {
    pub fn new(path: &'a Path, json: &'a Map<String, Value>) -> Self {
        Settings { path, json, within: [None; 2] }
    }

    pub fn path(&self) -> &'a Path {
        self.path
    }

    /// The value, unless it is absent or null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.json.get(key).filter(|value| !value.is_null())
    }

    /// Whether it is in the file, if only as null.
    pub fn has(&self, key: &str) -> bool {
        self.json.contains_key(key)
    }

    /// Refuses a setting that is set and not in the list.
    pub fn only(&self, known: &[&str]) -> Result<(), CheckpointError> {
        match self.json.keys().find(|key| !known.contains(&key.as_str()) && self.get(key).is_some()) {
            None => Ok(()),
            Some(key) => Err(CheckpointError::unknown(self.path, &self.name(key), known.join(", "))),
        }
    }

    /// The value, which must be there.
    pub fn value(&self, key: &str) -> Result<&'a Value, CheckpointError> {
        self.get(key).ok_or_else(|| self.missing(key))
    }

    pub fn text(&self, key: &str) -> Result<&'a str, CheckpointError> {
        self.value(key)?.as_str().ok_or_else(|| self.unexpected(key, "a text"))
    }

    /// A whole number from 1 on.
    pub fn size(&self, key: &str) -> Result<usize, CheckpointError> {
        let number = self.value(key)?.as_u64().ok_or_else(|| self.unexpected(key, "a whole number"))?;
        let size = usize::try_from(number).unwrap_or(usize::MAX);
        check_size(self.path, &self.name(key), size)?;
        Ok(size)
    }

    /// A positive number.
    pub fn positive(&self, key: &str) -> Result<f64, CheckpointError> {
        match self.value(key)?.as_f64() {
            Some(number) if number > 0.0 && (number as f32).is_normal() => Ok(number),
            _ => Err(self.unexpected(key, "a positive number")),
        }
    }

    /// `true` or `false`, or what the format says if it is absent.
    pub fn flag(&self, key: &str, absent: bool) -> Result<bool, CheckpointError> {
        match self.get(key) {
            None => Ok(absent),
            Some(value) => value.as_bool().ok_or_else(|| self.unexpected(key, "true or false")),
        }
    }

    /// A whole number that divides the size of another setting.
    pub fn divisor(&self, key: &str, of: &str, size: usize) -> Result<usize, CheckpointError> {
        match self.size(key)? {
            divisor if size.is_multiple_of(divisor) => Ok(divisor),
            _ => Err(self.unexpected(key, &format!("a divisor of {of}, {size}"))),
        }
    }

    /// Settings inside the settings.
    pub fn object(&self, key: &str) -> Result<Option<Settings<'a>>, CheckpointError> {
        match self.json.get_key_value(key) {
            None | Some((_, Value::Null)) => Ok(None),
            Some((key, Value::Object(json))) => {
                let [outer, inner] = self.within;
                let within = if outer.is_none() { [Some(key.as_str()), None] } else { [outer, inner.or(Some(key))] };
                Ok(Some(Settings { path: self.path, json, within }))
            }
            Some(_) => Err(self.unexpected(key, "an object")),
        }
    }

    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.json.keys().map(String::as_str)
    }

    pub fn is_empty(&self) -> bool {
        self.json.is_empty()
    }

    /// A number of layers: names are made for each before the files are looked for, so it is bounded further.
    pub fn layers(&self, key: &str) -> Result<usize, CheckpointError> {
        match self.size(key)? {
            layers @ 1..=4096 => Ok(layers),
            _ => Err(self.unexpected(key, "from 1 to 4096")),
        }
    }

    /// `width` times a factor of this name, rounded down as the reference does.
    pub fn scaled(&self, key: &str, width: usize) -> Result<usize, CheckpointError> {
        let factor = self.value(key)?.as_f64().ok_or_else(|| self.unexpected(key, "a number"))?;
        let size = factor * width as f64;
        if !(1.0..=MAX_SIZE as f64).contains(&size) {
            return Err(self.unexpected(key, "a factor that gives a width from 1 on"));
        }
        Ok(size as usize)
    }

    /// The error that this setting is something else.
    pub fn unexpected(&self, key: &str, expected: &str) -> CheckpointError {
        match self.json.get(key) {
            Some(found) => CheckpointError::unexpected(self.path, self.name(key), expected, found),
            None => self.missing(key),
        }
    }

    /// The error that there is no such setting.
    pub fn missing(&self, key: &str) -> CheckpointError {
        CheckpointError::missing(self.path, self.name(key))
    }

    /// A key with those under which it stands: `rope_parameters.factor`.
    pub fn name(&self, key: &str) -> String {
        self.within.into_iter().flatten().chain([key]).collect::<Vec<_>>().join(".")
    }
}

/// Refuses sizes that no model has, before they are multiplied.
pub(crate) fn check_size(path: &Path, key: &str, size: usize) -> Result<(), CheckpointError> {
    if (1..=MAX_SIZE).contains(&size) {
        return Ok(());
    }
    Err(CheckpointError::unexpected(path, key, format!("from 1 to {MAX_SIZE}"), size))
}
