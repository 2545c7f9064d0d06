//! Answers that are not JSON.

use crate::wire::{Describe, Schemas};
use serde_json::{Value, json};

/// A text.
#[derive(Debug, Clone, Copy)]
pub struct PlainText;

/// Counts, as Prometheus reads them.
#[derive(Debug, Clone, Copy)]
pub struct OpenMetrics;

impl Describe for PlainText {
    const MEDIA_TYPE: &'static str = "text/plain";

    fn describe(_: &mut Schemas) -> Value {
        json!({ "type": "string" })
    }
}

impl Describe for OpenMetrics {
    const MEDIA_TYPE: &'static str = "application/openmetrics-text";

    fn describe(_: &mut Schemas) -> Value {
        json!({ "type": "string" })
    }
}
