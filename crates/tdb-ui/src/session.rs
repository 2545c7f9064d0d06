//! The debugger's session: what is asked, what was answered, how one got there.
//!
//! [`Session::page`] is the source of truth. It is mirrored in the URL: typing replaces the history entry, a step
//! (submit, ablate, trace …) makes a new one, Back and Forward restore. Steps can also be undone and redone. Answers
//! carry their request's number; one that comes late is dropped, and the old answer stays until the new one is there.

mod ask;
mod history;
mod trail;

use std::sync::Arc;

use leptos::ev;
use leptos::prelude::*;
use tdb_api::SuggestedQuestion;
use tdb_api::page::{PageState, SideState};

use crate::answer::Answer;
use crate::client::{Abort, Problem};
use crate::context::expect_context;
use crate::dom;
use crate::server::{Health, Server};
use crate::signals::{Change, Peek, RwSignal, See, effect};
use crate::tasks::spawn;
use crate::token_cache::TokenCache;
use crate::ui::Notices;
use crate::view::ViewState;
pub use ask::Busy;
use history::{History, State};
pub use trail::Layers;

/// The parameter that holds a whole state, compressed.
const SHORT: &str = "s";

/// How many answers are kept for going back without asking again.
const KEPT: usize = 24;

/// One question of this visit with its outcome, for the table of runs.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRecord {
    pub id: u32,
    pub page: PageState,
    pub loss: [Option<f64>; 2],
    pub activation: [Option<f64>; 2],
    pub ms: f64,
}

#[derive(Clone, Copy)]
pub struct Session {
    pub page: RwSignal<PageState>,
    pub view: RwSignal<ViewState>,
    pub answer: RwSignal<Arc<Answer>>,
    /// Grows with each answered question; parts of the page that belong to one answer are keyed by it.
    pub generation: RwSignal<u32>,
    /// The question that the answer shown belongs to.
    pub asked: RwSignal<Option<PageState>>,
    pub busy: RwSignal<Option<Busy>>,
    pub problem: RwSignal<Option<Problem>>,
    pub runs: RwSignal<Vec<RunRecord>>,
    history: RwSignal<History>,
    kept: StoredValue<Vec<Arc<Answer>>>,
    abort: StoredValue<Option<Abort>, LocalStorage>,
    next: StoredValue<u32>,
    path: StoredValue<String>,
    server: Server,
    tokens: TokenCache,
    notices: Notices,
}

impl Session {
    /// Begins with what the router's address says: the browser's own is written only after the page is drawn.
    pub fn new(path: String, query: &str) -> Self {
        let notices = Notices::get();
        let (page, view) = read_query(query, notices);
        let session = Self {
            server: Server::get(),
            tokens: TokenCache::get(),
            notices,
            page: RwSignal::new(page.clone()),
            view: RwSignal::new(view.clone()),
            answer: RwSignal::default(),
            generation: RwSignal::new(0),
            asked: RwSignal::new(None),
            busy: RwSignal::new(None),
            problem: RwSignal::new(None),
            runs: RwSignal::default(),
            history: RwSignal::new(History::new((page, view))),
            kept: StoredValue::default(),
            abort: StoredValue::new_local(None),
            next: StoredValue::new(1),
            path: StoredValue::new(path),
        };
        session.mirror();
        session.ask_when_back();
        session
    }

    pub fn get() -> Self {
        expect_context()
    }

    /// The URL follows the state, and the state follows Back and Forward.
    fn mirror(self) {
        effect(move || {
            let url = self.url(&self.page.get(), &self.view.get());
            let (path, query) = dom::location();
            // Another page's address is not ours to write.
            if path == self.path.get_value() && format!("{path}{query}") != url {
                dom::set_url(&url, false);
            }
        });
        let listener = window_event_listener(ev::popstate, move |_| {
            let (path, query) = dom::location();
            if path != self.path.get_value() {
                return;
            }
            let (page, view) = read_query(&query, self.notices);
            let is_new = self.page.peek(|p| *p != page);
            self.page.set(page.clone());
            self.view.set(view.clone());
            self.history.change(|history| history.restore((page, view)));
            if is_new {
                self.ask(false);
            }
        });
        on_cleanup(move || listener.remove());
    }

    /// A question that found no server is asked again when there is one.
    fn ask_when_back(self) {
        effect(move || {
            let is_here = self.server.health.get() == Health::Present;
            let waits = self.problem.peek(|p| p.as_ref().is_some_and(Problem::is_unanswered));
            if is_here && waits {
                self.ask(true);
            }
        });
    }

    /// The address of a state.
    pub fn url(self, page: &PageState, view: &ViewState) -> String {
        let mut page = page.clone();
        page.other.extend(view.parameters());
        let query = page.to_query();
        let path = self.path.get_value();
        if query.is_empty() { path } else { format!("{path}?{query}") }
    }

    /// Takes a step: changes the question, remembers it in the history, and asks.
    pub fn step(self, change: impl FnOnce(&mut PageState, &mut ViewState)) {
        let (mut page, mut view) = (self.page.get_untracked(), self.view.get_untracked());
        change(&mut page, &mut view);
        let (last, last_view) = self.history.peek(|history| history.present().clone());
        if last != page {
            // What was typed since replaced the last step's address; put it back, so that Back leads there.
            dom::set_url(&self.url(&last, &last_view), false);
            dom::set_url(&self.url(&page, &view), true);
            self.history.change(|history| history.push((page.clone(), view.clone())));
        }
        self.page.set(page);
        self.view.set(view);
        self.ask(last == self.page.get_untracked());
    }

