//! The written form of everything that leaves the pages: requests, exports, what is kept in the browser.

use serde::Serialize;
use serde_json::Value;

/// Something as JSON. Everything that the pages write goes through it, so that each type is compiled into one form
/// only.
#[derive(Clone, Debug, Default)]
pub struct Json(Value);

impl Json {
    pub fn of(what: &impl Serialize) -> Self {
        Self(serde_json::to_value(what).unwrap_or_default())
    }

    pub fn value(&self) -> &Value {
        &self.0
    }

    /// On one line.
    pub fn text(&self) -> String {
        self.0.to_string()
    }

    /// On many lines, for people.
    pub fn pretty(&self) -> String {
        serde_json::to_string_pretty(&self.0).unwrap_or_default()
    }
}
