//! Explanations of table rows: written and scored in the background where the server can, two at a time, each patched into
//! its row.

use std::collections::{HashMap, VecDeque};

use leptos::prelude::*;
use leptos::task::spawn_local;
use serde_json::{Value, json};
use tdb_api::page::{ModelSlug, NodePageKind};
use tdb_api::{NodeIndex, NodeType};

use super::Slug;
use crate::client;
use crate::names;

const AT_ONCE: usize = 2;

#[derive(Clone, Debug, PartialEq)]
pub enum Explained {
    Waiting,
    Loading,
    Failed(String),
    Done(Vec<(String, Option<f64>)>),
}

type Key = (NodeType, i64, i64);

#[derive(Clone, Copy)]
pub struct Explanations {
    known: StoredValue<HashMap<Key, RwSignal<Explained>>>,
    queue: StoredValue<VecDeque<Key>>,
    running: StoredValue<usize>,
    slug: StoredValue<ModelSlug>,
    owner: StoredValue<Owner>,
}

impl Explanations {
    pub fn provide() {
        provide_context(Self {
            known: StoredValue::default(),
            queue: StoredValue::default(),
            running: StoredValue::new(0),
            slug: StoredValue::new(ModelSlug::parse(&Slug::text())),
            owner: StoredValue::new(Owner::current().unwrap_or_default()),
        });
    }

    pub fn get() -> Self {
        expect_context()
    }

    /// The explanation of a node, fetched when first wanted. Embeddings have none.
    pub fn of(self, node: &NodeIndex) -> Option<RwSignal<Explained>> {
        let key = (names::page_type(node.node_type), node.layer_index?, names::unit(node));
        NodePageKind::of(key.0)?;
        if let Some(known) = self.known.with_value(|k| k.get(&key).copied()) {
            return Some(known);
        }
        // The signal outlives the row that wants it first.
        let signal = self.owner.with_value(|o| o.with(|| RwSignal::new(Explained::Waiting)));
        self.known.update_value(|k| {
            k.insert(key, signal);
        });
        self.queue.update_value(|q| q.push_back(key));
        self.pump();
        Some(signal)
    }

    fn pump(self) {
        while self.running.get_value() < AT_ONCE {
            let Some(key) = self.queue.try_update_value(VecDeque::pop_front).flatten() else { return };
            let Some(signal) = self.known.with_value(|k| k.get(&key).copied()) else { continue };
            self.running.update_value(|n| *n += 1);
            signal.set(Explained::Loading);
            let slug = self.slug.get_value();
            spawn_local(async move {
                let outcome = explain(&slug, key, signal).await;
                if let Err(message) = outcome {
                    let _ = signal.try_set(Explained::Failed(message));
                }
                if self.running.try_update_value(|n| *n -= 1).is_some() {
                    self.pump();
                }
            });
        }
    }
}

async fn explain(slug: &ModelSlug, (node_type, layer, unit): Key, signal: RwSignal<Explained>) -> Result<(), String> {
    let kind = NodePageKind::of(node_type).ok_or("no explanations for this type")?;
    let dataset = slug.dataset_name(node_type).ok_or("no data set for this type")?;
    let node = json!({ "dst": kind.stored, "layerIndex": layer, "activationIndex": unit, "datasets": [dataset] });
    let answer: Value = client::post("/explain", &node, None).await.map_err(|p| p.message)?;
    let texts: Vec<String> =
        answer["explanations"].as_array().into_iter().flatten().filter_map(|e| e.as_str().map(str::to_owned)).collect();
    let Some(first) = texts.first().cloned() else { return Err("none was written".into()) };
    let _ = signal.try_set(Explained::Done(texts.iter().map(|t| (t.clone(), None)).collect()));
    let mut body = node;
    body["explanation"] = json!(first);
    body["maxSequences"] = json!(2);
    if let Ok(score) = client::post::<Value>("/score", &body, None).await {
        let scored =
            texts.into_iter().enumerate().map(|(i, t)| (t, (i == 0).then(|| score["score"].as_f64()).flatten()));
        let _ = signal.try_set(Explained::Done(scored.collect()));
    }
    Ok(())
}

/// An explanation in a line.
pub fn explained_text(state: &Explained) -> String {
    match state {
        Explained::Waiting | Explained::Loading => "loading…".into(),
        Explained::Failed(message) => format!("no explanation: {message}"),
        Explained::Done(all) => all
            .iter()
            .map(|(text, score)| format!("{}: {text}", score.map_or_else(|| "?".to_owned(), |s| format!("{s:.2}"))))
            .collect::<Vec<_>>()
            .join(" · "),
    }
}
