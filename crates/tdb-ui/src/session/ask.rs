//! Asking: one question at a time, streamed where the server can, superseded by the next.

use std::sync::Arc;

use leptos::prelude::*;
use leptos::task::spawn_local;
use serde_json::{Map, Value, json};
use tdb_api::TokenRef;
use tdb_api::page::PageState;

use super::{KEPT, RunRecord, Session};
use crate::answer::Answer;
use crate::client::{self, Abort, Kind, Problem};
use crate::dom;
use crate::format;

/// What the server is busy with.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    Sent,
    Pass { side: usize, pass: &'static str, layer: u64, of: u64 },
}

/// A question under way.
#[derive(Clone, Debug, PartialEq)]
pub struct Busy {
    pub id: u32,
    pub since: f64,
    pub stage: Stage,
    pub sides: usize,
}

impl Busy {
    /// The stage in words.
    pub fn words(&self) -> String {
        match &self.stage {
            Stage::Sent => "asking".into(),
            Stage::Pass { side, pass, layer, of } => {
                let side = match (self.sides, side) {
                    (0 | 1, _) => "",
                    (_, 0) => ", left",
                    _ => ", right",
                };
                format!("{pass}{side} {layer}/{of}")
            }
        }
    }
}

/// The field that a sentence of the reference's server is about: it names the token, not its place.
fn field_in_words(message: &str, page: &PageState) -> Option<String> {
    let quoted = message.split(" decoded to [").next().filter(|q| q.len() < message.len())?;
    let token = quoted.trim_matches(['\'', '"']);
    let sides = std::iter::once(&page.left).chain(page.right.as_ref());
    sides.enumerate().find_map(|(side, state)| {
        let place = |list: &[TokenRef], name: &str| {
            list.iter().position(|t| t.text() == token).map(|at| format!("subRequests[{side}].{name}[{at}]"))
        };
        place(&state.target_tokens, "targetTokens").or_else(|| place(&state.distractor_tokens, "distractorTokens"))
    })
}

impl Session {
    /// Asks for the answer to the present question; a kept one serves unless `again`.
    pub(super) fn ask(self, again: bool) {
        let page = self.page.get_untracked();
        let Ok(body) = serde_json::to_string(&page.to_request()) else { return };
        let body: Arc<str> = body.into();
        let id = self.next.get_value();
        self.next.set_value(id + 1);
        // Dropping the last one's handle cancels it.
        self.abort.set_value(Abort::new());
        self.problem.set(None);
        if !again
            && let Some(answer) =
                self.kept.with_value(|kept| kept.iter().find(|(k, _)| *k == body).map(|(_, a)| a.clone()))
        {
            self.busy.set(None);
            self.server.busy.set(false);
            self.generation.set(id);
            self.asked.set(Some(page));
            self.answer.set(answer);
            return;
        }
        let sides = page.to_request().sub_requests.len();
        self.busy.set(Some(Busy { id, since: dom::now(), stage: Stage::Sent, sides }));
        let (server, notices) = (self.server, self.notices);
        server.busy.set(true);
        spawn_local(async move {
            let since = dom::now();
            let outcome = self.fetch(id, &body, sides).await;
            if !self.is_present(id) {
                return;
            }
            server.busy.set(false);
            self.busy.set(None);
            match outcome
                .and_then(|json| Answer::read(json, body.clone()).map_err(|e| Problem::unreadable("the question", e)))
            {
                Ok(answer) => {
                    let answer = Arc::new(answer);
                    self.keep(body, answer.clone());
                    self.asked.set(Some(page.clone()));
                    self.generation.set(id);
                    let side = |i: usize| answer.sides.get(i);
                    let record = RunRecord {
                        id,
                        page,
                        loss: [side(0).and_then(|s| s.loss), side(1).and_then(|s| s.loss)],
                        activation: [side(0).and_then(|s| s.activation), side(1).and_then(|s| s.activation)],
                        ms: dom::now() - since,
                    };
                    self.runs.update(|runs| runs.push(record));
                    notices.speak(format!("{} nodes in {}.", answer.rows.len(), format::duration(dom::now() - since)));
                    self.answer.set(answer);
                }
                Err(problem) if problem.kind == Kind::Aborted => {}
                Err(mut problem) => {
                    server.lost(&problem);
                    problem.field = problem.field.take().or_else(|| field_in_words(&problem.message, &page));
                    self.problem.set(Some(problem));
                }
            }
        });
    }

    /// Stops the question under way; the old answer stands.
    pub fn cancel(self) {
        self.next.update_value(|n| *n += 1);
        self.abort.set_value(None);
        self.busy.set(None);
        self.server.busy.set(false);
        self.notices.speak("Cancelled.");
    }

    fn is_present(self, id: u32) -> bool {
        self.next.try_get_value() == Some(id + 1)
    }

    fn keep(self, body: Arc<str>, answer: Arc<Answer>) {
        self.kept.update_value(|kept| {
            kept.retain(|(k, _)| *k != body);
            if kept.len() >= KEPT {
                kept.remove(0);
            }
            kept.push((body, answer));
        });
    }

