//! The time in the form that files carry it.

use std::time::SystemTime;

/// Whether this is a day, or a time of one, in that form.
pub fn is_date(text: &str) -> bool {
    humantime::parse_rfc3339(text).is_ok() || humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).is_ok()
}

/// RFC 3339, UTC, to the second.
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}
