//! The walk over two JSON values, and what a whole answer must satisfy.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Map, Value};

use super::case::Case;
use super::node_lists::{self, Node};
use super::{openapi, ranked};

/// Tolerances and how strict to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    pub abs: f64,
    pub rel: f64,
    /// Fields that we answer and the recorded server does not are accepted.
    pub allow_extra: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { abs: 2e-4, rel: 1e-3, allow_extra: false }
    }
}

/// The outcome for one case; it passed when there are no problems.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    rules: Rules,
    pub problems: Vec<String>,
    /// Differences that are allowed, for whoever wants to know.
    pub notes: Vec<String>,
    /// Nodes that stand on one side only, as a tie allows.
    pub excused: HashSet<Node>,
    pub max_abs: f64,
    /// Among numbers above 0.01.
    pub max_rel: f64,
    pub n_floats: usize,
    /// Multiplies `rules.abs`.
    pub(super) scale: f64,
}

/// Durations and memory.
const IGNORED_VALUES: [&str; 3] = ["inferenceTime", "memoryUsedBefore", "memoryUsedAfter"];

/// Holds an answer against the recorded one.
pub fn compare(rules: Rules, case: &Case, status: u16, body: &Value) -> Comparison {
    let mut c = Comparison { rules, scale: 1.0, ..Comparison::default() };
    if let Err(malformed) = c.case(case, status, body) {
        c.bad("$", malformed);
    }
    c
}

impl Comparison {
    pub fn passed(&self) -> bool {
        self.problems.is_empty()
    }

    fn case(&mut self, case: &Case, status: u16, body: &Value) -> Result<(), String> {
        let has_message = body.get("message").is_some_and(Value::is_string);
        if case.status >= 500 && (400..500).contains(&status) {
            if has_message || body.get("detail").is_some() {
                self.notes.push(format!("{status} where the reference says {}", case.status));
            } else {
                self.bad("message", format!("{status} without a message: {}", short(body)));
            }
            return Ok(());
        }
        if status != case.status {
            self.bad("status", format!("got {status}, want {}: {}", case.status, short(body)));
            return Ok(());
        }
        let want = &case.response;
        if status == 422 {
            match (places(body), places(want)) {
                (Some(got), Some(want)) if got == want => {}
                (Some(got), Some(want)) => self.notes.push(format!("422 places differ: got {got:?}, want {want:?}")),
                _ => self.bad("$", format!("422 body without detail[].loc: {}", short(body))),
            }
            return Ok(());
        }
        if status >= 400 {
            let keys = |v: &Value| v.as_object().map(|o| o.keys().cloned().collect::<BTreeSet<_>>());
            if keys(body).is_none() || keys(body) != keys(want) || !has_message {
                self.bad("$", format!("error body {}, want {}", short(body), short(want)));
            } else if body["message"] != want["message"] {
                self.notes.push(format!("message: got {}, want {}", body["message"], want["message"]));
            }
            return Ok(());
        }
        if want.get("openapi").is_some() {
            openapi::compare(self, body, want);
            return Ok(());
        }
        for list in node_lists::of_case(&case.request, body, want)? {
            node_lists::check(self, &list)?;
        }
        self.any("$", body, want)
    }

    pub(super) fn bad(&mut self, path: &str, message: impl AsRef<str>) {
        self.problems.push(format!("{path}: {}", message.as_ref()));
    }

    pub(super) fn close(&self, got: f64, want: f64) -> bool {
        got == want || (got - want).abs() <= self.rules.abs * self.scale + self.rules.rel * want.abs()
    }

    /// Compares two numbers and remembers the largest deviations.
    pub(super) fn number(&mut self, path: &str, got: f64, want: f64) {
        self.n_floats += 1;
        let err = (got - want).abs();
        if err.is_finite() {
            self.max_abs = self.max_abs.max(err);
            if want.abs() > 1e-2 {
                self.max_rel = self.max_rel.max(err / want.abs());
            }
        }
        if !self.close(got, want) {
            self.bad(path, format!("got {got}, want {want}"));
        }
    }