    async fn fetch(self, id: u32, body: &Arc<str>, sides: usize) -> Result<Value, Problem> {
        let signal = || self.abort.with_value(|a| a.as_ref().map(Abort::signal));
        let mut parts = Parts::new(sides);
        let streamed = client::post_lines("/batched_tdb/stream", body, signal(), |line| {
            if !self.is_present(id) {
                return;
            }
            if let Some(news) = parts.take(line) {
                self.hear(id, news, &parts, body);
            }
        })
        .await;
        match streamed {
            Ok(()) => parts.finish(),
            Err(problem) if problem.is_missing_route() && self.is_present(id) => {
                let text = client::post_text("/batched_tdb", Some(body), signal()).await?;
                serde_json::from_str(&text).map_err(|e| Problem::unreadable("the question", e))
            }
            Err(problem) => Err(problem),
        }
    }

    fn hear(self, id: u32, news: News, parts: &Parts, body: &Arc<str>) {
        match news {
            News::Stage(stage) => self.busy.update(|busy| {
                if let Some(busy) = busy.as_mut().filter(|b| b.id == id) {
                    busy.stage = stage;
                }
            }),
            // The table and the candidates are there; their readings come later and fill in.
            News::Usable => {
                if let Ok(answer) = Answer::read(parts.json(), body.clone()) {
                    self.asked.set(
                        Some(self.page.get_untracked())
                            .filter(|p| serde_json::to_string(&p.to_request()).is_ok_and(|b| *b == **body)),
                    );
                    self.generation.set(id);
                    self.answer.set(Arc::new(answer));
                }
            }
        }
    }
}

enum News {
    Stage(Stage),
    Usable,
}

/// The answer as it is put together from the stream.
struct Parts {
    subs: Vec<(Value, Map<String, Value>)>,
    extras: Vec<Map<String, Value>>,
    usable: bool,
    done: bool,
    failed: Option<Problem>,
}

impl Parts {
    fn new(sides: usize) -> Self {
        Self {
            subs: vec![(Value::Null, Map::new()); sides],
            extras: vec![Map::new(); sides],
            usable: false,
            done: false,
            failed: None,
        }
    }

    fn take(&mut self, line: &str) -> Option<News> {
        let mut event: Value = serde_json::from_str(line).ok()?;
        let side = event["side"].as_u64().unwrap_or_default() as usize;
        match event["event"].as_str()? {
            "progress" => {
                let pass = match event["pass"].as_str() {
                    Some("forward") => "forward",
                    Some("backward") => "backward",
                    _ => "token lists",
                };
                let number = |key: &str| event[key].as_u64().unwrap_or_default();
                return Some(News::Stage(Stage::Pass { side, pass, layer: number("layer"), of: number("nLayers") }));
            }
            "inference" => self.subs.get_mut(side)?.0 = event["data"].take(),
            "output_logits" | "node_groups" | "token_readings" | "token_pairs" => {
                let name = event["name"].as_str()?.to_owned();
                self.subs.get_mut(side)?.1.insert(name, event["data"].take());
            }
            // Beyond the reference's answer: probabilities, and where the asked tokens stand.
            "candidates" => {
                self.extras.get_mut(side)?.insert("probabilities".into(), event["probabilities"].take());
                self.extras.get_mut(side)?.insert("tokensOfInterest".into(), event["tokensOfInterest"].take());
            }
            "done" => self.done = true,
            "error" => {
                let status = event["status"].as_u64().unwrap_or(500) as u16;
                let told = event["message"].as_str().unwrap_or("The server failed.").to_owned();
                let (message, field) = client::split_field(told, event["field"].as_str().map(str::to_owned));
                self.failed = Some(Problem { kind: Kind::Refused(status), message, field, hint: None });
            }
            _ => {}
        }
        let needed = ["topKComponents", "topOutputTokenLogits"];
        let usable =
            self.subs.iter().all(|(run, parts)| !run.is_null() && needed.iter().all(|n| parts.contains_key(*n)));
        (usable && !std::mem::replace(&mut self.usable, usable)).then_some(News::Usable)
    }

    fn json(&self) -> Value {
        let subs = self.subs.iter().zip(&self.extras).map(|((run, parts), extras)| {
            let mut parts = parts.clone();
            if let Some(top) = parts.get_mut("topOutputTokenLogits") {
                if let Some(probabilities) = extras.get("probabilities") {
                    top["activationsByGroupId"]["probabilities"] = probabilities.clone();
                }
                if let Some(tokens) = extras.get("tokensOfInterest") {
                    top["tokensOfInterest"] = tokens.clone();
                }
            }
            json!({ "inferenceResponse": { "inferenceAndTokenData": run }, "processingResponseDataByName": parts })
        });
        json!({ "inferenceSubResponses": subs.collect::<Vec<_>>() })
    }

    fn finish(self) -> Result<Value, Problem> {
        match &self.failed {
            Some(problem) => Err(problem.clone()),
            None if !self.done => Err(Problem::unreadable("the question", "it broke off before its end")),
            None => Ok(self.json()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_without_a_place_finds_its_field() {
        let page = PageState::default();
        let at = |message: &str| field_in_words(message, &page);
        let said = "' Germany' decoded to [1, 2]; wanted exactly 1 token";
        assert_eq!(at(said).as_deref(), Some("subRequests[0].distractorTokens[0]"));
        assert_eq!(at("Unhandled server exception"), None);
    }
}
