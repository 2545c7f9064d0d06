//! OpenAPI documents: what a generated client depends on.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::compare::{Comparison, plain, short};

pub(super) fn compare(c: &mut Comparison, got: &Value, want: &Value) {
    for (path, operations) in members(&want["paths"]) {
        for (method, operation) in members(operations) {
            let place = format!("paths.{path}.{method}");
            let Some(ours) = got["paths"].get(path).and_then(|p| p.get(method)) else {
                c.bad(&place, "missing");
                continue;
            };
            for key in ["operationId", "tags"] {
                if ours.get(key) != operation.get(key) {
                    c.bad(&place, format!("{key}: got {}, want {}", ours[key], operation[key]));
                }
            }
        }
    }
    for (name, schema) in members(&want["components"]["schemas"]) {
        let place = format!("schemas.{name}");
        let Some(ours) = got["components"]["schemas"].get(name) else {
            c.bad(&place, "missing");
            continue;
        };
        let properties = |s: &Value| members(&s["properties"]).map(|(k, _)| k.clone()).collect::<BTreeSet<_>>();
        if properties(ours) != properties(schema) {
            c.bad(&place, format!("properties {:?}, want {:?}", properties(ours), properties(schema)));
        }
        for key in ["required", "enum"] {
            let sorted = |s: &Value| {
                let mut all: Vec<_> = s[key].as_array().into_iter().flatten().map(plain).collect();
                all.sort();
                all
            };
            if sorted(ours) != sorted(schema) {
                c.bad(&place, format!("{key}: got {}, want {}", short(&ours[key]), short(&schema[key])));
            }
        }
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}