    /// Any two values. `Err` where `got` lacks what a special rule needs to read.
    pub(super) fn any(&mut self, path: &str, got: &Value, want: &Value) -> Result<(), String> {
        match (got, want) {
            (Value::Number(g), Value::Number(w)) => {
                if let (false, false) = (g.is_f64(), w.is_f64()) {
                    if g != w {
                        self.bad(path, format!("got {g}, want {w}"));
                    }
                } else {
                    self.number(path, float(got)?, float(want)?);
                }
            }
            (Value::Array(g), Value::Array(w)) => {
                if g.len() != w.len() {
                    self.bad(path, format!("length {}, want {}", g.len(), w.len()));
                }
                let outer = self.scale;
                if !w.is_empty() && w.iter().all(Value::is_number) {
                    self.scale = scale_of(w.iter().filter_map(Value::as_f64));
                }
                for (i, (g, w)) in g.iter().zip(w).enumerate() {
                    self.any(&format!("{path}[{i}]"), g, w)?;
                }
                self.scale = outer;
            }
            (Value::Object(g), Value::Object(w)) => self.object(path, g, w)?,
            _ if got == want => {}
            _ => self.bad(path, format!("got {}, want {}", short(got), short(want))),
        }
        Ok(())
    }

    fn object(&mut self, path: &str, got: &Map<String, Value>, want: &Map<String, Value>) -> Result<(), String> {
        match want.get("responseDataType").and_then(Value::as_str) {
            Some("multiple_top_k_derived_scalars_response_data") => return node_lists::values(self, path, got, want),
            Some("scored_tokens_response_data") => return node_lists::by_node(self, path, got, want, "topTokensList"),
            Some("token_pair_attribution_response_data") => {
                return node_lists::by_node(self, path, got, want, "topTokensAttendedToList");
            }
            _ => {}
        }
        let has = |a: &str, b: &str| want.len() == 2 && want.contains_key(a) && want.contains_key(b);
        if has("top", "bottom") {
            return ranked::top_tokens(self, path, got, want);
        }
        if has("tokenIndices", "attributions") {
            return ranked::attributions(self, path, got, want);
        }
        for key in self.keys(path, got, want) {
            if IGNORED_VALUES.contains(&key) {
                continue;
            }
            let outer = self.scale;
            if key == "loss" && want[key].is_f64() {
                self.scale = scale_of(want[key].as_f64());
            }
            self.any(&format!("{path}.{key}"), &got[key], &want[key])?;
            self.scale = if key == "loss" { 1.0 } else { outer };
        }
        Ok(())
    }

    /// The keys of `want` that `got` has, too; complains about the others.
    pub(super) fn keys<'w>(
        &mut self,
        path: &str,
        got: &Map<String, Value>,
        want: &'w Map<String, Value>,
    ) -> Vec<&'w str> {
        let missing: Vec<_> = want.keys().filter(|k| !got.contains_key(*k)).collect();
        let extra: Vec<_> = got.keys().filter(|k| !want.contains_key(*k)).collect();
        if !missing.is_empty() {
            self.bad(path, format!("missing keys {missing:?}"));
        }
        if !extra.is_empty() && !self.rules.allow_extra {
            self.bad(path, format!("extra keys {extra:?}"));
        }
        want.keys().filter(|k| got.contains_key(*k)).map(String::as_str).collect()
    }
}

/// What the absolute tolerance of a list of numbers is multiplied by: less than 1 if all of them are small.
pub(super) fn scale_of(values: impl IntoIterator<Item = f64>) -> f64 {
    let largest = values.into_iter().map(f64::abs).fold(0.0, f64::max);
    if largest > 0.0 && largest.is_finite() { (10.0 * largest).min(1.0) } else { 1.0 }
}

/// The places that a 422 body complains about.
fn places(body: &Value) -> Option<BTreeSet<Vec<String>>> {
    let place = |error: &Value| Some(error["loc"].as_array()?.iter().map(plain).collect());
    body["detail"].as_array()?.iter().map(place).collect()
}

/// A string without its quotes, anything else as JSON.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(super) fn short(value: &Value) -> String {
    let mut text = value.to_string();
    if let Some((end, _)) = text.char_indices().nth(160) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

pub(super) fn float(value: &Value) -> Result<f64, String> {
    value.as_f64().ok_or_else(|| format!("malformed: {} where a number should be", short(value)))
}

pub(super) fn floats(value: &Value) -> Result<Vec<f64>, String> {
    list(value)?.iter().map(float).collect()
}

pub(super) fn list(value: &Value) -> Result<&[Value], String> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| format!("malformed: {} where a list should be", short(value)))
}

pub(super) fn field<'v>(object: &'v Map<String, Value>, key: &str) -> Result<&'v Value, String> {
    object.get(key).ok_or_else(|| format!("malformed: {key} is missing"))
}
