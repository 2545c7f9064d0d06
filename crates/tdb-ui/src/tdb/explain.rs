//! Explanations of table rows, each patched into its row. Stored ones come by themselves, those of all rows in sight in
//! one request; where there is none, one is written and scored if that is asked for, since it may cost.

use std::collections::HashMap;
use std::time::Duration;

use leptos::prelude::*;
use tdb_api::page::{ModelSlug, NodePage, NodePageKind};
use tdb_api::{
    AttributedScoredExplanation, ExistingExplanationsBatchRequest, ExistingExplanationsRequest, NodeIdAndDatasets,
    NodeIndex, ScoreKind, ScoreRequest, routes,
};

use super::Slug;
use super::request_queue::RequestQueue;
use crate::client::{self, Kind, Problem};
use crate::context::{expect_context, provide_context};
use crate::format;
use crate::names::{self, Component};
use crate::records::stored_node;
use crate::server::{Health, Server};
use crate::signals::{Peek, RwSignal, See, effect};
use crate::tasks::spawn;
use crate::ui::Notices;

/// Requests for new explanations under way at once: they may cost.
const WRITTEN_AT_ONCE: usize = 2;

/// Components that one request asks about.
const BATCH: usize = 200;

/// Examples that a score is taken over: it has to be there soon.
const SCORED_ON: i64 = 2;

#[derive(Clone, Debug, PartialEq)]
pub enum Explained {
    Waiting,
    Failed(String),
    /// Texts with their scores; none is stored if it is empty.
    Done(Vec<Scored>),
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
    stored: StoredValue<Vec<Component>>,
    written: StoredValue<RequestQueue<Component>>,
    slug: Slug,
    owner: StoredValue<Owner>,
    server: Server,
    notices: Notices,
}

impl Explanations {
    pub fn provide() {
        let all = Self {
            writing: RwSignal::new(false),
            known: StoredValue::default(),
            timer: StoredValue::default(),
            stored: StoredValue::default(),
            written: StoredValue::new(RequestQueue::new(WRITTEN_AT_ONCE)),
            slug: Slug::get(),
            owner: StoredValue::new(Owner::current().unwrap_or_default()),
            server: Server::get(),
            notices: Notices::get(),
        };
        effect(move || {
            if all.writing.get() {
                let is_missing = |e: &Explained| matches!(e, Explained::Failed(_)) || *e == Explained::Done(vec![]);
                let missing: Vec<Component> = all.known.with_value(|known| {
                    known.iter().filter(|(_, k)| k.explained.peek(is_missing)).map(|(k, _)| *k).collect()
                });
                missing.into_iter().for_each(|key| all.write(key));
            }
        });
        // What failed while the server was away is asked for again when it is back.
        effect(move || {
            if all.server.health.get() == Health::Present {
                let failed = |k: &Known| k.explained.peek(|e| matches!(e, Explained::Failed(_)));
                let again = all.known.with_value(|known| {
                    known.iter().filter(|(_, k)| failed(k)).map(|(key, _)| *key).collect::<Vec<_>>()
                });
                again.into_iter().for_each(|key| all.want_stored(key));
            }
        });
        provide_context(all);
    }

    pub fn get() -> Self {
        expect_context()
    }

    /// Whether this server can be asked; the reference's may have to be paid for each answer.
    pub fn are_here(self) -> bool {
        self.server.facts.see(|f| f.as_ref().is_some_and(|f| f.explains))
    }

    /// Whether this server has a language model that writes new ones.
    pub fn can_be_written(self) -> bool {
        self.server.facts.see(|f| f.as_ref().is_some_and(|f| f.writes_explanations))
    }

    /// The explanation of a node, fetched when first wanted. Embeddings have none.
    pub fn of(self, node: &NodeIndex) -> Option<RwSignal<Explained>> {
        let key = names::component(node)?;
        if let Some(known) = self.watch(key) {
            return Some(known);
        }
        let page = self.page(key)?;
        let may_be = self.server.facts.peek(|f| f.as_ref().is_some_and(|f| f.may_have_records(&page)));
        let first = if may_be { Explained::Waiting } else { Explained::Done(Vec::new()) };
        // The signal outlives the row that wants it first.
        let explained = self.owner.with_value(|o| o.with(|| RwSignal::new(first)));
        self.known.update_value(|k| {
            k.insert(key, Known { explained, watchers: 0 });
        });
        if may_be {
            self.want_stored(key);
        }
        self.watch(key)
    }

    /// Asks for it together with all others that are wanted until the table stands still.
    fn want_stored(self, key: Component) {
        self.stored.update_value(|wanted| wanted.push(key));
        let ask = move || {
            self.timer.set_value(None);
            self.ask_stored();
        };
        let timer = set_timeout_with_handle(ask, STILL).ok();
        if let Some(before) = self.timer.try_update_value(|t| std::mem::replace(t, timer)).flatten() {
            before.clear();
        }
    }

