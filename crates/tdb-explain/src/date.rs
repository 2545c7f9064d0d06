//! The time in the form that files carry it.

use std::time::SystemTime;

/// RFC 3339, UTC, to the second.
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}
