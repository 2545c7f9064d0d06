//! Answers that are not JSON.

use crate::wire::{Describe, Schemas};
use serde_json::Value;

/// A text.
#[derive(Debug, Clone, Copy)]
pub struct PlainText;

/// Counts, as Prometheus reads them.
#[derive(Debug, Clone, Copy)]
pub struct OpenMetrics;

impl Describe for PlainText {
    const MEDIA_TYPE: &'static str = "text/plain";

    fn describe(schemas: &mut Schemas) -> Value {
        String::describe(schemas)
    }
}

impl Describe for OpenMetrics {
    const MEDIA_TYPE: &'static str = "application/openmetrics-text";

    fn describe(schemas: &mut Schemas) -> Value {
        String::describe(schemas)
    }
}
