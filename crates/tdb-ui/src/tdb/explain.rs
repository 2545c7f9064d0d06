//! Explanations of table rows, each patched into its row. Stored ones come by themselves; where there is none, one is written
//! and scored if that is asked for, since it may cost.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use leptos::prelude::*;
use leptos::task::spawn_local;
use serde_json::{Value, json};
use tdb_api::page::{ModelSlug, NodePage, NodePageKind};
use tdb_api::{NodeIndex, NodeType};

use super::Slug;
use crate::app::Server;
use crate::client::{self, Kind, Problem};
use crate::names::{self, Component};
use crate::ui::Notices;

/// How an explanation is come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Stored,
    Written,
}

impl Way {
    /// Stored explanations may come from far away; written ones are dear.
    fn at_once(self) -> usize {
        match self {
            Self::Stored => 4,
            Self::Written => 2,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Explained {
    Waiting,
    Failed(String),
    /// Texts with their scores; none is stored if it is empty.
    Done(Vec<(String, Option<f64>)>),
}

/// Rows that a scrolling table draws and forgets are not asked about: first it has to stand still for this long.
const STILL: Duration = Duration::from_millis(120);

/// What is known of a node, and how many look at it now.
#[derive(Clone, Copy)]
struct Known {
    explained: RwSignal<Explained>,
    watchers: u32,
}

#[derive(Clone, Copy)]
pub struct Explanations {
    /// Whether missing ones are to be written.
    pub writing: RwSignal<bool>,
    known: StoredValue<HashMap<Component, Known>>,
    timer: StoredValue<Option<TimeoutHandle>>,
    stored: StoredValue<Line>,
    written: StoredValue<Line>,
    slug: StoredValue<ModelSlug>,
    owner: StoredValue<Owner>,
    server: Server,
    notices: Notices,
}

/// Nodes that wait, and how many are being asked about.
#[derive(Default)]
struct Line {
    waiting: VecDeque<Component>,
    running: usize,
}

impl Explanations {
    pub fn provide() {
        let all = Self {
            writing: RwSignal::new(false),
            known: StoredValue::default(),
            timer: StoredValue::default(),
            stored: StoredValue::default(),
            written: StoredValue::default(),
            slug: StoredValue::new(ModelSlug::parse(&Slug::text())),
            owner: StoredValue::new(Owner::current().unwrap_or_default()),
            server: Server::get(),
            notices: Notices::get(),
        };
        Effect::new(move |_| {
            if all.writing.get() {
                let is_missing = |e: &Explained| matches!(e, Explained::Failed(_)) || *e == Explained::Done(vec![]);
                let missing: Vec<Component> = all.known.with_value(|known| {
                    known.iter().filter(|(_, k)| k.explained.with_untracked(is_missing)).map(|(k, _)| *k).collect()
                });
                missing.into_iter().for_each(|key| all.write(key));
            }
        });
        provide_context(all);
    }

    pub fn get() -> Self {
        expect_context()
    }

    /// Whether this server can be asked; the reference's may have to be paid for each answer.
    pub fn are_here(self) -> bool {
        self.server.facts.with(|f| f.as_ref().is_some_and(|f| f.explains))
    }

    /// Whether this server has a language model that writes new ones.
    pub fn can_be_written(self) -> bool {
        self.server.facts.with(|f| f.as_ref().is_some_and(|f| f.writes_explanations))
    }

    /// The explanation of a node, fetched when first wanted. Embeddings have none.
    pub fn of(self, node: &NodeIndex) -> Option<RwSignal<Explained>> {
        let key = names::component(node)?;
        let kind = NodePageKind::of(key.0)?;
        if let Some(known) = self.watch(key) {
            return Some(known);
        }
        let page = NodePage { slug: self.slug.get_value(), kind, layer_index: key.1, node_index: key.2 };
        let may_be = self.server.facts.with_untracked(|f| f.as_ref().is_some_and(|f| f.may_have_records(&page)));
        let first = if may_be { Explained::Waiting } else { Explained::Done(Vec::new()) };
        // The signal outlives the row that wants it first.
        let explained = self.owner.with_value(|o| o.with(|| RwSignal::new(first)));
        self.known.update_value(|k| {
            k.insert(key, Known { explained, watchers: 0 });
        });
        if may_be {
            self.stored.update_value(|q| q.waiting.push_back(key));
            let pump = move || {
                self.timer.set_value(None);
                self.pump(Way::Stored);
            };
            let timer = set_timeout_with_handle(pump, STILL).ok();
            if let Some(before) = self.timer.try_update_value(|t| std::mem::replace(t, timer)).flatten() {
                before.clear();
            }
        }
        self.watch(key)
    }

    /// Counts whoever asks among the watchers until it goes away.
    fn watch(self, key: Component) -> Option<RwSignal<Explained>> {
        let count = move |by: i32| {
            let change = |known: &mut HashMap<Component, Known>| {
                known.get_mut(&key).map(|k| {
                    k.watchers = k.watchers.saturating_add_signed(by);
                    k.explained
                })
            };
            self.known.try_update_value(change).flatten()
        };
        let found = count(1)?;
        on_cleanup(move || {
            count(-1);
        });
        Some(found)
    }

    /// The node's signal, unless nobody looks at it any more; then it is forgotten.
    fn still_wanted(self, key: Component) -> Option<RwSignal<Explained>> {
        self.known
            .try_update_value(|known| match known.get(&key) {
                Some(k) if k.watchers > 0 => Some(k.explained),
                Some(k) => {
                    k.explained.dispose();
                    known.remove(&key);
                    None
                }
                None => None,
            })
            .flatten()
    }

    fn write(self, key: Component) {
        self.written.update_value(|q| q.waiting.push_back(key));
        self.pump(Way::Written);
    }

    fn pump(self, way: Way) {
        let line = match way {
            Way::Stored => self.stored,
            Way::Written => self.written,
        };
        loop {
            let next = |q: &mut Line| {
                let key = (q.running < way.at_once()).then(|| q.waiting.pop_front()).flatten()?;
                q.running += 1;
                Some(key)
            };
            let Some(key) = line.try_update_value(next).flatten() else { return };
            let Some(signal) = self.still_wanted(key) else {
                line.update_value(|q| q.running -= 1);
                continue;
            };
            let slug = self.slug.get_value();
            spawn_local(async move {
                match way {
                    Way::Written => {
                        let _ = signal.try_set(Explained::Waiting);
                        if let Err(problem) = write(&slug, key, signal).await {
                            self.refused(problem, signal);
                        }
                    }
                    Way::Stored => {
                        let found = stored(&slug, key).await;
                        let is_empty = found.as_ref().is_ok_and(Vec::is_empty);
                        let _ = signal.try_set(found.map_or_else(|p| Explained::Failed(p.message), Explained::Done));
                        if is_empty && self.writing.try_get_untracked() == Some(true) {
                            self.write(key);
                        }
                    }
                }
                if line.try_update_value(|q| q.running -= 1).is_some() {
                    self.pump(way);
                }
            });
        }
    }

    /// Without anything that writes explanations there is no use in asking for the other rows.
    fn refused(self, problem: Problem, signal: RwSignal<Explained>) {
        if matches!(problem.kind, Kind::Refused(409 | 501)) && self.writing.try_get_untracked() == Some(true) {
            self.writing.set(false);
            self.notices.say(format!("No explanation can be written here: {}", problem.message));
        }
        if problem.kind == Kind::Refused(409) || self.writing.try_get_untracked() == Some(false) {
            self.written.update_value(|q| {
                for key in q.waiting.drain(..) {
                    if let Some(waiting) = self.known.with_value(|k| k.get(&key).copied()) {
                        let _ = waiting.explained.try_set(Explained::Done(Vec::new()));
                    }
                }
            });
            let _ = signal.try_set(Explained::Done(Vec::new()));
        } else {
            let _ = signal.try_set(Explained::Failed(problem.message));
        }
    }
}

/// The node as the routes about stored data name it.
pub fn stored_node(slug: &ModelSlug, node_type: NodeType, layer: i64, unit: i64) -> Option<Value> {
    let kind = NodePageKind::of(node_type)?;
    let dataset = slug.dataset_name(node_type)?;
    Some(json!({ "dst": kind.stored, "layerIndex": layer, "activationIndex": unit, "datasets": [dataset] }))
}

fn nothing(what: &str) -> Problem {
    Problem::unreadable("an explanation", what)
}

async fn stored(slug: &ModelSlug, (node_type, layer, unit): Component) -> Result<Vec<(String, Option<f64>)>, Problem> {
    let node = stored_node(slug, node_type, layer, unit).ok_or_else(|| nothing("no data set has this type"))?;
    let body = json!({ "dst": node["dst"], "layerIndex": layer, "activationIndex": unit, "explanationDatasets": [], "neuronDataset": node["datasets"][0] });
    let answer: Value = client::post("/existing_explanations", &body, None).await?;
    let read = |e: &Value| Some((e["explanation"].as_str()?.to_owned(), e["score"].as_f64()));
    Ok(answer.as_array().into_iter().flatten().filter_map(read).collect())
}

async fn write(
    slug: &ModelSlug,
    (node_type, layer, unit): Component,
    signal: RwSignal<Explained>,
) -> Result<(), Problem> {
    let mut body = stored_node(slug, node_type, layer, unit).ok_or_else(|| nothing("no data set has this type"))?;
    let answer: Value = client::post("/explain", &body, None).await?;
    let texts: Vec<String> =
        answer["explanations"].as_array().into_iter().flatten().filter_map(|e| e.as_str().map(str::to_owned)).collect();
    let Some(first) = texts.first().cloned() else { return Err(nothing("none was written")) };
    let _ = signal.try_set(Explained::Done(texts.iter().map(|t| (t.clone(), None)).collect()));
    body["explanation"] = json!(first);
    body["maxSequences"] = json!(2);
    if let Ok(score) = client::post::<Value>("/score", &body, None).await {
        let scored =
            texts.into_iter().enumerate().map(|(i, t)| (t, (i == 0).then(|| score["score"].as_f64()).flatten()));
        let _ = signal.try_set(Explained::Done(scored.collect()));
    }
    Ok(())
}

/// The explanations in a line, each with its score.
pub fn explained_text(state: &Explained) -> String {
    match state {
        Explained::Waiting => "…".into(),
        Explained::Failed(message) => format!("no explanation: {message}"),
        Explained::Done(all) => all
            .iter()
            .map(|(text, score)| match score {
                Some(score) => format!("{text} (score {score:.2})"),
                None => text.clone(),
            })
            .collect::<Vec<_>>()
            .join(" · "),
    }
}