    /// Asks the question as it stands. An unchanged one is asked again.
    pub fn submit(self) {
        self.step(|_, _| {});
    }

    pub fn can_undo(self) -> bool {
        self.history.see(|history| self.page.see(|page| history.can_undo(page)))
    }

    pub fn can_redo(self) -> bool {
        self.history.see(History::can_redo)
    }

    /// Back by one step; unsubmitted edits count as one.
    pub fn undo(self) {
        let now = (self.page.get_untracked(), self.view.get_untracked());
        self.go_to(self.history.try_update(|history| history.undo(now)).flatten());
    }

    pub fn redo(self) {
        self.go_to(self.history.try_update(History::redo).flatten());
    }

    fn go_to(self, state: Option<State>) {
        let Some((page, view)) = state else { return };
        dom::set_url(&self.url(&page, &view), true);
        self.page.set(page);
        self.view.set(view);
        self.ask(false);
    }

    /// Opens a whole state, for instance a snapshot.
    pub fn open(self, page: PageState, view: ViewState) {
        self.step(move |p, v| {
            *p = page;
            *v = view;
        });
    }

    /// Whether the question was changed since the answer shown was asked for.
    pub fn is_edited(self) -> bool {
        self.asked.see(|asked| {
            asked.as_ref().is_some_and(|asked| {
                self.page.see(|page| {
                    // Which layers are hidden is no matter of the answer.
                    let mut asked = asked.clone();
                    asked.hide_early_layers_when_ablating = page.hide_early_layers_when_ablating;
                    asked.alignment != page.alignment || asked.to_request() != page.to_request()
                })
            })
        })
    }

    /// Whether what is shown awaits its successor.
    pub fn is_stale(self) -> bool {
        self.busy.see(|busy| busy.as_ref().is_some_and(|b| b.id != self.generation.get()))
    }

    /// Model and server version, for exports.
    pub fn facts_stamp(self) -> (String, String) {
        self.server.facts.peek(|facts| {
            let facts = facts.as_ref();
            let model = facts.and_then(|f| f.slug()).map_or_else(|| "unknown".to_owned(), |s| s.to_string());
            let version = facts
                .and_then(|f| f.server.as_ref())
                .map_or_else(|| "server unknown".to_owned(), |s| format!("tdb {}", s.version));
            (model, version)
        })
    }

    /// The first question, as the page opens: where the address names none, one that the server's model can know.
    pub fn begin(self) {
        let packed = self.page.peek(|p| p.other.iter().find(|(n, _)| n == SHORT).map(|(_, v)| v.clone()));
        let Some(packed) = packed else { return self.begin_unpacked() };
        spawn(async move {
            let query = dom::unpacked(&packed).await;
            if query.is_none() {
                self.notices.say("This short link cannot be read. Showing the default question instead.");
            }
            let (page, view) = read_query(&query.unwrap_or_default(), self.notices);
            if self.page.try_set(page.clone()).is_none() {
                return;
            }
            self.history.set(History::new((page, view.clone())));
            self.view.set(view);
            self.ask(false);
        });
    }

    fn begin_unpacked(self) {
        if self.page.peek(|page| page.left != PageState::default().left) {
            return self.ask(false);
        }
        let begun = StoredValue::new(false);
        effect(move || {
            let (facts, health) = (self.server.facts.get(), self.server.health.get());
            if begun.get_value() || facts.is_none() && !matches!(health, Health::Absent(_)) {
                return;
            }
            begun.set_value(true);
            let suggested = facts.and_then(|facts| facts.server).and_then(|server| server.suggested_question);
            if let Some(SuggestedQuestion { prompt, target_tokens, distractor_tokens }) = suggested {
                let (mut page, view) = (self.page.get_untracked(), self.view.get_untracked());
                page.left = SideState { prompt, target_tokens, distractor_tokens, ..page.left };
                self.history.set(History::new((page.clone(), view)));
                self.page.set(page);
            }
            self.ask(false);
        });
    }

    /// A link with the state compressed, for messages; the address itself stays readable.
    pub async fn short_link(self) -> Option<String> {
        let url = self.url(&self.page.get_untracked(), &self.view.get_untracked());
        let (path, query) = url.split_once('?')?;
        Some(format!("{}{path}?{SHORT}={}", dom::origin(), dom::packed(query).await?))
    }
}

/// Reads a query string into the question and the way it is looked at.
pub fn read_query(query: &str, notices: Notices) -> (PageState, ViewState) {
    let (mut page, problems) = PageState::from_query(query);
    /// Notices about one link.
    const TOLD: usize = 3;
    let more = problems.len().saturating_sub(TOLD);
    for problem in problems.into_iter().take(TOLD) {
        notices.say(format!("Ignored an unreadable part of the link ({problem})."));
    }
    if more > 0 {
        notices.say(format!("Ignored {more} more unreadable parts of the link."));
    }
    let view = ViewState::take_from(&mut page.other);
    (page, view)
}