    /// The component's own page.
    fn page(self, (node_type, layer_index, node_index): Component) -> Option<NodePage> {
        let kind = NodePageKind::of(node_type)?;
        Some(NodePage { slug: ModelSlug::parse(&self.slug.now()), kind, layer_index, node_index })
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
        self.written.update_value(|queue| queue.push(key));
        self.pump();
    }

    fn pump(self) {
        while let Some(key) = self.written.try_update_value(RequestQueue::start).flatten() {
            let Some(signal) = self.still_wanted(key) else {
                self.written.update_value(RequestQueue::done);
                continue;
            };
            let node = self.page(key).and_then(|page| stored_node(&page));
            spawn(async move {
                let _ = signal.try_set(Explained::Waiting);
                if let Err(problem) = write(node, signal).await {
                    self.refused(problem, signal);
                }
                if self.written.try_update_value(RequestQueue::done).is_some() {
                    self.pump();
                }
            });
        }
    }

    fn ask_stored(self) {
        let wanted = self.stored.try_update_value(std::mem::take).unwrap_or_default();
        let wanted: Vec<_> = wanted.into_iter().filter_map(|key| Some((key, self.still_wanted(key)?))).collect();
        for batch in wanted.chunks(BATCH) {
            let batch = batch.to_vec();
            spawn(async move {
                let nodes = batch.iter().map(|(key, _)| self.page(*key).and_then(|page| stored_node(&page)));
                match stored(nodes.collect()).await {
                    Ok(found) => batch.into_iter().zip(found).for_each(|((key, signal), found)| {
                        let is_empty = found.is_empty();
                        let _ = signal.try_set(Explained::Done(found));
                        if is_empty && self.writing.try_get_untracked() == Some(true) {
                            self.write(key);
                        }
                    }),
                    Err(problem) => batch.into_iter().for_each(|(_, signal)| {
                        let _ = signal.try_set(Explained::Failed(problem.message.clone()));
                    }),
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
            self.written.update_value(|queue| {
                for key in queue.clear() {
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

/// An explanation, and its score in words.
type Scored = (String, Option<String>);

/// The explanations of each of these; none of one that no data set has.
async fn stored(nodes: Vec<Option<NodeIdAndDatasets>>) -> Result<Vec<Vec<Scored>>, Problem> {
    let request = |node: NodeIdAndDatasets| ExistingExplanationsRequest {
        dst: node.dst,
        layer_index: node.layer_index,
        activation_index: node.activation_index,
        explanation_datasets: Vec::new(),
        neuron_dataset: node.datasets.into_iter().next(),
    };
    let has: Vec<bool> = nodes.iter().map(Option::is_some).collect();
    let requests = nodes.into_iter().flatten().map(request).collect();
    let asked = ExistingExplanationsBatchRequest { requests };
    let found = client::call::<routes::ExistingExplanationsBatch>(&asked, None).await?.explanations;
    let mut found = found.into_iter().map(|all| all.unwrap_or_default().into_iter().map(scored).collect());
    Ok(has.into_iter().map(|has| if has { found.next().unwrap_or_default() } else { Vec::new() }).collect())
}

fn scored(e: AttributedScoredExplanation) -> Scored {
    (e.explanation, e.score.map(|score| format::score(score, e.score_kind)))
}

async fn write(node: Option<NodeIdAndDatasets>, signal: RwSignal<Explained>) -> Result<(), Problem> {
    let node = node.ok_or_else(|| Problem::unreadable("an explanation", "no data set has this type"))?;
    let texts = client::call::<routes::Explain>(&node, None).await?.explanations;
    let Some(explanation) = texts.first().cloned() else {
        return Err(Problem::unreadable("an explanation", "none was written"));
    };
    let scored = |first: Option<f64>| {
        // Explanations that are written here are scored by simulation.
        let words = first.map(|score| format::score(score, Some(ScoreKind::Correlation)));
        let score = |i| if i == 0 { words.clone() } else { None };
        Explained::Done(texts.iter().enumerate().map(|(i, text)| (text.clone(), score(i))).collect())
    };
    let _ = signal.try_set(scored(None));
    let request = ScoreRequest {
        dst: node.dst,
        layer_index: node.layer_index,
        activation_index: node.activation_index,
        datasets: node.datasets,
        explanation,
        max_sequences: Some(SCORED_ON),
    };
    if let Ok(result) = client::call::<routes::Score>(&request, None).await {
        let _ = signal.try_set(scored(Some(result.score)));
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
                Some(score) => format!("{text} ({score})"),
                None => text.clone(),
            })
            .collect::<Vec<_>>()
            .join(" · "),
    }
}
